"""What a head looks at: the vectors of all rows, checked before anything is fitted."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from onepass.cache.errors import InvalidInputError, MissingFileError, Remedy, StaleError, UsageError
from onepass.cache.features import (
    FeatureKey,
    FeatureSet,
    check_fresh,
    extract_flags,
    resolve_features,
)
from onepass.cache.provenance import differences, digest_bytes
from onepass.cache.rowfile import RowFile
from onepass.cache.stores import AnyStore
from onepass.classify.heads.lazy_rows import Mapped, Rows, SideBySide, blocks, held
from onepass.classify.leaderboard.board import ProbeResult
from onepass.classify.leaderboard.result import features_text
from onepass.classify.protocol.pixels import pixel_features
from onepass.data.dataset import ImageDataset
from onepass.data.views import expand_views

PIXELS = "pixels@"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Vectors of every row of a data set.

    Attributes:
        vectors: Gives (N, D) float16 or float32, finite.
        features: Key texts, or what a baseline looks at.
        keys: The keys in full, those of the views after the plain ones; none for a baseline.
        digest: Identity of the vectors in all views (hex).
        views: Names of the views that accompany the plain one.
        viewed: Gives the vectors of each of these views, (N, D).
    """

    vectors: Callable[[], Rows]
    features: tuple[str, ...]
    keys: tuple[FeatureKey, ...]
    digest: str
    views: tuple[str, ...] = ()
    viewed: tuple[Callable[[], Rows], ...] = ()

    @property
    def baseline(self) -> bool:
        """Whether no backbone is behind them."""
        return not self.keys

    @property
    def pixels(self) -> bool:
        """Whether they are the images themselves."""
        return self.baseline and self.text.startswith(PIXELS)

    @property
    def text(self) -> str:
        """The features and their views, as the leaderboard shows them."""
        return features_text(self.features, self.views)

    def all_views(self) -> tuple[Rows, ...]:
        """Return the vectors (N, D) of the plain view and of each other one."""
        return self.vectors(), *(vectors() for vectors in self.viewed)


def feature_inputs(
    store: AnyStore, dataset: ImageDataset, texts: tuple[str, ...], views: tuple[str, ...] = ()
) -> list[Inputs]:
    """Open the features that the texts name: KEY, or KEY,KEY for several side by side.

    Args:
        store: Root of the store.
        dataset: What they must have been made from.
        texts: None given means each that is stored of the image as it is; with views, in all of them as well.
        views: Other views of the same images that accompany each key.

    Raises:
        MissingFileError: There are none yet.
        UnknownNameError: One is not there.
        StaleError: One is of other images than the data set has now.
        InvalidInputError: One holds NaN or Inf.
        CorruptFileError: One is not what was written.
    """
    views = expand_views(views, dataset.record.symmetries)
    if texts:
        groups = [tuple(filter(None, text.split(","))) for text in texts]
        if not all(groups):
            raise UsageError(
                f"--features {' '.join(texts)!r}: expected keys, received an empty one"
            )
        sets = [resolve_features(store, dataset.name, group) for group in groups]
    else:
        every = resolve_features(store, dataset.name)
        whole = [one for one in every if not one.keys[0].view]
        sets = [[one] for one in whole if _in_all_views(store, one, views)]
        if not views:  # a view by itself only where there is nothing else
            sets = sets or [[one] for one in every]
        if not sets:
            raise MissingFileError(
                f"{dataset.name}: no features are stored in the views {', '.join(views)}",
                remedy=Remedy(
                    "extract",
                    dataset.name,
                    ("--backbone", "efficientnet_lite0", "--view", "", *views),
                ),
            )
    return [_checked(store, dataset, group, views) for group in sets]


def pixel_inputs(dataset: ImageDataset, side: int) -> Inputs:
    """Return the images themselves, shrunk to `side` (px), as vectors."""
    text, shape = f"{PIXELS}{side}", dataset.pixels.shape[1:]
    numbers = min(shape[0], side) * min(shape[1], side) * shape[2]

    def vectors() -> Rows:
        return held(
            Mapped(dataset.pixels, lambda some: pixel_features(some, side), numbers, np.float16)
        )

    return Inputs(vectors, (text,), (), dataset.digest)


def no_inputs(dataset: ImageDataset) -> Inputs:
    """Return each row's number, for a head that looks at nothing or draws."""
    rows = len(dataset.labels)
    return Inputs(lambda: np.arange(rows, dtype=np.float32)[:, None], (), (), dataset.digest)


