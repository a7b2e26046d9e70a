"""The selection split and the validation split: stratified, seeded, complete, and moved by no other image."""

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from onepass.cache.content import source_of
from onepass.cache.errors import InvalidInputError
from onepass.data.manifest import EXCLUDED
from onepass.data.splits import (
    KEPT,
    TEST,
    TRAIN,
    UNDRAWN,
    VAL,
    fold_split,
    parted_groups,
    selection_split,
    shared_images,
    validation_split,
)


def contents(numbers: np.ndarray | list[int] | range) -> np.ndarray:
    """(N, 16) digests; equal numbers are equal images."""
    return np.stack([source_of(b"image %d" % int(number)) for number in numbers])


def draw_labels(seed: int, classes: int = 7, rows: int = 500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(classes))
    return rng.choice(classes, rows, p=weights).astype(np.int32)


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_are_the_training_rows_and_nothing_else(seed):
    labels = draw_labels(seed)
    rows = np.random.default_rng(seed).permutation(500)[:300]
    fit, selection = selection_split(labels, rows, contents(range(500)), seed=seed)
    assert np.array_equal(np.sort(np.concatenate([fit, selection])), np.sort(rows))
    assert fit.dtype == selection.dtype == np.int64
    assert np.all(np.diff(fit) > 0) and np.all(np.diff(selection) > 0)


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_rows_on_both_sides_in_its_proportion(seed):
    labels = draw_labels(seed)
    images = contents(range(500))
    _, selection = selection_split(labels, np.arange(500), images, fraction=0.2, seed=seed)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        held = int(np.sum(labels[selection] == label))
        if count > 1:
            assert 1 <= held <= count - 1
            assert abs(held - 0.2 * count) <= 1
        else:
            assert held == 0


def test_equal_classes_give_equal_parts():
    labels = np.repeat(np.arange(200), 200)
    fit, selection = selection_split(labels, np.arange(40_000), contents(range(40_000)))
    assert np.array_equal(np.bincount(labels[selection]), np.full(200, 20))
    assert np.array_equal(np.bincount(labels[fit]), np.full(200, 180))


def test_a_class_with_one_image_keeps_it_for_fitting():
    fit, selection = selection_split(np.array([0, 0, 1, 2, 2]), np.arange(5), contents(range(5)))
    assert 2 in fit and selection.size == 2
    fit, selection = selection_split(np.array([0, 0, 1, 1]), np.arange(4), contents([5, 6, 7, 7]))
    assert selection.size == 1 and {2, 3} <= set(fit.tolist())


def test_seeds_differ_and_repeat_and_the_order_of_rows_does_not_matter():
    labels, rows, images = draw_labels(1), np.arange(500), contents(range(500))
    first = selection_split(labels, rows, images, seed=3)[1]
    assert np.array_equal(first, selection_split(labels, rows[::-1], images, seed=3)[1])
    assert not np.array_equal(first, selection_split(labels, rows, images, seed=4)[1])


def test_it_is_the_image_that_is_drawn_not_the_row():
    labels, images = draw_labels(2), contents(range(500))
    order = np.random.default_rng(0).permutation(500)
    there = np.isin(np.arange(500), selection_split(labels, np.arange(500), images)[1])
    moved = np.isin(
        np.arange(500), selection_split(labels[order], np.arange(500), images[order])[1]
    )
    assert np.array_equal(moved, there[order])


def test_the_held_out_rows_are_these_forever():
    """Published numbers rest on these rows."""
    labels, images = np.repeat([0, 1], 20), contents(range(40))
    assert selection_split(labels, np.arange(40), images)[1].tolist() == FROZEN
    assert np.flatnonzero(validation_split(labels, images) == VAL).tolist() == FROZEN_VAL


FROZEN = [1, 9, 37, 39]
FROZEN_VAL = [0, 8, 12, 14, 16, 22, 26, 28, 30, 36]


