"""Heads: scikit-learn's contract, exact solutions, and files that hold no code."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from classify_store import digits
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as ExactRidge
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from conftest import ROOT, fields_of
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    UnknownNameError,
)
from onepass.classify.heads import lazy_rows, registry
from onepass.classify.heads.base import LinearHead
from onepass.classify.heads.baselines.blind import Majority
from onepass.classify.heads.linear.centroid import Centroid
from onepass.classify.heads.linear.lda import Lda
from onepass.classify.heads.linear.logistic import Logistic
from onepass.classify.heads.linear.ridge import NormalEquations, Ridge
from onepass.classify.heads.linear.spectrum import Spectrum
from onepass.classify.heads.neighbours.knn import Neighbours
from onepass.classify.heads.registry import find_head
from onepass.classify.heads.scaler import Scaler
from onepass.classify.heads.storage import load_head, save_head
from onepass.classify.metrics import softmax
from onepass.classify.search.linear import past_peak
from onepass.classify.search.search import Search, Split, Trial
from onepass.classify.search.strategies import STRATEGIES, find_strategy


@pytest.fixture(autouse=True)
def one_thread():
    """Small problems, and a machine that does more than this."""
    with threadpool_limits(1):
        yield


def halves(classes: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Digits to learn from and digits to be evaluated on, float16."""
    data = digits(classes)
    half = len(data.labels) // 2
    return data.X[:half], data.labels[:half], data.X[half:], data.labels[half:]


# The one check that is skipped, check_array_api_input, wants SCIPY_ARRAY_API in the environment.
# check_class_weight_classifiers gives a number for each class; here weights are words, which can be stored.
@parametrize_with_checks(
    [Logistic(), Ridge(), Centroid(), Neighbours(), Lda(), Majority()],
    expected_failed_checks=lambda _: {"check_class_weight_classifiers": "weights are words"},
)
def test_scikit_learn_contract(estimator, check) -> None:
    check(estimator)


class TestScaler:
    def test_blocks_give_the_same_as_all_rows_at_once(self, monkeypatch) -> None:
        X = np.random.default_rng(0).normal(3, 2, (1000, 7)).astype(np.float16)
        monkeypatch.setattr(lazy_rows, "BLOCK_NUMBERS", 7 * 64)
        found = Scaler.fit(X)
        np.testing.assert_allclose(found.mean, X.astype(np.float64).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.scale, X.astype(np.float64).std(axis=0), rtol=1e-12)
        applied = found.apply(X)
        assert applied.dtype == np.float32
        expected = (X.astype(np.float64) - found.mean) / found.scale
        np.testing.assert_allclose(applied, expected, atol=2e-6)

    def test_constant_feature_is_left_alone(self) -> None:
        X = np.column_stack([np.full(5000, 0.1), np.arange(5000.0)])
        found = Scaler.fit(X)
        assert found.scale[0] == 1
        assert np.abs(found.apply(X)[:, 0]).max() < 1e-6

    def test_a_nearly_dead_feature_is_not_blown_up(self) -> None:
        generator = np.random.default_rng(0)
        X = generator.normal(0, [1.0, 2.0, 1e-5, 0.5], (500, 4))
        np.testing.assert_allclose(Scaler.fit(X).scale / [1.0, 2.0, 0.05 * 0.75, 0.5], 1, rtol=0.15)

    def test_deviation_far_from_zero_survives(self) -> None:
        X = 1e7 + np.random.default_rng(1).normal(size=(3000, 2))
        applied = Scaler.fit(X).apply(X)
        np.testing.assert_allclose(applied.std(axis=0), 1, rtol=1e-3)


