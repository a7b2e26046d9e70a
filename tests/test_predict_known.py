"""What abstaining is calibrated on: training rows, each by a head that was not fitted on it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import picture_store
import pytest
from sklearn.base import clone

import onepass
from onepass.data.splits import fold_split
from onepass.predict import known
from onepass.predict.novelty import distances_to

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with picture_store.opened(tmp_path_factory) as found:
        yield found


def test_few_rows_are_left_out_in_folds_and_that_is_kept(places, monkeypatch) -> None:
    predictor = onepass.load_predictor("birds/logistic", **places)
    pictures, dataset = predictor.on_pictures(), predictor.dataset
    train = dataset.rows("train")
    found = pictures.novelty
    assert len(found.probabilities) == len(found.distances) == len(train)
    (spec,) = pictures.wanted
    X = pictures.arrays(dataset.pixels[train])[spec]
    fold = fold_split(dataset.labels, train, dataset.content, dataset.groups, folds=known.FOLDS)
    y, out = dataset.labels[train], fold == 2
    head = clone(pictures.model.head).fit(X[~out], y[~out])
    shares = head.predict_proba(X[out]).astype(float) ** (1 / pictures.model.temperature)
    expected = shares / shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.probabilities[out], expected, rtol=2e-3, atol=1e-5)
    assert np.array_equal(found.truth, y)
    # no two images are equal: only the row itself is left out
    others = np.delete(found.reference, 7, axis=0)
    assert found.distances[7] == pytest.approx(distances_to(others, X[7:8])[0], abs=1e-3)

    def fitted(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(known, "left_out_probabilities", fitted)
    again = onepass.load_predictor("birds/logistic", **places).on_pictures().novelty
    np.testing.assert_array_equal(again.probabilities, found.probabilities)
    for file in places["runs_dir"].rglob(known.LEFT_OUT):
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(AssertionError, match="fitted again"):
        _ = onepass.load_predictor("birds/logistic", **places).on_pictures().novelty


@pytest.mark.parametrize("models", [("birds/average",), ("birds/ridge", "birds/lda")], ids=" ".join)
def test_heads_are_fitted_again_inside_an_ensemble_and_an_average(places, models) -> None:
    found = onepass.load_predictor(*models, **places).on_pictures().novelty
    assert found.probabilities.shape == (90, 3) and found.truth.shape == (90,)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=2e-3)


def test_a_run_is_calibrated_on_the_rows_that_it_held_out(places) -> None:
    predictor = onepass.load_predictor("birds/r1", **places)
    found = predictor.on_pictures().novelty
    assert len(found.probabilities) == len(found.distances) == len(predictor.held_out)
    assert len(found.reference) == 90