def test_a_row_without_a_label_cannot_be_selected():
    with pytest.raises(InvalidInputError, match="row 2 has no label"):
        selection_split(np.array([0, 1, -1]), np.arange(3), contents(range(3)))


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        selection_split(np.array([0, 1]), np.arange(2), contents(range(2)), fraction=fraction)


def test_a_quarter_is_reported_exactly_and_stratified():
    labels = np.repeat([0, 1], [1803, 821])
    split = validation_split(labels, contents(range(2624)), seed=0)
    assert split.dtype == np.int8 and set(split) == {TRAIN, VAL}
    assert int(np.sum(split == VAL)) == 656
    assert int(np.sum(split[labels == 1] == VAL)) == 205


def test_images_that_exist_twice_lie_on_one_side():
    """Forty images of noise, each twice: the nearest neighbour of a validation image is no copy of it."""
    random = np.random.default_rng(0)
    noise = np.repeat(random.standard_normal((40, 8)), 2, axis=0)
    labels = np.repeat(np.arange(40) % 2, 2)
    accuracy = []
    for seed in range(40):
        split = validation_split(labels, contents(np.repeat(np.arange(40), 2)), seed=seed)
        assert np.array_equal(split[::2], split[1::2]) and np.sum(split == VAL) == 20
        train, val = noise[split == TRAIN], noise[split == VAL]
        nearest = np.argmin(((val[:, None] - train[None]) ** 2).sum(-1), axis=1)
        accuracy.append(np.mean(labels[split == TRAIN][nearest] == labels[split == VAL]))
    assert 0.4 < np.mean(accuracy) < 0.6
    parted = np.arange(80) % 4 == 0  # as a split by rows would be
    train, val = noise[~parted], noise[parted]
    nearest = np.argmin(((val[:, None] - train[None]) ** 2).sum(-1), axis=1)
    assert np.mean(labels[~parted][nearest] == labels[parted]) == 1


def test_a_new_row_follows_its_equal_and_one_that_would_tie_the_sides_is_left_out():
    given = np.array([TRAIN, VAL, UNDRAWN, UNDRAWN, UNDRAWN, TEST], np.int8)
    split = validation_split(np.zeros(6, int), contents([1, 2, 1, 2, 9, 9]), given=given)
    assert split[:4].tolist() == [TRAIN, VAL, TRAIN, VAL] and split[5] == TEST
    given = np.array([TRAIN, VAL, UNDRAWN], np.int8)
    groups = ["a", "b", "a"]
    split = validation_split(np.zeros(3, int), contents([1, 2, 2]), groups, given=given)
    assert split.tolist() == [TRAIN, VAL, EXCLUDED]


def test_groups_of_several_classes_are_stratified():
    random = np.random.default_rng(0)
    groups = [f"patient {n}" for n in random.integers(0, 40, 800)]
    labels = random.choice(3, 800, p=[0.6, 0.3, 0.1])
    split = validation_split(labels, contents(range(800)), groups)
    assert not parted_groups(groups, split)
    part = np.bincount(labels[split == VAL]) / np.bincount(labels)
    assert np.all(abs(part - 0.25) < 0.06), part


def test_groups_of_one_class_are_drawn_in_their_proportion():
    labels = np.repeat([0, 1], [300, 100])
    groups = [f"{label} {row % 20}" for row, label in enumerate(labels)]
    split = validation_split(labels, contents(range(400)), groups)
    assert not parted_groups(groups, split)
    assert np.bincount(labels[split == VAL]).tolist() == [75, 25]


def test_shared_images_are_counted():
    split = np.array([TRAIN, TRAIN, VAL, VAL, TEST, TEST, EXCLUDED, EXCLUDED])
    assert shared_images(contents([1, 2, 3, 4, 5, 6, 1, 3]), split) == {}
    shared = shared_images(contents([1, 2, 1, 1, 2, 3, 3, 4]), split)
    assert shared == {"val in train": 2, "test in train": 1}
    assert shared_images(contents([1, 2, 3, 4, 3, 3, 9, 9]), split) == {"test in val": 2}


