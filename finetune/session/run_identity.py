"""Whose a run's folder is: `config.json` in it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from onepass.cache.artifacts import Artifact, record, to_json
from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.cache.features import FeatureKey, key_of_format_1
from onepass.cache.made_by import MadeBy
from onepass.cache.provenance import differences, digest_json
from onepass.data.dataset import ImageDataset
from onepass.finetune.recipes import Recipe, recipe_name_today

CONFIG = "config.json"


@record
class RateSearch:
    """What the loss did while the learning rate rose.

    Attributes:
        dataset: Its name.
        start: What the network started from.
        recipe: Name of the recipe.
        rates: One per step.
        losses: Running mean of the loss (nats) there.
        turn: Where among them the suggestion comes from.
        suggested: The rate to train with, of two digits.
        why: Of that, in words.
    """

    dataset: str
    start: str
    recipe: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    turn: int
    suggested: float
    why: str


@record
class RunIdentity:
    """What the course of a training depends on; a folder holds a run of one identity only.

    Attributes:
        dataset: Name of the data set.
        dataset_digest: Its state (hex).
        probe: Id of the probe that the run starts from.
        features: The fields of the features' `onepass.cache.features.FeatureKey`, and their kind.
        recipe: With what the flags change of it.
        unfreeze: What is trained: "all", "last:N" or "from:LAYER".
        select: Whether the selection split is held out.
        rows: How many rows are trained on; 0 for all.
        weights: Where the backbone's weights come from, as `--weights` takes it.
        seed: Of the order, the augmentation and the dropout.
        metric: What epochs are chosen by.
        class_weight: "balanced" where the images of each class count the same in the loss, else "none".
        from_run: DATASET/RUN of the run whose network it goes on from; "" where it starts from the probe.
        from_weights: Digest (hex) of that network's weights; "" likewise.
    """

    dataset: str
    dataset_digest: str
    probe: str
    features: dict[str, Any]
    recipe: Recipe
    unfreeze: str
    select: bool
    rows: int
    weights: str
    seed: int
    metric: str = "top1"
    class_weight: str = "none"
    from_run: str = ""
    from_weights: str = ""

    @property
    def digest(self) -> str:
        """Of all fields (hex); what is as it was before there was another way needs no word."""
        value: dict[str, Any] = to_json(self)
        for fields, name, usual in (
            (value, "metric", "top1"),
            (value, "class_weight", "none"),
            (value, "from_run", ""),
            (value, "from_weights", ""),
            (value["recipe"], "first_size", 1.0),
        ):
            if fields[name] == usual:
                del fields[name]
        return digest_json(value)

    @property
    def key(self) -> FeatureKey:
        """The features that the probe was fitted on.

        Raises:
            CorruptFileError: These are not the fields of a key.
        """
        try:
            return FeatureKey(**{k: v for k, v in self.features.items() if k != "kind"})
        except (TypeError, InvalidInputError) as error:
            raise CorruptFileError(
                f"{CONFIG} of a run on {self.dataset}: expected in features the fields of FeatureKey; "
                f"received others ({error}); train the run again under another name with --run"
            ) from error

    def flat(self) -> dict[str, Any]:
        """Return every number by its name, those of recipe and augmentation too."""
        value: dict[str, Any] = to_json(self)
        recipe: dict[str, Any] = value.pop("recipe")
        return {**value, **recipe, **recipe.pop("augmentation")}


@record
class RunConfig(Artifact):
    """`config.json`: what a run is, written before its first step.

    Attributes:
        identity: What its course depends on.
        made_by: Who began it, when and with what.
        found: What the search for its learning rate saw, where there was one (`--learning-rate auto`);
            the identity holds the rate itself, so that the search is done once.
        contents: Identity of the data set's images in their order (hex); "" in runs of an early version.
        class_ids: Its classes.
    """

    FORMAT: ClassVar[int] = 5
    SAME_SINCE: ClassVar[int] = 2  # no images and classes; 3: no class weights; 4: no run before

    identity: RunIdentity
    made_by: MadeBy
    found: RateSearch | None = None
    contents: str = ""
    class_ids: tuple[str, ...] = ()

    @classmethod
    def upgrade(cls, value: dict[str, Any], found: int) -> dict[str, Any]:
        """Format 0 had the first names of three recipes; format 1 the data set in the feature key."""
        if search := value.get("found"):
            search["recipe"] = recipe_name_today(search["recipe"])
        identity = value["identity"]
        return {
            **value,
            "identity": {**identity, "features": key_of_format_1(identity["features"])},
        }


def refuse_other(folder: Path, wanted: RunIdentity, changes: Mapping[str, Any]) -> None:
    """Check that a folder is free, or this run's.

    Args:
        folder: Of the run.
        wanted: What is to be trained there.
        changes: What the flags say in another way than the identity does, such as a learning rate that
            is still to be found.

    Raises:
        InvalidInputError: It is another's.
    """
    recorded = RunConfig.read_optional(folder / CONFIG)
    if recorded is None:
        return
    ours, theirs = {**wanted.flat(), **changes}, recorded.identity.flat()
    if ours != theirs:
        raise InvalidInputError(
            f"{folder}: holds a run of another configuration ({differences(theirs, ours)}); "
            "give this one a name of its own with --run NAME, or delete that folder"
        )


def record_run(
    folder: Path, identity: RunIdentity, found: RateSearch | None, dataset: ImageDataset
) -> None:
    """Mark a free folder as this run's, with what the search for its learning rate saw."""
    if not (folder / CONFIG).exists():
        config = RunConfig(
            identity, MadeBy.now(), found, dataset.contents, tuple(dataset.class_ids)
        )
        config.write(folder / CONFIG)
