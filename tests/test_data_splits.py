"""The selection split and the validation split: stratified, seeded, complete."""

import numpy as np
import pytest

from onepass.cache.errors import InvalidInputError
from onepass.data.splits import TRAIN, VAL, selection_split, validation_split


def draw_labels(seed: int, classes: int = 7, rows: int = 500) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(classes))
    return rng.choice(classes, rows, p=weights).astype(np.int32)


@pytest.mark.parametrize("seed", range(5))
def test_both_sides_are_the_training_rows_and_nothing_else(seed):
    labels = draw_labels(seed)
    rows = np.random.default_rng(seed).permutation(500)[:300]
    fit, selection = selection_split(labels, rows, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([fit, selection])), np.sort(rows))
    assert fit.dtype == selection.dtype == np.int64
    assert np.all(np.diff(fit) > 0) and np.all(np.diff(selection) > 0)


@pytest.mark.parametrize("seed", range(5))
def test_every_class_has_rows_on_both_sides_in_its_proportion(seed):
    labels = draw_labels(seed)
    _, selection = selection_split(labels, np.arange(500), fraction=0.2, seed=seed)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        held = int(np.sum(labels[selection] == label))
        if count > 1:
            assert 1 <= held <= count - 1
            assert abs(held - 0.2 * count) <= 1
        else:
            assert held == 0


def test_equal_classes_give_equal_parts():
    labels = np.repeat(np.arange(200), 200)
    fit, selection = selection_split(labels, np.arange(40_000))
    assert np.array_equal(np.bincount(labels[selection]), np.full(200, 20))
    assert np.array_equal(np.bincount(labels[fit]), np.full(200, 180))


def test_a_class_with_one_row_keeps_it_for_fitting():
    fit, selection = selection_split(np.array([0, 0, 1, 2, 2]), np.arange(5))
    assert 2 in fit and selection.size == 2


def test_seeds_differ_and_repeat_and_the_order_of_rows_does_not_matter():
    labels, rows = draw_labels(1), np.arange(500)
    first = selection_split(labels, rows, seed=3)[1]
    assert np.array_equal(first, selection_split(labels, rows[::-1], seed=3)[1])
    assert not np.array_equal(first, selection_split(labels, rows, seed=4)[1])


def test_the_held_out_rows_are_these_forever():
    """Published numbers rest on these rows: NumPy's raw streams do not change between versions."""
    _, selection = selection_split(np.repeat([0, 1], 20), np.arange(40), seed=0)
    assert selection.tolist() == FROZEN


FROZEN = [3, 11, 27, 30]


def test_a_row_without_a_label_cannot_be_selected():
    with pytest.raises(InvalidInputError, match="row 2 has no label"):
        selection_split(np.array([0, 1, -1]), np.arange(3))


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 2])
def test_a_fraction_that_is_none_is_refused(fraction):
    with pytest.raises(InvalidInputError, match="between 0 and 1"):
        selection_split(np.array([0, 1]), np.arange(2), fraction=fraction)


def test_a_quarter_is_reported_exactly_and_stratified():
    labels = np.repeat([0, 1], [1803, 821])
    split = validation_split(labels, seed=0)
    assert split.dtype == np.int8 and set(split) == {TRAIN, VAL}
    assert int(np.sum(split == VAL)) == 656
    assert int(np.sum(split[labels == 1] == VAL)) == 205


def test_a_new_class_leaves_the_rows_of_the_others_where_they_are():
    labels = np.repeat([0, 1], 40)
    before = validation_split(labels, seed=5)
    after = validation_split(np.concatenate([labels, np.full(40, 2)]), seed=5)
    assert np.array_equal(before, after[:80])