@st.composite
def data_sets(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, list[str] | None, int]:
    """Labels, image numbers (some equal), groups or none, and a seed; of 2 to 300 classes, 1 to 500 images each."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes = draw(st.sampled_from([2, 3, 10, 80, 300]))
    most = draw(st.sampled_from([1, 2, 5, 40, 500] if classes <= 10 else [1, 2, 5, 20]))
    labels = np.repeat(np.arange(classes), random.integers(1, most + 1, classes))
    labels = random.permutation(labels)
    equal = draw(st.sampled_from([0.0, 0.1, 0.6]))
    images = np.arange(len(labels))
    copies = random.random(len(labels)) < equal
    images[copies] = random.integers(0, len(labels), copies.sum())
    groups = None
    if kind := draw(st.sampled_from(["", "of a class", "of any class"])):
        number = random.integers(0, draw(st.sampled_from([2, 9, 100])), len(labels))
        own = labels if kind == "of a class" else np.zeros_like(labels)
        groups = [f"{a}-{b}" if b % 7 else "" for a, b in zip(own, number, strict=True)]
    return labels, images, groups, draw(st.integers(0, 5))


SLOW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def check_sides(labels, images, groups, split) -> None:
    """What belongs together lies together, and every class that has a free image can be learnt."""
    assert not set(images[split == TRAIN]) & set(images[split == VAL])
    assert groups is None or not parted_groups(groups, split)
    assert set(split) <= {TRAIN, VAL, EXCLUDED}


@SLOW
@given(data_sets())
def test_whatever_the_data_set_what_belongs_together_is_not_parted(case):
    labels, images, groups, seed = case
    split = validation_split(labels, contents(images), groups, seed=seed)
    check_sides(labels, images, groups, split)
    assert EXCLUDED not in split and set(labels[split == TRAIN]) == set(labels)
    fit, selection = selection_split(
        labels, np.flatnonzero(split == TRAIN), contents(images), groups, seed=seed
    )
    assert set(labels[fit]) == set(labels)
    sides = np.where(np.isin(np.arange(len(labels)), selection), VAL, TRAIN)
    sides[split != TRAIN] = EXCLUDED
    check_sides(labels, images, groups, sides)
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = None if groups is None else [groups[row] for row in order]
    again = validation_split(labels[order], contents(images[order]), shuffled, seed=seed)
    assert np.array_equal(again, split[order])


@pytest.mark.slow
@pytest.mark.parametrize("grouped", [False, True])
def test_three_hundred_classes_of_up_to_five_hundred_images(grouped: bool) -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), random.integers(1, 501, 300))
    images = np.where(random.random(len(labels)) < 0.1, np.roll(np.arange(len(labels)), 1), np.arange(len(labels)))  # fmt: skip
    groups = [f"{label}-{number // 4}" for number, label in enumerate(labels)] if grouped else None
    half = random.random(len(labels)) < 0.5
    some = np.flatnonzero(half)
    part = [groups[row] for row in some] if groups else None
    before = validation_split(labels[some], contents(images[some]), part)
    given = np.full(len(labels), UNDRAWN, np.int8)
    given[some] = before
    split = validation_split(labels, contents(images), groups, given=given)
    check_sides(labels, images, groups, split)
    assert np.array_equal(split[some], before)
    share = np.mean(split[split != EXCLUDED] == VAL)
    assert abs(share - 0.25) < 0.02


@SLOW
@given(data_sets(), st.integers(0, 2**32))
def test_no_image_that_comes_or_goes_moves_another(case, chance):
    """The data set grows and shrinks in steps; each step draws what is new and inherits the rest."""
    labels, images, groups, seed = case
    random = np.random.default_rng(chance)
    known: dict[int, int] = {}
    steps = [random.random(len(labels)) < part for part in (0.5, 0.8, 0.3, 1.0)]
    for rows in map(np.flatnonzero, steps):
        if not len(rows):
            continue
        given = np.array([known.get(row, UNDRAWN) for row in rows], np.int8)
        # what was dropped is forgotten, as a manifest forgets it
        part = None if groups is None else [groups[row] for row in rows]
        split = validation_split(labels[rows], contents(images[rows]), part, given=given, seed=seed)
        check_sides(labels[rows], images[rows], part, split)
        assert np.all((given == UNDRAWN) | (split == given))
        known = dict(zip(rows.tolist(), split.tolist(), strict=True))


@pytest.mark.parametrize("rows", [40, 41, 43, 47])
def test_what_is_added_keeps_the_proportion(rows):
    split = validation_split(np.zeros(40, int), contents(range(40)))
    for total in range(41, rows + 40):
        given = np.append(split, np.int8(UNDRAWN))
        split = validation_split(np.zeros(total, int), contents(range(total)), given=given)
    assert abs(np.sum(split == VAL) - len(split) / 4) <= 1


@SLOW
@given(data_sets(), st.integers(2, 6))
def test_folds_part_nothing_that_belongs_together_and_leave_every_class_something_to_learn_from(case, folds):  # fmt: skip
    labels, images, groups, seed = case
    rows = np.arange(len(labels))
    try:
        fold = fold_split(labels, rows, contents(images), groups, folds=folds, seed=seed)
    except InvalidInputError:
        assume(False)
    assert set(fold) - {KEPT} == set(range(folds))
    for held in range(folds):
        sides = np.where(fold == held, VAL, TRAIN)
        check_sides(labels, images, groups, sides)
        assert set(labels[sides == TRAIN]) == set(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    shuffled = None if groups is None else [groups[row] for row in order]
    again = fold_split(
        labels[order], rows, contents(images[order]), shuffled, folds=folds, seed=seed
    )
    assert np.array_equal(again, fold[order])


@pytest.mark.parametrize("seed", range(3))
def test_folds_are_of_equal_size_and_hold_equal_shares_of_each_class(seed: int) -> None:
    labels = draw_labels(seed)
    rows = np.flatnonzero(np.arange(500) % 3 > 0)
    fold = fold_split(labels, rows, contents(range(500)), folds=5, seed=seed)
    counts = np.array([np.bincount(labels[rows][fold == k], minlength=7) for k in range(5)])
    assert np.ptp(counts.sum(axis=1)) <= 1 and np.ptp(counts, axis=0).max() <= 1
    assert not np.array_equal(fold, fold_split(labels, rows, contents(range(500)), seed=seed + 1))
    assert not np.array_equal(
        fold, fold_split(labels, rows, contents(range(500)), seed=seed, repeat=1)
    )


def test_folds_of_groups_are_stratified_as_nearly_as_groups_allow() -> None:
    labels = np.repeat(np.arange(150) % 3 == 0, 4).astype(np.int32)
    groups = [f"patient {row // 4}" for row in range(600)]
    fold = fold_split(labels, np.arange(600), contents(range(600)), groups)
    assert np.bincount(fold).tolist() == [120] * 5
    assert np.bincount(fold[labels == 1]).tolist() == [40] * 5


def test_a_class_of_one_group_is_never_held_out() -> None:
    labels = np.array([0] * 6 + [1] * 6 + [2] * 2)
    groups = [""] * 12 + ["only"] * 2
    fold = fold_split(labels, np.arange(14), contents(range(14)), groups, folds=3)
    assert fold[12:].tolist() == [KEPT, KEPT] and set(fold[:12]) == {0, 1, 2}


def test_too_few_images_for_the_folds_are_an_error() -> None:
    with pytest.raises(InvalidInputError, match="7 folds: expected different training images"):
        fold_split(np.array([0, 0, 0, 1, 1]), np.arange(5), contents(range(5)), folds=7)