class TestRidge:
    def test_equals_an_exact_solver(self) -> None:
        X, y, V, v = halves()
        head = Ridge(penalty=0.05, temperature=0.2).fit(X, y)
        standard = Scaler.fit(X)
        exact = ExactRidge(alpha=0.05 * len(X), solver="cholesky")
        exact.fit(standard.apply(X, np.float64), np.eye(10)[y])
        scores = exact.predict(standard.apply(V, np.float64))
        np.testing.assert_allclose(head.logits(V), scores / 0.2, atol=1e-3)
        accuracy = np.mean(scores.argmax(axis=1) == v)
        assert abs(head.score(V, v) - accuracy) <= 0.005
        assert head.score(V, v) > 0.9

    @pytest.mark.parametrize("rows", [30, 400])
    def test_row_space_and_feature_space_agree(self, rows: int, monkeypatch) -> None:
        generator = np.random.default_rng(2)
        X, y = generator.normal(size=(rows, 100)), np.arange(rows) % 3
        numbers, penalty = y, 0.3
        monkeypatch.setattr(lazy_rows, "BLOCK_NUMBERS", 100 * 64)
        normal = NormalEquations.of(X, numbers, 3)
        assert len(normal.matrix) == min(rows, 100)
        Z = (X - X.mean(axis=0)) / X.std(axis=0)
        T = np.eye(3)[y] - np.bincount(y) / rows
        exact = np.linalg.solve(Z.T @ Z / rows + penalty * np.eye(100), Z.T @ T / rows)
        np.testing.assert_allclose(normal.solve(penalty), exact, atol=1e-5)
        decomposed = Spectrum.of(X, numbers, 3)
        np.testing.assert_allclose(decomposed.solve(penalty), exact, atol=1e-5)

    @pytest.mark.parametrize("rows", [150, 600])
    @pytest.mark.parametrize("penalty", [1e-6, 1e-4, 1e-2, 1.0])
    def test_solution_is_exact_at_every_condition(self, rows: int, penalty: float) -> None:
        """Features that nearly repeat each other: float32 alone fails, or is 7e-3 off."""
        generator = np.random.default_rng(4)
        X = generator.normal(size=(rows, 20)) @ generator.normal(size=(20, 300))
        X += 1e-3 * generator.normal(size=X.shape)
        normal = NormalEquations.of(X, np.arange(rows) % 5, 5)
        exact = np.linalg.solve(normal.matrix + penalty * np.eye(len(normal.matrix)), normal.right)
        if normal.rows is not None:
            exact = normal.rows.T @ exact
        error = np.linalg.norm(normal.solve(penalty) - exact) / np.linalg.norm(exact)
        assert error < 1e-3

    def test_a_search_finds_what_single_fits_find(self) -> None:
        X, y, V, v = halves()
        trials = Search(Ridge(), Split(X, y, V, v)).run()
        assert [t.params["penalty"] for t in trials] == sorted((t.params["penalty"] for t in trials), reverse=True)  # fmt: skip
        for trial in trials[::4]:
            alone = clone(trial.head).fit(X, y)
            np.testing.assert_allclose(alone.weights_, trial.head.weights_, rtol=1e-3, atol=1e-4)
            assert trial.accuracy == pytest.approx(alone.score(V, v), abs=1e-3)

    def test_temperature_makes_probabilities_fit_and_changes_no_class(self) -> None:
        X, y, V, v = halves()
        search = Search(Ridge(), Split(X, y, V, v))
        best = max(search.run(), key=lambda trial: trial.accuracy)
        for factor in (0.5, 2):
            other = clone(best.head).set_params(temperature=best.params["temperature"] * factor)
            trial = search.evaluate(other.fit(X, y), {})
            assert trial.accuracy == pytest.approx(best.accuracy, abs=1e-3)
            assert trial.log_loss > best.log_loss

    @pytest.mark.parametrize("params", [{"penalty": 0.0}, {"temperature": -1.0}])
    def test_refuses_senseless_parameters(self, params: dict) -> None:
        with pytest.raises(InvalidInputError, match="above 0"):
            Ridge(**params).fit([[0.0], [1.0]], [0, 1])


