"""Images become the rows of a data set: in which order, with which label, on which side of a split.

What was decided about an image before stays decided, for the image is known by its content.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import regex

from onepass.cache.content import first_of_each
from onepass.cache.errors import InvalidInputError, UsageError, unknown_name
from onepass.data.manifest import (
    EXCLUDED,
    HELD_LABELS,
    SOURCE,
    SOURCE_LABELS,
    SOURCE_SPLIT,
    Manifest,
    true_labels,
)
from onepass.data.series import parted_series
from onepass.data.sources.base import Item, Source
from onepass.data.splits import (
    FRACTION,
    TEST,
    TRAIN,
    UNDRAWN,
    VAL,
    check_classes,
    follow,
    held_out_rows,
    parted_groups,
    shared_images,
    validation_split,
)

SPLIT_NOTE = (
    "There was no validation split: {fraction:.0%} of the training images, stratified by class, seed {seed}, "
    "became it."
)


MOST_SECONDS = 1.0  # that a pattern may look at one name


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user says of splits; what is left open stays as it was.

    Attributes:
        seed: Of a split that is drawn.
        resplit: Draw anew what was drawn before.
        drop_leaks: "train" or "val": the side that loses the images that both have; "" for neither.
        group_column: The column that says what belongs together; "" for none, None as it was.
        group_pattern: A regular expression that finds it in a file name: its first group, or the whole match; ""
            for none, None as it was.
        hold_back: How many images are held out of the data set; None for no further ones.
    """

    seed: int | None = None
    resplit: bool = False
    drop_leaks: str = ""
    group_column: str | None = None
    group_pattern: str | None = None
    hold_back: int | None = None

    def after(self, before: Manifest | None, source: Source) -> "Choices":
        """Return the choices with what they leave open taken from the data set as it was, or from its source."""
        record = before.record if before else None
        column, pattern = self.group_column, self.group_pattern
        if column is None and pattern is None:
            column, pattern = source.group_column, ""
            if record:
                column, pattern = record.group_column, record.group_pattern
        kept = record.seed if record else None
        seed = self.seed if kept is None or (self.resplit and self.seed is not None) else kept
        return replace(self, seed=seed or 0, group_column=column or "", group_pattern=pattern or "")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a data set.

    Attributes:
        order: (M,) int64, which image each is.
        before: (M,) int64, which row it was, -1 for a new one.
        labels: (M,) int32, -1 of test images and where unknown.
        split: (M,) int8, index into `SPLITS`, or `EXCLUDED`.
        columns: `HELD_LABELS`, `SOURCE_LABELS` and `SOURCE_SPLIT`, where they say something.
        groups: M texts; None where there are no groups.
        choices: What was wished, and what it left open as it was before.
        seed: Of the split that was drawn; None where the source has one.
        shared: As `shared_images` says.
        said: What a person is told.
        notes: What a reader of a result has to know.
        held_out: (n,) int64, which images are held out, and are no rows.
    """

    order: np.ndarray
    before: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    columns: dict[str, np.ndarray]
    groups: list[str] | None
    choices: Choices
    seed: int | None
    shared: dict[str, int]
    said: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    held_out: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


def arrange(
    source: Source,
    positions: np.ndarray,
    content: np.ndarray,
    files: np.ndarray,
    before: Manifest | None,
    wished: Choices,
) -> Rows:
    """Return the rows that a data set has after it is prepared from a source.

    Args:
        source: Gives the images.
        positions: (n,) int64, which of its items can be used.
        content: (n, 16) uint8, digests of their pixels.
        files: (n, 16) uint8, digests of the encoded files.
        before: The data set as it was.
        wished: What the user says of splits.

    Raises:
        InvalidInputError: A class has no training image, or groups lie on both sides of a split drawn before.
    """
    said: list[str] = []
    kept = _once(source, positions, content, said)
    positions, content = positions[kept], content[kept]
    items = [source.items[position] for position in positions]
    row = rows_before(before, content, files[kept], [item.name for item in items])
    known = np.flatnonzero(row >= 0)
    order = np.concatenate([known[np.argsort(row[known])], np.flatnonzero(row < 0)])
    positions, content, row = positions[order], content[order], row[order]
    items = [items[index] for index in order.tolist()]
    choices = wished.after(before, source)
    grouped = choices.group_column or choices.group_pattern
    if source.group_column and not grouped and wished.group_column is None:
        said.append(
            f"column {source.group_column} says what belongs together, and is not used: --group takes it"
        )
    groups = _groups(source, positions, items, choices, said)
    held = _held_out(source, positions, content, groups, row, before, choices.hold_back or 0)
    held_out = positions[held]
    if len(held):
        stays = np.delete(np.arange(len(positions)), held)
        positions, content, row = positions[stays], content[stays], row[stays]
        items = [items[index] for index in stays.tolist()]
        groups = groups and [groups[index] for index in stays.tolist()]
    labels, columns = _labels(source, items, row, before, said)
    _say_what_went(row, before, said)
    split, remembered, drawn = _splits(
        source, positions, content, labels, groups, row, before, choices
    )
    notes = []
    if drawn:
        note = source.split_note or SPLIT_NOTE
        notes.append(note.format(fraction=FRACTION, seed=choices.seed))
    if drawn and before and not choices.resplit and wished.seed not in (None, choices.seed):
        said.append(f"the split stays as seed {choices.seed} drew it; --resplit draws it anew")
    if drawn and source.class_ids and not np.any(split == VAL):
        said.append(
            "no validation images: all images of each class belong together (of one group, or equal), and stay in the "
            "training split; classify needs a validation split"
        )
    if drawn and groups is None:
        _say_series([item.name for item in items], split, len(source.class_ids), said)
    shared = _drop_leaks(content, split, choices.drop_leaks, said)
    _check(source, labels, groups, split, before, choices, said)
    stated = np.array([item.split for item in items])
    columns |= _test_labels(labels, stated)
    if np.any(split == EXCLUDED):
        columns[SOURCE_SPLIT] = remembered
    return Rows(
        order=positions,
        before=row,
        labels=np.where(stated == TEST, -1, labels).astype(np.int32),
        split=split,
        columns=columns,
        groups=groups,
        choices=choices,
        seed=choices.seed if drawn else None,
        shared=shared,
        said=said,
        notes=notes,
        held_out=held_out,
    )


def rows_before(
    before: Manifest | None, content: np.ndarray, files: np.ndarray, names: Sequence[str]
) -> np.ndarray:
    """Return which row of the data set before each image is, (n,) int64, -1 for none.

    It is the row of its content and name; else one of its content that is left over; else, where the
    geometry has changed and with it every content, that of its file.

    Args:
        before: The data set as it was.
        content: (n, 16) uint8, digests of the pixels.
        files: (n, 16) uint8, digests of the encoded files.
        names: n file names.
    """
    found = np.full(len(names), -1)
    if before is None:
        return found
    if np.array_equal(content, before.content) and list(names) == before.names:
        return np.arange(len(names))
    left = np.ones(len(before.names), bool)
    pairs = [(content, before.content)]
    if SOURCE in before.columns:
        pairs.append((files, before.columns[SOURCE]))
    for new, old in pairs:
        for named in (True, False):
            waiting: dict[tuple[bytes, str], deque[int]] = {}
            for row in np.flatnonzero(left & old.any(axis=1)).tolist():
                key = old[row].tobytes(), before.names[row] if named else ""
                waiting.setdefault(key, deque()).append(row)
            for index in np.flatnonzero(found < 0).tolist():
                if rows := waiting.get((new[index].tobytes(), names[index] if named else "")):
                    found[index] = rows.popleft()
                    left[found[index]] = False
    return found


def _once(
    source: Source, positions: np.ndarray, content: np.ndarray, said: list[str]
) -> np.ndarray:
    """Return the images, as indices, without those that a source before has with the same label."""
    if len(source.origins) < 2:
        return np.arange(len(positions))
    seen: dict[bytes, list[Item]] = {}
    kept, otherwise, elsewhere = [], 0, 0
    for index, (position, key) in enumerate(zip(positions, content, strict=True)):
        item, equal = source.items[position], seen.setdefault(key.tobytes(), [])
        earlier = [other for other in equal if other.origin < item.origin]
        same = [other for other in earlier if _agree(_label(item), _label(other))]
        otherwise += bool(earlier) and not same
        if not same:
            kept.append(index)
            equal.append(item)
        elif item.split not in (UNDRAWN, same[0].split) and same[0].split != UNDRAWN:
            elsewhere += 1
    if merged := len(positions) - len(kept):
        said.append(f"images in two sources: {merged:,}; each is one row")
    if elsewhere:
        said.append(
            f"in another split of the later source: {elsewhere:,} of them; that of the first counts"
        )
    if otherwise:
        said.append(f"images in two sources under two labels: {otherwise:,}; each is two rows")
    return np.array(kept, np.int64)


def _label(item: Item) -> int:
    return item.label if item.label >= 0 else item.held_label


def _agree(first: int, second: int) -> bool:
    return first == second or min(first, second) < 0


def _labels(
    source: Source, items: list[Item], row: np.ndarray, before: Manifest | None, said: list[str]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the label of each image, also of test images; a correction holds while the source says the same."""
    stated = np.array([_label(item) for item in items], np.int32)
    if before is None or SOURCE_LABELS not in before.columns:
        return stated, {}
    ids = {class_id: label for label, class_id in enumerate(source.class_ids)}
    now = np.array([ids.get(class_id, -2) for class_id in before.class_ids] + [-1], np.int32)
    known = row >= 0
    corrected = now[true_labels(before)[row]]
    then = now[before.columns[SOURCE_LABELS][row]]
    was = (before.columns[SOURCE_LABELS] != true_labels(before))[row]
    holds = known & was & (then == stated) & (corrected >= 0)
    gone = known & was & ~holds & (corrected != stated)
    labels = np.where(holds, corrected, stated).astype(np.int32)
    if holds.any():
        said.append(f"corrected labels kept: {holds.sum():,}; the source says what it said then")
    if gone.any():
        said.append(
            f"corrected labels given up: {gone.sum():,}; the source says something new, or has no such class"
        )
    return labels, {SOURCE_LABELS: stated} if holds.any() else {}


