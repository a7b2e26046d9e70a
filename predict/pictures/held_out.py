"""What a model says of the pictures that were held out of its data set, kept for the report."""

from pathlib import Path
from typing import ClassVar

from onepass.cache.artifacts import Artifact, record
from onepass.cache.stores import AnyStore
from onepass.data.held_out import held_out_folder
from onepass.predict.config import on_disk
from onepass.predict.pictures.answers import Answer
from onepass.predict.predictor import Predictor


@record
class HeldOutAnswer:
    """The answer to one held-out picture.

    Attributes:
        file: Its name in the folder.
        class_id: The class that it is given; "" where the answer was left open, or it could not be read.
        probability: Of that class, 0 … 1; 0 where there is none.
    """

    file: str
    class_id: str
    probability: float


@record
class HeldOutAnswers(Artifact):
    """`runs/<data set>/held_out.json`: the latest answers to the held-out pictures.

    Attributes:
        dataset_digest: State of the data set (hex).
        model: Whose answers they are, DATASET/PROBE or DATASET/RUN.
        point: By which operating point its classes were decided, such as "sensitivity=0.95"; "" where the most
            probable class is the answer.
        answers: They.
    """

    NAME: ClassVar[str] = "held_out.json"

    dataset_digest: str
    model: str
    point: str
    answers: list[HeldOutAnswer]

    @classmethod
    def of(cls, predictor: Predictor, answers: list[Answer]) -> "HeldOutAnswers":
        """Return what is kept of a model's answers."""
        kept = [
            HeldOutAnswer(Path(answer.file).name, one.class_id if one else "", one.probability if one else 0.0)
            for answer in answers
            for one in [answer.decided]
        ]  # fmt: skip
        point = str(predictor.point.goal) if predictor.point else ""
        return cls(predictor.dataset.digest, predictor.name, point, kept)


def are_held_out(images: tuple[str, ...], predictor: Predictor, store: AnyStore) -> bool:
    """Tell whether the pictures are those held out of the model's data set: all of them, and no others."""
    if predictor.data is None or len(images) != 1 or not on_disk(images[0]):
        return False
    folder = held_out_folder(store, predictor.data.name)
    return folder.is_dir() and Path(images[0]).expanduser().samefile(folder)
