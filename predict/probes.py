"""Predictors of the leaderboard: a head on stored features, or an ensemble of such heads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onepass.cache.errors import InvalidInputError, Remedy
from onepass.cache.features import FeatureKey
from onepass.cache.stores import AnyStore
from onepass.classify.ensemble import member_inputs
from onepass.classify.heads.base import Head
from onepass.classify.heads.lazy_rows import take
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard, ProbeResult
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.protocol.evaluate import selected_on
from onepass.classify.protocol.inputs import PIXELS as SHRUNK
from onepass.classify.protocol.inputs import inputs_of
from onepass.data.dataset import ImageDataset
from onepass.predict.pixel_models import (
    PIXELS,
    EnsembleModel,
    ProbeModel,
    VectorSpec,
    at_temperature,
    head_probabilities,
    tempered,
)
from onepass.predict.predictor import SELECTION, Predictor, split_rows


@dataclass(frozen=True, slots=True)
class Probe:
    """A line of a leaderboard, with all that it takes to predict by it.

    Attributes:
        store: Root of the store, where its features lie.
        dataset: What it was trained on.
        board: Where it stands.
        result: The line.
    """

    store: AnyStore
    dataset: ImageDataset
    board: Leaderboard
    result: ProbeResult

    @property
    def name(self) -> str:
        """DATASET/PROBE."""
        return f"{self.dataset.name}/{self.result.id}"

    def feature_keys(self) -> list[FeatureKey]:
        """Return the features that it, or its members, look at."""
        lines = [self.result, *(self.board.find(member) for member in self.result.members)]
        return [key for line in lines for key in line.keys]

    @property
    def folder(self) -> Path:
        """Where its head and its probabilities lie."""
        return self.board.head_folder(self.result)


def probe_predictor(probe: Probe, *, scaled: bool = True) -> Predictor:
    """Return the predictor of a probe: a head on stored features.

    Args:
        probe: A line of the leaderboard without members.
        scaled: Whether its probabilities are scaled by the temperature that was learnt with it.

    Raises:
        InvalidInputError: Its head does not know every class.
        OnepassError: The head's files are missing or damaged.
    """
    head = _load_head(probe)

    def compute(split: str) -> np.ndarray:
        views = inputs_of(probe.store, probe.dataset, probe.result).all_views()
        if views[0].shape[1] != head.n_features_in_:
            raise InvalidInputError(
                f"probe {probe.result.id}: expected vectors of {head.n_features_in_} numbers, "
                f"received {views[0].shape[1]}",
                remedy=Remedy("classify", probe.dataset.name),
            )
        rows = split_rows(probe.dataset, split)
        return head_probabilities(head, [take(view, rows) for view in views])

    return _predictor(probe, compute, scaled, _probe_model(probe.result, head))


def ensemble_predictor(probe: Probe, *, scaled: bool = True) -> Predictor:
    """Return the predictor of an ensemble: its members' heads are asked, each on its own features.

    Args:
        probe: A line of the leaderboard with members.
        scaled: As in `probe_predictor`.

    Raises:
        OnepassError: As in `probe_predictor`.
    """
    head = _load_head(probe)
    lines = [probe.board.find(member) for member in probe.result.members]
    members = [
        probe_predictor(Probe(probe.store, probe.dataset, probe.board, line)) for line in lines
    ]

    def compute(split: str) -> np.ndarray:
        inputs = member_inputs([member.compute(split) for member in members])
        return head_probabilities(head, [inputs])

    models = tuple(member.model for member in members if isinstance(member.model, ProbeModel))
    model = EnsembleModel(models, head) if len(models) == len(members) else None
    return _predictor(probe, compute, scaled, model)


def _probe_model(result: ProbeResult, head: Head) -> ProbeModel | None:
    """Return what a probe makes of new pictures; None where it looks at none."""
    if result.keys:
        specs = [VectorSpec.of(key) for key in result.keys]
        width = len(result.features)  # vectors side by side; those of the other views follow
        views = tuple(tuple(specs[i : i + width]) for i in range(0, len(specs), width))
    elif result.features and result.features[0].startswith(SHRUNK):
        side = int(result.features[0].removeprefix(SHRUNK))
        views = ((VectorSpec(PIXELS, "none", side, pooling="none"),),)
    else:
        return None
    return ProbeModel(views, head)


def _predictor(
    probe: Probe,
    compute: Callable[[str], np.ndarray],
    scaled: bool,
    model: ProbeModel | EnsembleModel | None,
) -> Predictor:
    """Return a predictor whose `compute` applies the temperature, and knows the selection rows."""
    result, dataset = probe.result, probe.dataset
    temperature = result.temperature if scaled else 1.0
    held_out = selected_on(dataset, result)

    def compute_part(part: str) -> np.ndarray:
        if part == SELECTION:  # by the head before it was refitted on all training rows
            return load_probabilities(probe.folder, result.rows).selection.astype(np.float32)
        return tempered(compute(part), temperature)

    made_of = f"{len(result.members)} probes" if result.members else result.features_text
    return Predictor(
        name=probe.name,
        description=f"{result.head} on {made_of or 'nothing'}",
        data=dataset,
        compute=compute_part,
        held_out=held_out if scaled else None,
        not_held_out="" if scaled else f"{probe.name} is not scaled",
        precision="float16",
        temperature=temperature,
        learnt_on=len(held_out) if scaled else 0,
        model=model and at_temperature(model, temperature),
    )


def _load_head(probe: Probe) -> Head:
    """Return the fitted head of a probe.

    Raises:
        InvalidInputError: It does not know every class of the data set.
        OnepassError: Its files are missing or damaged.
    """
    head, count = load_head(probe.folder), len(probe.dataset.class_ids)
    if not np.array_equal(head.classes_, np.arange(count)):
        raise InvalidInputError(
            f"probe {probe.result.id}: expected the {count} classes of {probe.dataset.name}, "
            f"received {len(head.classes_)}",
            remedy=Remedy("classify", probe.dataset.name),
        )
    return head