class TestLogistic:
    @pytest.mark.parametrize("classes", [2, 10])
    def test_equals_scikit_learn_in_double_precision(self, classes: int) -> None:
        X, y, V, v = halves(classes)
        head = Logistic(C=0.01).fit(X, y)
        standard = Scaler.fit(X)
        exact = LogisticRegression(C=0.01, tol=1e-8, max_iter=2000)
        exact.fit(standard.apply(X, np.float64), y)
        probabilities = exact.predict_proba(standard.apply(V, np.float64))
        np.testing.assert_allclose(head.predict_proba(V), probabilities, atol=5e-3)
        assert abs(head.score(V, v) - exact.score(standard.apply(V, np.float64), v)) <= 0.005
        assert head.converged_

    def test_a_search_stops_beyond_its_peak_and_names_what_it_tried(self) -> None:
        notes: list[str] = []
        trials = Search(Logistic(), Split(*halves()), note=notes.append).run()
        assert notes == [str(trial) for trial in trials] and len(notes) >= 3
        assert [t.params["C"] for t in trials] == sorted(t.params["C"] for t in trials)
        assert max(t.accuracy for t in trials) > 0.93

    @pytest.mark.parametrize("classes", [2, 10])
    def test_refit_from_a_solution_ends_where_a_fit_from_zero_ends(self, classes: int) -> None:
        X, y, V, _ = halves(classes)
        warm = Logistic(C=0.01, tol=1e-5).fit(X[:400], y[:400]).refit(X, y)
        cold = Logistic(C=0.01, tol=1e-5).fit(X, y)
        np.testing.assert_allclose(warm.predict_proba(V), cold.predict_proba(V), atol=5e-3)

    def test_says_when_it_did_not_converge(self) -> None:
        X, y, _, _ = halves()
        with pytest.warns(UserWarning, match="not converged after 2 iterations"):
            head = Logistic(C=1.0, max_iter=2).fit(X, y)
        assert not head.converged_

    @pytest.mark.parametrize(
        ("figures", "passed"),
        [
            ([(0.5, 1.0)], False),
            ([(0.5, 1.0), (0.6, 0.9)], False),
            ([(0.6, 0.9), (0.55, 0.8)], False),  # accuracy wavers, log-loss still falls
            ([(0.6, 0.9), (0.6, 1.0)], False),  # no worse in accuracy
            ([(0.6, 0.9), (0.55, 1.0)], True),
        ],
    )
    def test_peak(self, figures: list[tuple[float, float]], passed: bool) -> None:
        trials = [Trial({}, accuracy, loss, accuracy, Ridge()) for accuracy, loss in figures]
        assert past_peak(trials, 1) is passed
        assert not past_peak(trials, 2)


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("kind", ["logistic", "ridge", "dense", "lda"])
def test_scaler_folds_into_the_weights(kind: str, classes: int) -> None:
    X, y, V, _ = halves(classes)
    head = find_head(kind)().fit(X, y)
    weights, bias = head.linear()
    assert weights.shape == (64, classes) and weights.dtype == bias.dtype == np.float32
    np.testing.assert_allclose(V.astype(np.float32) @ weights + bias, head.logits(V), atol=1e-4)
    np.testing.assert_allclose(softmax(head.logits(V)), head.predict_proba(V), atol=1e-6)


@pytest.mark.parametrize(
    "kind", ["logistic", "ridge", "dense", "mlp", "centroid", "knn", "lda", "majority"]
)
def test_one_class_only_is_refused(kind: str) -> None:
    with pytest.raises(InvalidInputError, match="one class only: 7"):
        find_head(kind)().fit(np.ones((4, 2)), np.full(4, 7))


def test_every_head_has_a_search_strategy() -> None:
    kinds = registry.PROBES | registry.BASELINES | registry.ENSEMBLES
    assert STRATEGIES.keys() == kinds.keys()
    assert all(callable(find_strategy(kind)) for kind in kinds)
    with pytest.raises(UnknownNameError, match="did you mean ridge"):
        find_strategy("rigde")


def test_unknown_head_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean logistic"):
        find_head("logistik")


