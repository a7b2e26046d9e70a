"""What a trained model predicts, whatever it is made of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.data.dataset import ImageDataset

SELECTION = "selection"  # the part that an early stage held out of the training rows


@dataclass(frozen=True, slots=True)
class Prediction:
    """Probabilities of n images.

    Attributes:
        names: Their n file names.
        rows: (n,) int64, their rows in the data set.
        class_ids: Identity of the class of each of the K columns.
        class_names: Its name in words.
        probabilities: (n, K) float32; each row adds up to 1.
    """

    names: list[str]
    rows: np.ndarray
    class_ids: list[str]
    class_names: list[str]
    probabilities: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """Column of the most probable class of each image, (n,) int64."""
        return self.probabilities.argmax(axis=1)


@dataclass(frozen=True, slots=True)
class Predictor:
    """A probe, an ensemble of probes, a fine-tuned run, or an average of several of them.

    They are made by `onepass.load_predictor`; here they are all alike.

    Attributes:
        name: DATASET/PROBE or DATASET/RUN; of an average the names of its members, joined by " + ".
        description: What it is, in words.
        dataset: What it was trained on; gives images, names and classes.
        compute: Returns the probabilities (n, K) float32 of the rows of "val", of "test" or of
            `held_out` ("selection"), in their order, at its temperature.
        held_out: (s,) int64, the training rows of the selection split, ascending, where `compute` has
            an answer from before the model was trained on them; None where it has none.
        not_held_out: Why there are none; else "".
        precision: Floating-point type that its probabilities were stored in when weights are learnt; an
            average rounds to it.
        views: In what ways a network looks at each image; "" is the whole image; none for a probe,
            which has those of its features.
        members: What an average is made of.
        weights: Theirs, together 1.
        temperature: Divides the logarithms of the probabilities.
        learnt_on: Selection rows that temperature and weights were learnt on; 0 for none.
        note: Why nothing was learnt where it was asked for; else "".
    """

    name: str
    description: str
    dataset: ImageDataset
    compute: Callable[[str], np.ndarray]
    held_out: np.ndarray | None
    not_held_out: str = ""
    precision: str = "float32"
    views: tuple[str, ...] = ()
    members: tuple["Predictor", ...] = ()
    weights: tuple[float, ...] = ()
    temperature: float = 1.0
    learnt_on: int = 0
    note: str = ""

    def predict_split(self, split: str) -> Prediction:
        """Return the probabilities of every image of a split of the data set, in row order.

        Args:
            split: "val" or "test".

        Raises:
            InvalidInputError: The split has no rows.
            OnepassError: Feature files or weights are missing, damaged or others than they were.
        """
        rows = split_rows(self.dataset, split)
        return Prediction(
            names=[self.dataset.names[row] for row in rows],
            rows=rows,
            class_ids=self.dataset.class_ids,
            class_names=self.dataset.class_names,
            probabilities=self.compute(split),
        )


def split_rows(dataset: ImageDataset, split: str) -> np.ndarray:
    """Return the rows (n,) of a split, ascending.

    Raises:
        InvalidInputError: There are none.
    """
    rows = dataset.rows(split)
    if not len(rows):
        raise InvalidInputError(
            f"{dataset.name} has no {split} rows; name another split with --split"
        )
    return rows


def view_text(views: tuple[str, ...]) -> str:
    """Return views in words, such as "plain, flip"."""
    return ", ".join(view or "plain" for view in views)