def _say_what_went(row: np.ndarray, before: Manifest | None, said: list[str]) -> None:
    """Say how many corrections go with images that are there no longer; should those return, nobody remembers."""
    if before is None:
        return
    gone = np.ones(len(before.names), bool)
    gone[row[row >= 0]] = False
    true = true_labels(before)
    relabelled = gone & (before.column(SOURCE_LABELS, np.int32(-1)) != true)
    relabelled &= SOURCE_LABELS in before.columns
    excluded = gone & (before.split == EXCLUDED)
    if corrected := int(np.sum(relabelled | excluded)):
        said.append(
            f"gone with their images: {corrected:,} corrected labels or exclusions, such as "
            f"{before.names[int(np.argmax(relabelled | excluded))]}; relabel again if the images return"
        )


def _test_labels(labels: np.ndarray, stated: np.ndarray) -> dict[str, np.ndarray]:
    held = np.where(stated == TEST, labels, -1).astype(np.int32)
    return {HELD_LABELS: held} if np.any(held >= 0) else {}


def _groups(
    source: Source, positions: np.ndarray, items: list[Item], choices: Choices, said: list[str]
) -> list[str] | None:
    """Return the group of each image; "" where it has none."""
    if choices.group_column:
        if choices.group_column not in source.side:
            raise unknown_name("column", choices.group_column, source.side)
        column = source.side[choices.group_column]
        return [str(column[position]) for position in positions.tolist()]
    if not choices.group_pattern:
        return None
    pattern = regex.compile(choices.group_pattern)
    found = [_matched(pattern, item.name) for item in items]
    groups = [(m[1] if pattern.groups else m[0]) or "" if m else "" for m in found]
    if not any(groups):
        raise UsageError(
            f"--group-by {choices.group_pattern!r}: expected a part of the file names, but it is in none, such as "
            f"{items[0].name}"
        )
    alone = groups.count("")
    said.append(
        f"groups by file name: {len(set(groups) - {''}):,}"
        + (f"; images in none, each for itself: {alone:,}" if alone else "")
    )
    return groups


