"""Splits that stay: drawn once by a hash of what an image is, so that no other image can move it.

What belongs together is drawn together: rows of equal content, and rows of one group.
"""

import warnings
from collections.abc import Iterable, Sequence
from hashlib import blake2b

import numpy as np

from onepass.cache.content import first_of_each
from onepass.cache.errors import InvalidInputError
from onepass.cache.features import SPLITS
from onepass.data.manifest import EXCLUDED

TRAIN, VAL, TEST = range(len(SPLITS))  # how a row's split is stored
UNDRAWN = -1  # nobody has said yet on which side the row lies
FRACTION = 0.25  # of a data set that comes without a validation split
KEPT = -1  # the fold of a row that is never held out


def selection_split(
    labels: np.ndarray,
    rows: np.ndarray,
    content: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    fraction: float = 0.1,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Hold a stratified part of the training rows out, for every choice that is made.

    Heads, hyper-parameters, backbones and sizes are compared on the selection rows only, so that
    the validation split stays unseen. Every class with at least two different images (or groups) has one
    on either side; a class with a single one keeps it for fitting.

    Args:
        labels: (N,) integer, of all rows of the data set.
        rows: Training rows, indices into `labels`, each once, in any order.
        content: (N, 16) uint8, digest of each row's pixels; equal images stay together.
        groups: N texts; rows of one group stay together.
        fraction: Part of the rows that is held out, between 0 and 1.
        seed: Another seed holds out other rows.

    Returns:
        (fit_rows, selection_rows), int64, each ascending; together they are `rows`.

    Raises:
        InvalidInputError: A row has no label, or `fraction` is not between 0 and 1.
    """
    rows = np.sort(np.asarray(rows, dtype=np.int64))
    labels = np.asarray(labels)[rows]
    if rows.size and labels.min() < 0:
        raise InvalidInputError(
            f"selection split: expected labelled training rows, but row {rows[labels < 0][0]} has no label"
        )
    keep = [groups[row] for row in rows.tolist()] if groups is not None else None
    given = np.full(len(rows), UNDRAWN, np.int8)
    held = _draw(labels, content[rows], keep, given, fraction, f"selection {seed}") == VAL
    return rows[~held], rows[held]


def validation_split(
    labels: np.ndarray,
    content: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    given: np.ndarray | None = None,
    fraction: float = FRACTION,
    seed: int = 0,
) -> np.ndarray:
    """Draw the rows of a data set that nobody has put into a split yet; the others stay where they are.

    A row follows the rows of its content and of its group. The rest is drawn, so that of each class the
    fraction is in the validation split, as nearly as whole groups allow, and at least one image is not.

    Args:
        labels: (N,) integer >= 0; classes, or finer strata.
        content: (N, 16) uint8, digest of each row's pixels.
        groups: N texts; "" is a group of one.
        given: (N,) int8, index into `SPLITS`, `EXCLUDED`, or `UNDRAWN`; all are undrawn by default.
        fraction: Part of the rows that becomes "val", between 0 and 1.
        seed: Another seed draws other rows.

    Returns:
        (N,) int8, index into `SPLITS`: 0 is "train", 1 is "val"; `EXCLUDED` for an undrawn row that would
        tie a row of the one to a row of the other.

    Raises:
        InvalidInputError: `fraction` is not between 0 and 1.
    """
    if given is None:
        given = np.full(len(labels), UNDRAWN, np.int8)
    return _draw(np.asarray(labels), content, groups, given, fraction, f"validation {seed}")


def held_out_rows(
    labels: np.ndarray,
    rows: np.ndarray,
    content: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    count: int,
) -> np.ndarray:
    """Draw the rows that are held out of a data set; the same rows draw the same.

    Args:
        labels: (N,) integer >= 0; classes, or finer strata, of which each gives its proportion.
        rows: Those that may be drawn, indices into `labels`.
        content: (N, 16) uint8, digest of each row's pixels; equal images stay together.
        groups: N texts; rows of one group stay together.
        count: How many, as nearly as whole groups allow; fewer than there are.

    Returns:
        (about `count`,) int64, in the order of `rows`.
    """
    keep = [groups[row] for row in rows.tolist()] if groups is not None else None
    given = np.full(len(rows), UNDRAWN, np.int8)
    split = _draw(labels[rows], content[rows], keep, given, count / len(rows), "held out")
    return rows[split == VAL]


def fold_split(
    labels: np.ndarray,
    rows: np.ndarray,
    content: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    repeat: int = 0,
) -> np.ndarray:
    """Deal the training rows into folds of equal size and equal shares of the classes, as nearly as groups allow.

    A class that would lie in one fold only could not be learnt while that fold is held out: its rows, and
    what belongs to them, are never held out.

    Args:
        labels: (N,) integer >= 0, of all rows of the data set.
        rows: (n,) training rows, ascending.
        content: (N, 16) uint8, digest of each row's pixels; equal images stay together.
        groups: N texts; rows of one group stay together, "" is a group of one.
        folds: How many, 2 or more.
        seed, repeat: Others deal otherwise.

    Returns:
        (n,) int64, the fold of each row, from 0, or `KEPT`.

    Raises:
        InvalidInputError: There are too few images or groups to hold out one in every fold.
    """
    labels = np.unique(labels[rows], return_inverse=True)[1]
    keep = [groups[row] for row in rows.tolist()] if groups is not None else None
    units, ranks = _units(content[rows], keep, f"folds {seed} {repeat}")
    alone = np.bincount(units)[units] == 1
    fold = np.empty(len(rows), np.int64)
    order = np.lexsort((ranks[units], labels))
    order = order[alone[order]]
    fold[order] = np.arange(len(order)) % folds
    if not alone.all():
        fold[~alone] = _deal_units(labels[~alone], units[~alone], ranks, folds)
    lonely = np.isin(units, units[in_one_fold(labels, fold)])
    fold[lonely] = KEPT
    if len(np.unique(fold[~lonely])) < folds:
        raise InvalidInputError(
            f"{folds} folds: expected different training images (or groups) to hold out in each, received "
            f"{len(rows)} images of {len(ranks)} different images or groups, {int(lonely.sum())} of them of classes "
            "that would lie in one fold only"
        )
    return fold


def nested_order(
    labels: np.ndarray,
    rows: np.ndarray,
    content: np.ndarray,
    groups: Sequence[str] | None = None,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Return training rows in the order in which they would be labelled: each beginning of it is stratified.

    The first row of every class comes before the second of any; what belongs together comes together.

    Args:
        labels, rows, content, groups: As in `fold_split`.
        seed: Another seed orders otherwise.

    Returns:
        (n,) int64, the rows in another order.
    """
    keep = [groups[row] for row in rows.tolist()] if groups is not None else None
    units, ranks = _units(content[rows], keep, f"order {seed}")
    own = np.unique(labels[rows], return_inverse=True)[1]
    by_class = np.lexsort((ranks[units], own))
    counts = np.bincount(own)
    place = np.empty(len(rows))
    place[by_class] = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(rows)[np.lexsort((ranks[units], place / counts[own]))]


def belonging_together(content: np.ndarray, groups: Sequence[str] | None) -> np.ndarray:
    """Return which rows belong together, (N,) int64 from 0: those of equal content and those of one group.

    Args:
        content: (N, 16) uint8, digest of each row's pixels.
        groups: N texts; "" is a group of one.
    """
    return _units(content, groups, "")[0]


def in_one_fold(labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return which rows are of a class that lies in one fold only, (n,) bool.

    Args:
        labels: (n,) integer from 0.
        fold: (n,) integer from 0.
    """
    there = np.zeros((labels.max() + 1, fold.max() + 1), bool)
    there[labels, fold] = True
    return (there.sum(axis=1) == 1)[labels]


def _deal_units(labels: np.ndarray, units: np.ndarray, ranks: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each row (n,) of units of several rows; ranks (units,) settle ties."""
    from sklearn.model_selection import StratifiedGroupKFold

    place = np.unique(ranks[units], return_inverse=True)[1]
    if place.max() + 1 < folds or np.bincount(labels).max() < folds:
        return place % folds
    fold = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():  # of classes with fewer rows than folds
        warnings.simplefilter("ignore", UserWarning)
        for number, (_, held) in enumerate(
            StratifiedGroupKFold(folds).split(labels, labels, place)
        ):
            fold[held] = number
    return fold


def follow(content: np.ndarray, groups: Sequence[str] | None, given: np.ndarray) -> np.ndarray:
    """Let undrawn rows follow the rows of their content and their group; as `validation_split`, without a draw.

    Args:
        content: (N, 16) uint8, digest of each row's pixels.
        groups: N texts; "" is a group of one.
        given: (N,) int8, index into `SPLITS`, `EXCLUDED`, or `UNDRAWN`.

    Returns:
        (N,) int8; `UNDRAWN` where nothing is known of any relative.
    """
    split = np.array(given, np.int8)
    rows = np.flatnonzero((split == UNDRAWN) | (split == TRAIN) | (split == VAL))
    if len(rows):
        keep = [groups[row] for row in rows.tolist()] if groups is not None else None
        units, _ = _units(content[rows], keep, "")
        side, free = _inherited(split[rows], units)
        split[rows] = np.where(free, UNDRAWN, side)
    return split


def check_classes(where: str, class_ids: Sequence[str], trained: Iterable[int]) -> None:
    """Refuse a data set with a class that cannot be learnt.

    Args:
        where: What an error calls it.
        class_ids: K identities.
        trained: The labels of the training images.

    Raises:
        InvalidInputError: Names the classes without a training image.
    """
    found = set(trained)
    empty = [name for label, name in enumerate(class_ids) if label not in found]
    if empty:
        more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
        raise InvalidInputError(
            f"{where}: expected a training image of every class, found none of {', '.join(empty[:5])}{more}"
        )


def shared_images(content: np.ndarray, split: np.ndarray) -> dict[str, int]:
    """Return how many images of a split lie in another as well, such as {"val in train": 12}; none is left out.

    Args:
        content: (N, 16) uint8, digest of each row's pixels.
        split: (N,) int8, index into `SPLITS`, or `EXCLUDED`.
    """
    first = first_of_each(content)
    counts = {}
    for inside, outside in ((VAL, TRAIN), (TEST, TRAIN), (TEST, VAL)):
        shared = np.isin(first[split == inside], first[split == outside])
        if shared.any():
            counts[f"{SPLITS[inside]} in {SPLITS[outside]}"] = int(shared.sum())
    return counts


def parted_groups(groups: Sequence[str], split: np.ndarray) -> list[str]:
    """Return the groups with rows both in the training and in the validation split, sorted."""
    sides = [
        {group for group, side in zip(groups, split, strict=True) if group and side == wanted}
        for wanted in (TRAIN, VAL)
    ]
    return sorted(sides[0] & sides[1])


def _draw(
    strata: np.ndarray,
    content: np.ndarray,
    groups: Sequence[str] | None,
    given: np.ndarray,
    fraction: float,
    draw: str,
) -> np.ndarray:
    """Return the given splits with every undrawn row in one; `draw` names the draw and its seed."""
    if not 0 < fraction < 1:
        raise InvalidInputError(
            f"split fraction: expected a number between 0 and 1, received {fraction}"
        )
    split = np.array(given, np.int8)
    rows = np.flatnonzero((split == UNDRAWN) | (split == TRAIN) | (split == VAL))
    if not np.any(split == UNDRAWN):
        return split
    keep = [groups[row] for row in rows.tolist()] if groups is not None else None
    units, ranks = _units(content[rows], keep, draw)
    side, free = _inherited(split[rows], units)
    drawing = _Drawing(np.unique(strata[rows], return_inverse=True)[1], units, ranks, side, free)
    drawing.draw(fraction)
    split[rows] = drawing.side
    return split


def _units(
    content: np.ndarray, groups: Sequence[str] | None, draw: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return which rows belong together, (N,) int64 from 0, and each unit's rank, (units,) uint64.

    The rank is the least hash of its groups and of the contents that have no group: nothing else has a
    say in it, neither the order of the rows nor the rows of other units.
    """
    equal = first_of_each(content)
    keys = [row.tobytes() for row in content]
    joined = equal
    if groups is not None:
        named: dict[str, int] = {}
        same_group = np.array(
            [named.setdefault(g, row) if g else row for row, g in enumerate(groups)]
        )
        joined = _connected(equal, same_group)
        keys = [g.encode() if g else key for g, key in zip(groups, keys, strict=True)]
    units = np.unique(joined, return_inverse=True)[1]
    salt = blake2b(draw.encode(), digest_size=32).digest()
    known: dict[bytes, int] = {}
    hashes = np.empty(len(keys), np.uint64)
    for row, key in enumerate(keys):
        if key not in known:
            known[key] = int.from_bytes(blake2b(key, digest_size=8, key=salt).digest(), "little")
        hashes[row] = known[key]
    ranks = np.full(units.max() + 1, np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(ranks, units, hashes)
    return units, ranks


def _connected(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return one number for rows that two relations, each row → its representative, connect."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = np.arange(len(first))
    pairs = np.concatenate([rows, rows]), np.concatenate([first, second])
    graph = coo_array((np.ones(2 * len(rows), np.int8), pairs), shape=(len(rows), len(rows)))
    return connected_components(graph, directed=False)[1]


def _inherited(given: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Let undrawn rows follow the drawn ones of their unit.

    Returns:
        (N,) int8 splits, and (N,) bool: which rows belong to units that nobody has decided about. Those
        are in train for now.
    """
    in_train, in_val = (
        np.isin(units, units[given == side]) & (given == UNDRAWN) for side in (TRAIN, VAL)
    )
    side = given.copy()
    side[in_train], side[in_val], side[in_train & in_val] = TRAIN, VAL, EXCLUDED
    free = side == UNDRAWN
    side[free] = TRAIN
    return side, free


class _Drawing:
    """Free units go from train to val until each stratum has its part there.

    Args:
        strata: (N,) int64 from 0.
        units: (N,) int64 from 0.
        ranks: (units,) uint64, the order in which they are drawn.
        side: (N,) int8 splits; free rows are in train.
        free: (N,) bool, rows of the units that are drawn.
    """

    def __init__(
        self,
        strata: np.ndarray,
        units: np.ndarray,
        ranks: np.ndarray,
        side: np.ndarray,
        free: np.ndarray,
    ) -> None:
        self.strata, self.units, self.ranks, self.side, self.free = strata, units, ranks, side, free

    def draw(self, fraction: float) -> None:
        """Draw the units of several strata first, and then the others, which even it out."""
        counts = np.bincount(self.strata[self.side != EXCLUDED], minlength=self.strata.max() + 1)
        targets = _apportion(counts, fraction)
        low = np.full(len(self.ranks), len(counts))
        np.minimum.at(low, self.units, self.strata)
        high = np.full(len(self.ranks), -1)
        np.maximum.at(high, self.units, self.strata)
        mixed = (low != high)[self.units]
        if np.any(mixed & self.free):
            self._draw_mixed(mixed, fraction)
        self._draw_pure(~mixed, targets)
        self._keep_training_rows()

    def _draw_mixed(self, mixed: np.ndarray, fraction: float) -> None:
        """Draw the units of several strata: one fold of scikit-learn's, of the size that is wanting."""
        from sklearn.model_selection import StratifiedGroupKFold

        rows = np.flatnonzero(mixed & self.free)
        kept = mixed & (self.side != EXCLUDED)
        wanting = fraction * kept.sum() - np.sum(kept & (self.side == VAL))
        units = np.unique(self.units[rows])
        order = units[np.argsort(self.ranks[units], kind="stable")]
        place = np.empty(len(self.ranks), np.int64)
        place[order] = np.arange(len(order))
        rows = rows[np.lexsort((self.strata[rows], place[self.units[rows]]))]
        strata, groups = self.strata[rows], place[self.units[rows]]
        folds = min(round(len(rows) / wanting) if wanting > 0 else 0, len(units), np.bincount(strata).max())  # fmt: skip
        if folds < 2:
            if wanting > 0 and len(units) == 1 and len(rows) <= 2 * wanting:
                self.side[rows] = VAL
            return
        with warnings.catch_warnings():  # of strata with fewer rows than folds
            warnings.simplefilter("ignore", UserWarning)
            parts = list(StratifiedGroupKFold(folds).split(strata, strata, groups))
        held = min((part for _, part in parts), key=lambda part: abs(len(part) - wanting))
        self.side[rows[held]] = VAL

    def _draw_pure(self, pure: np.ndarray, targets: np.ndarray) -> None:
        """Draw the units of one stratum each, by rank."""
        sizes = np.bincount(self.units, minlength=len(self.ranks))
        taken: list[int] = []
        order = np.argsort(self.strata, kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(self.strata[order])) + 1):
            wanting = targets[self.strata[rows[0]]] - int(np.sum(self.side[rows] == VAL))
            units = np.unique(self.units[rows[self.free[rows] & pure[rows]]])
            in_train = len(np.unique(self.units[rows[self.side[rows] == TRAIN]]))
            units = units[np.argsort(self.ranks[units], kind="stable")]
            none_yet = wanting == targets[self.strata[rows[0]]]
            taken += _take(units, sizes, wanting, min(in_train - 1, len(units)), none_yet)
        self.side[np.isin(self.units, taken)] = VAL

    def _keep_training_rows(self) -> None:
        """Bring a drawn unit back where a stratum would have nothing to learn from."""
        trained = np.bincount(self.strata[self.side == TRAIN], minlength=self.strata.max() + 1)
        for stratum in np.flatnonzero(trained == 0):
            rows = np.flatnonzero((self.strata == stratum) & self.free & (self.side == VAL))
            if len(rows) and not np.any((self.strata == stratum) & (self.side == TRAIN)):
                last = max(set(self.units[rows].tolist()), key=lambda unit: self.ranks[unit])
                self.side[self.units == last] = TRAIN


def _take(
    units: np.ndarray, sizes: np.ndarray, wanting: int, most: int, none_yet: bool
) -> list[int]:
    """Return the units, of those in the order of their ranks, that bring a stratum nearest to what it wants."""
    taken: list[int] = []
    if wanting <= 0 or most < 1:
        return taken
    for unit in units.tolist():
        if sizes[unit] <= 2 * wanting:
            taken.append(unit)
            wanting -= sizes[unit]
            if wanting <= 0 or len(taken) == most:
                break
    if not taken and none_yet:
        taken = [min(units.tolist(), key=lambda unit: sizes[unit])]
    return taken


def _apportion(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Return how many rows of each stratum are held out (the method of largest remainders).

    They add up to the rounded fraction of all rows, where no stratum has to be kept from running out.
    """
    quotas = counts * fraction
    taken = np.floor(quotas + 1e-9).astype(np.int64)
    left = int(np.floor(counts.sum() * fraction + 0.5)) - int(taken.sum())
    taken[np.argsort(-(quotas - taken), kind="stable")[: max(left, 0)]] += 1
    return np.where(counts > 1, np.clip(taken, 1, counts - 1), 0)
