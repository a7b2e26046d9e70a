"""Whether accuracies are those of pictures that were nearly seen: one thing on both sides of a split."""

from dataclasses import dataclass

import numpy as np

from onepass.cache.commandline.advice import onepass_command
from onepass.classify.heads.lazy_rows import Mapped, take
from onepass.classify.heads.neighbours.nearest import nearest, unit_length
from onepass.classify.heads.scaler import Scaler
from onepass.data.dataset import ImageDataset
from onepass.data.series import parted_series, series_of

LOOKED_AT = 1_000  # held-out rows, at most


@dataclass(frozen=True, slots=True)
class PartedSeries:
    """Held-out images whose nearest training image is of the same series of file names.

    Attributes:
        pattern: Regular expression whose first group is what the names of a series share.
        share: Part of the held-out images, 0.5 … 1.
        pair: Such an image, and its nearest training image.
    """

    pattern: str
    share: float
    pair: tuple[str, str]


def find_parted_series(
    dataset: ImageDataset, X: np.ndarray, train: np.ndarray, held: np.ndarray
) -> PartedSeries | None:
    """Return the series that a split parts, where most held-out images lie next to one of their own.

    Args:
        dataset: Where it has groups, they are what belongs together.
        X: (N, D) features of all rows.
        train, held: Rows on either side, ascending.
    """
    if dataset.groups is not None:
        return None
    named = parted_series(dataset.names, train, held, len(dataset.class_ids))
    if named is None:
        return None
    held = held[np.linspace(0, len(held) - 1, min(LOOKED_AT, len(held))).astype(np.int64)]
    base = take(X, train)
    scaler = Scaler.fit(base)
    queries, others = (
        Mapped(rows, lambda some: unit_length(scaler.apply(some)), X.shape[1], np.float32)
        for rows in (take(X, held), base)
    )
    found, _ = nearest(queries, others, k=1)
    pairs = [
        (dataset.names[row], dataset.names[other])
        for row, other in zip(held.tolist(), train[found[:, 0]].tolist(), strict=True)
    ]
    alike = [
        (first, second)
        for first, second in pairs
        if (series := series_of(first, named.pattern))
        and series == series_of(second, named.pattern)
    ]
    if 2 * len(alike) <= len(held):
        return None
    return PartedSeries(named.pattern, len(alike) / len(held), alike[0])


def series_words(dataset: str, found: PartedSeries) -> str:
    """Return what was found and the command that mends it, in a sentence."""
    first, second = found.pair
    command = onepass_command("data", "prepare", dataset, "--group-by", found.pattern, "--resplit")
    return (
        f"{found.share:.0%} of the held-out images have a training image of nearly the same name as their nearest, such "
        f"as {first} and {second}; where both show one thing (a patient, a part), accuracies are too high. Keep them "
        f"together: {command}"
    )