def _held_out(
    source: Source,
    positions: np.ndarray,
    content: np.ndarray,
    groups: list[str] | None,
    row: np.ndarray,
    before: Manifest | None,
    count: int,
) -> np.ndarray:
    """Return which images are held out, as indices: of those with a label that may be trained on."""
    if not count:
        return np.zeros(0, np.int64)
    items = [source.items[position] for position in positions]
    may_be = np.array([item.label >= 0 and item.split in (UNDRAWN, TRAIN) for item in items])
    if before is not None:
        may_be &= (row < 0) | (before.split[row] != EXCLUDED)
    rows = np.flatnonzero(may_be)
    if count >= len(rows):
        raise UsageError(
            f"--hold-back {count:,}: expected fewer than the {len(rows):,} labelled images of the training split"
        )
    strata = np.array([item.label for item in items])
    if source.strata is not None:
        strata = source.strata[positions]
    return np.sort(held_out_rows(strata, rows, content, groups, count=count))


def _matched(pattern: regex.Pattern, name: str) -> regex.Match | None:
    """Return where a pattern matches in a name.

    Raises:
        UsageError: It takes too long: some patterns try every way to part a name, of which there are 2ⁿ.
    """
    try:
        return pattern.search(name, timeout=MOST_SECONDS)
    except TimeoutError as error:
        raise UsageError(
            f"--group-by {pattern.pattern!r}: took more than {MOST_SECONDS:g} s on {name}; write it without a "
            "repetition inside a repetition, such as (a+)+"
        ) from error