class TestStorage:
    def stored(self, folder: Path, kind: str = "logistic") -> LinearHead:
        X, y, _, _ = halves()
        head = find_head(kind)().fit(X, y)
        save_head(head, folder)
        return head

    @pytest.mark.parametrize(
        "kind", ["logistic", "ridge", "dense", "mlp", "centroid", "knn", "lda", "majority"]
    )
    def test_a_loaded_head_is_the_same_head(self, tmp_path: Path, kind: str) -> None:
        head = self.stored(tmp_path, kind)
        again = load_head(tmp_path)
        V = halves()[2]
        assert again.get_params() == head.get_params()
        np.testing.assert_array_equal(again.predict_proba(V), head.predict_proba(V))
        np.testing.assert_array_equal(again.predict(V), head.predict(V))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["arrays.npz", "head.json"]

    def test_classes_of_text(self, tmp_path: Path) -> None:
        X = np.arange(8.0)[:, None]
        head = Ridge().fit(X, np.array(["b"] * 4 + ["a"] * 4, dtype=object))
        save_head(head, tmp_path)
        assert list(load_head(tmp_path).predict([[0.0], [7.0]])) == ["b", "a"]

    def test_equal_heads_are_equal_bytes(self, tmp_path: Path) -> None:
        self.stored(tmp_path / "a", "ridge")
        self.stored(tmp_path / "b", "ridge")
        for name in ("arrays.npz", "head.json"):
            assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFileError, match="no stored head; run the classify command"):
            load_head(tmp_path)

    def test_a_flipped_byte(self, tmp_path: Path) -> None:
        self.stored(tmp_path)
        path = tmp_path / "arrays.npz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"differs from the digest .* run the classify"):
            load_head(tmp_path)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"format": 99}, "received format 99 of a later"),
            ({"kind": "logistik"}, "did you mean logistic"),
            ({"params": {"D": 1}}, "unexpected keyword"),
            ({"params": None}, "params: "),
            ({"facts": {}}, "n_features_in_"),
            ({"facts": {"n_features_in_": 63, "n_iter_": 1, "converged_": True}}, "D = 63"),
        ],
    )
    def test_a_changed_record(self, tmp_path: Path, change: dict, words: str) -> None:
        self.stored(tmp_path)
        path = tmp_path / "head.json"
        path.write_text(json.dumps({**fields_of(path), **change}))
        with pytest.raises(CorruptFileError, match=words) as caught:
            load_head(tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "array", "words"),
        [
            ("bias_", np.zeros(9, np.float32), "K = 10, received 9"),
            ("weights_", np.full((64, 10), np.nan, np.float32), "NaN"),
            ("bias_", np.zeros(10, np.int32), "bias_: expected K of kind f"),
            ("mean_", np.zeros((64, 1)), "mean_: expected D"),
        ],
    )
    def test_arrays_that_do_not_fit_together(
        self, tmp_path: Path, name: str, array: np.ndarray, words: str
    ) -> None:
        head = self.stored(tmp_path)
        folder = tmp_path / "other"
        kinds = {**head.ARRAYS, name: (head.ARRAYS[name][0], "iuf")}
        other = type("Other", (Logistic,), {"ARRAYS": kinds})()
        other.__dict__.update({**head.__dict__, name: array})
        save_head(other, folder)
        with pytest.raises(CorruptFileError, match=words):
            load_head(folder)

    def test_objects_are_never_unpickled(self, tmp_path: Path) -> None:
        from onepass.cache.provenance import digest_bytes

        self.stored(tmp_path)
        with (tmp_path / "arrays.npz").open("wb") as file:
            np.savez(file, classes_=np.array([print], dtype=object))
        record = fields_of(tmp_path / "head.json")
        record["digest"] = digest_bytes((tmp_path / "arrays.npz").read_bytes())
        (tmp_path / "head.json").write_text(json.dumps(record))
        with pytest.raises(CorruptFileError, match="objects are never read"):
            load_head(tmp_path)

    def test_a_stored_dense_head_predicts_without_keras(self, tmp_path: Path) -> None:
        self.stored(tmp_path, "dense")
        code = (
            "import sys; from pathlib import Path; from onepass.classify.heads.storage import load_head; "
            f"print(load_head(Path({str(tmp_path)!r})).predict([[0.0] * 64]), "
            "'keras' in sys.modules, 'tensorflow' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert run.stdout.split()[-2:] == ["False", "False"], run.stderr