def logits_inputs(store: AnyStore, dataset: ImageDataset, text: str) -> Inputs:
    """Return the ImageNet logits that are stored beside the features of a key, for a baseline.

    Raises:
        MissingFileError: There are none.
        InvalidInputError: They hold NaN or Inf.
    """
    (one,) = resolve_features(store, dataset.name, [text])
    logits = one.logits
    if logits is None:
        raise MissingFileError(
            f"{text}: its logits are not stored",
            remedy=Remedy("extract", dataset.name, (*extract_flags(one.keys[0]), "--logits")),
        )
    check_fresh(one, dataset.contents)
    check_finite(one.path, logits, dataset.names)
    return Inputs(lambda: logits, (text,), (), one.digest)


def inputs_of(store: AnyStore, dataset: ImageDataset, result: ProbeResult) -> Inputs:
    """Open the vectors that a probe on the leaderboard was made from.

    Raises:
        StaleError: They are others than they were.
        OnepassError: As `feature_inputs`.
    """
    if result.baseline and not result.features:
        return no_inputs(dataset)
    if result.baseline and not result.features[0].startswith(PIXELS):
        return logits_inputs(store, dataset, result.features[0])
    if result.baseline:
        return pixel_inputs(dataset, int(result.features[0].removeprefix(PIXELS)))
    (inputs,) = feature_inputs(store, dataset, (",".join(result.features),), result.views)
    if inputs.digest != result.features_digest:
        raise StaleError(
            f"probe {result.id}: made from vectors {result.features_digest[:8]}, but {result.features_text} "
            f"is now {inputs.digest[:8]}",
            remedy=Remedy("classify", dataset.name),
        )
    return inputs


def _checked(
    store: AnyStore, dataset: ImageDataset, sets: list[FeatureSet], views: tuple[str, ...]
) -> Inputs:
    """Return the sets side by side, in each view, after looking at every number."""
    groups = [sets, *(_in_view(store, sets, view) for view in views)]
    for one in (one for group in groups for one in group):
        check_fresh(one, dataset.contents)
        RowFile.open(one.path).verify()  # its bytes are read for the next line in any case
        check_finite(one.path, one.X, dataset.names)
    digests = [FeatureSet.join_digest(group) for group in groups]
    plain, *viewed = (partial(_side_by_side, group) for group in groups)
    return Inputs(
        vectors=plain,
        features=tuple(str(key) for one in sets for key in one.keys),
        keys=tuple(key for group in groups for one in group for key in one.keys),
        digest=digest_bytes(*map(str.encode, digests)) if views else digests[0],
        views=views,
        viewed=tuple(viewed),
    )


def _side_by_side(sets: list[FeatureSet]) -> Rows:
    """Return the vectors side by side."""
    return sets[0].X if len(sets) == 1 else held(SideBySide([one.X for one in sets]))


def _view_key(one: FeatureSet, view: str) -> FeatureKey:
    (key,) = one.keys
    if key.view:
        raise UsageError(f"--views {view}: expected features of the plain view, received {key}")
    return replace(key, view=view)


def _in_all_views(store: AnyStore, one: FeatureSet, views: tuple[str, ...]) -> bool:
    return all(_view_key(one, view).find(store, one.dataset) for view in views)


def _in_view(store: AnyStore, sets: list[FeatureSet], view: str) -> list[FeatureSet]:
    """Return the same features in another view."""
    found = []
    for one in sets:
        key = _view_key(one, view)
        path = key.find(store, one.dataset)
        if path is None:
            raise MissingFileError(
                f"{key.file(store, one.dataset)}: no such view yet",
                remedy=Remedy("extract", one.dataset, extract_flags(key)),
            )
        (other,) = resolve_features(store, one.dataset, [str(key)])
        if other.keys != (key,):
            raise InvalidInputError(
                f"{path}: expected view {view} of {one.text}, but {differences(asdict(key), asdict(other.keys[0]))}; "
                "delete it and run the extract command again"
            )
        found.append(other)
    return found


def check_finite(path: Path, X: np.ndarray, names: list[str]) -> None:
    """Refuse vectors (N, D) that hold NaN or Inf.

    Raises:
        InvalidInputError: Names the first row, its image, and how many there are.
    """
    bad = np.concatenate([~np.isfinite(X[block]).all(axis=1) for block in blocks(X)])
    if bad.any():
        row = int(bad.argmax())
        raise InvalidInputError(
            f"{path}: row {row} ({names[row]}) holds NaN or Inf, as do {int(bad.sum()) - 1:,} other rows; "
            "delete the file with onepass cache delete and run the extract command again"
        )