def _splits(
    source: Source,
    positions: np.ndarray,
    content: np.ndarray,
    labels: np.ndarray,
    groups: list[str] | None,
    row: np.ndarray,
    before: Manifest | None,
    choices: Choices,
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the split of each row, what the source said of it, and whether any is drawn.

    What the source says counts; else what was drawn before; else it is drawn now.
    """
    stated = np.array([source.items[position].split for position in positions], np.int8)
    undrawn = stated == UNDRAWN
    given, remembered = stated.copy(), stated.copy()
    if before is not None:
        known = row >= 0
        was, then = before.split[row], before.column(SOURCE_SPLIT, np.int8(UNDRAWN))[row]
        if not choices.resplit:
            inherited = known & undrawn & np.isin(was, (TRAIN, VAL))
            given[inherited] = was[inherited]
        same = (then == stated) | (undrawn & (then != TEST))
        excluded = known & (was == EXCLUDED) & same
        if choices.resplit:  # what would have tied two sides may not do so in the next draw
            excluded &= then != UNDRAWN
        given[excluded], remembered[excluded] = EXCLUDED, then[excluded]
    if np.any(stated == VAL):
        split = follow(content, groups, given)
        split[split == UNDRAWN] = TRAIN
        return split, remembered, False
    strata = labels if source.strata is None else source.strata[positions]
    split = validation_split(strata, content, groups, given=given, seed=choices.seed or 0)
    return split, remembered, bool(undrawn.any())


def _say_series(names: list[str], split: np.ndarray, classes: int, said: list[str]) -> None:
    """Say where pictures that are probably of one thing lie on both sides of the split that was drawn."""
    train, val = (np.flatnonzero(split == side) for side in (TRAIN, VAL))
    if series := parted_series(names, train, val, classes):
        first, second = series.pair
        said.append(
            f"{series.share:.0%} of the validation images have a training image of nearly the same name, such as "
            f"{first} and {second}; where both show one thing (a patient, a part), accuracies are too high: "
            f"--group-by '{series.pattern}' --resplit keeps them together"
        )


def _drop_leaks(
    content: np.ndarray, split: np.ndarray, side: str, said: list[str]
) -> dict[str, int]:
    """Exclude the rows of a side that lie in another as well, and return what is shared then."""
    shared = shared_images(content, split)
    if side and shared:
        first = first_of_each(content)
        loses, keeps = (TRAIN, (VAL, TEST)) if side == "train" else (VAL, (TRAIN,))
        leaks = (split == loses) & np.isin(first, first[np.isin(split, keeps)])
        split[leaks] = EXCLUDED
        said.append(f"{side} images excluded: {leaks.sum():,}, which another split has too")
        return shared_images(content, split)
    if shared:
        counts = ", ".join(f"{count:,} {where}" for where, count in shared.items())
        said.append(f"splits share images: {counts}; --drop-leaks train (or val) takes them out")
    return shared


def _check(
    source: Source,
    labels: np.ndarray,
    groups: list[str] | None,
    split: np.ndarray,
    before: Manifest | None,
    choices: Choices,
    said: list[str],
) -> None:
    try:
        check_classes(source.where, source.class_ids, labels[split == TRAIN].tolist())
    except InvalidInputError as error:
        if before is None or choices.resplit:
            raise
        raise InvalidInputError(f"{error}; --resplit draws the validation split anew") from error
    parted = parted_groups(groups, split) if groups else []
    if not parted:
        return
    words = f"groups on both sides of the split: {len(parted):,}, such as {parted[0]}"
    if any(item.split == VAL for item in source.items):
        said.append(f"{words}: the source says so")
    else:
        raise InvalidInputError(f"{source.where}: {words}, as it was drawn before; add --resplit")
