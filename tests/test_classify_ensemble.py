"""Ensembles: weights that mean what they say, selection figures that are honest, files that predict."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features
from scipy.optimize import minimize

from onepass.cache.commandline.command import main
from onepass.cache.errors import InvalidInputError, StaleError, UnknownNameError
from onepass.classify.__main__ import COMMANDS
from onepass.classify.config import ClassifyConfig, EnsembleConfig
from onepass.classify.ensemble import cross_fitted, member_inputs, run_ensemble
from onepass.classify.heads.ensembles.ensembler import Average, Stack
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.pareto import extraction_costs
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import log_loss, softmax
from onepass.classify.pipeline import run_probes
from onepass.classify.text import classify_text, ensemble_text
from onepass.data.dataset import open_dataset
from onepass.predict.config import PredictConfig
from onepass.predict.split import predict_split


def store_parts(folder: Path, leak: bool = False) -> Any:
    """Digits with three weak sets of features: every third pixel."""
    data = digits()
    made = write_dataset(folder / "store", data)
    for k in range(3):
        write_features(folder / "store", made, data.X[:, k::3].copy(), f"part{k}")
    if leak:
        generator = np.random.default_rng(0)
        X = generator.normal(size=(len(data.labels), 10))
        val = made.rows("val")
        X[val] += 20 * np.eye(10)[data.labels[val]]
        write_features(folder / "store", made, X.astype(np.float16), "planted")
    return made


def folders(folder: Path) -> dict[str, Path]:
    return {"cache_dir": folder / "store", "runs_dir": folder / "runs"}


def probe(folder: Path, **other: Any) -> Any:
    return run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), **folders(folder), **other))


def ensemble(folder: Path, **other: Any) -> Any:
    return run_ensemble(EnsembleConfig(dataset=NAME, **folders(folder), **other))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("ensemble")
    store_parts(folder)
    probe(folder)
    return folder, ensemble(folder)


def test_an_ensemble_that_wins_keeps_what_the_winner_before_promised(tmp_path: Path) -> None:
    store_parts(tmp_path)
    before = probe(tmp_path, at="sensitivity=0.8", positive="digit 8")
    found = ensemble(tmp_path)
    assert found.winner != before.results[0].id and before.point and found.point
    assert (found.point.goal, found.point.name) == (before.point.goal, "digit 8")
    assert "Operating point sensitivity=0.8: digit 8 from" in ensemble_text(found)
    assert probe(tmp_path).point == found.point


def members(rows: int = 600, sharpness: tuple[float, ...] = (1.0, 0.7, 0.0)) -> Any:
    """Log-probabilities of three members of which the last knows nothing, and the truth."""
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, rows)
    signal = np.eye(4)[truth] * 2
    said = [softmax(s * signal + generator.normal(size=(rows, 4))) for s in sharpness]
    return member_inputs(said), truth


class TestPools:
    def test_average_finds_the_least_log_loss_on_the_simplex(self) -> None:
        X, truth = members()
        own = np.exp(X.reshape(len(X), 3, 4)[np.arange(len(X)), :, truth].astype(np.float64))
        found = minimize(
            lambda w: -np.log(own @ w).mean(), np.full(3, 1 / 3), bounds=[(0, 1)] * 3,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, tol=1e-12,
        )  # fmt: skip
        weights = Average(3).fit(X, truth).weights_
        assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
        np.testing.assert_allclose(weights, found.x, atol=2e-3)
        assert weights[2] < 0.05 < weights[0]

    def test_average_is_a_mean_of_probabilities(self) -> None:
        X, truth = members()
        head = Average(3).fit(X, truth)
        mean = np.einsum("nmk,m->nk", np.exp(X.reshape(-1, 3, 4)), head.weights_)
        np.testing.assert_allclose(head.predict_proba(X), mean, rtol=1e-3)

    def test_stack_is_at_its_optimum(self) -> None:
        X, truth = members()
        head = Stack(3, penalty=0.01).fit(X, truth)

        def loss(weights: np.ndarray, bias: np.ndarray) -> float:
            other = Stack(3).fit(X[:9], truth[:9])
            other.weights_, other.bias_ = weights, bias
            away = np.concatenate([weights - 1 / 3, bias])
            return log_loss(truth, other.logits(X).astype(np.float64)) + 0.01 * float(away @ away)

        best = loss(head.weights_, head.bias_)
        for k in range(3):
            for step in (-0.02, 0.02):
                assert loss(head.weights_ + step * np.eye(3)[k], head.bias_) > best
        assert loss(head.weights_, head.bias_ + 0.02 * np.eye(4)[1]) > best

    def test_classes_that_a_fold_lacks_are_known_all_the_same(self) -> None:
        X, truth = members()
        keep = truth != 2
        for head in (Average(3), Stack(3)):
            assert head.fit(X[keep], truth[keep]).predict_proba(X).shape == (len(X), 4)

    def test_arrays_that_do_not_part_into_members_are_refused(self) -> None:
        X, truth = members()
        with pytest.raises(InvalidInputError, match="of 5 members side by side"):
            Average(5).fit(X, truth)

    def test_cross_fitting_judges_rows_by_weights_of_other_rows(self) -> None:
        X, truth = members(rows=50)
        head = Stack(3, penalty=0.001).fit(X, truth)
        changed = truth.copy()
        changed[7] = (truth[7] + 1) % 4
        before, after = (cross_fitted(head, X, y, 0)[7] for y in (truth, changed))
        np.testing.assert_array_equal(before, after)
        with pytest.raises(InvalidInputError, match="expected at least 2, received 1"):
            cross_fitted(head, X[:1], truth[:1], 0)


class TestEnsemble:
    def test_it_beats_its_members_and_says_so(self, made) -> None:
        folder, found = made
        assert {line.head for line in found.ensembles} == {"average", "stack"}
        best = found.ensembles[0]
        assert best.selection_top1 > max(p.selection_top1 for p in found.members)
        assert best.val_top1 > max(p.val_top1 for p in found.members)
        assert found.winner == best.id and best.keys == () and not best.baseline
        assert all(test.second == found.members[0].id for test in found.comparisons)
        text = ensemble_text(found)
        assert best.id in text and "McNemar" in text and f"× {found.members[0].id}" in text
        assert f"Winner of the leaderboard: {best.id}" in text
        board = classify_text(probe(folder))
        assert f"{len(best.members)} probes" in board and best.id in board

    def test_figures_on_the_board_are_those_of_the_stored_probabilities(self, made) -> None:
        folder, found = made
        dataset = open_dataset(folder / "store", NAME)
        truth = dataset.labels[dataset.rows("val")]
        for line in found.ensembles:
            kept = load_probabilities(folder / "runs" / NAME / "heads" / line.id, line.rows)
            assert np.mean(kept.val_predicted == truth) == pytest.approx(line.val_top1)
            assert line.calibration is not None and line.temperature > 0

    def test_again_it_is_there_already(self, made, said) -> None:
        folder, found = made
        said.clear()
        assert ensemble(folder).ensembles == found.ensembles
        assert said.text.count(": cached") == 2

    @pytest.mark.parametrize("split", ["val", "test"])
    def test_predict_asks_the_members_on_their_own_features(self, made, tmp_path, split) -> None:
        folder, found = made
        for line in found.ensembles:
            out = tmp_path / f"{line.head}.npz"
            result = predict_split(PredictConfig(
                models=(f"{NAME}/{line.id}",), split=split, format="npz", out=out, **folders(folder)
            ))  # fmt: skip
            kept = load_probabilities(folder / "runs" / NAME / "heads" / line.id, line.rows)
            with np.load(out, allow_pickle=False) as arrays:
                np.testing.assert_allclose(arrays["probabilities"], getattr(kept, split), atol=2e-3)
            if split == "val":
                assert result.record.val_top1 == pytest.approx(line.val_top1)

    def test_fine_tuning_looks_past_ensembles(self, made) -> None:
        from onepass.finetune.config import FinetuneConfig
        from onepass.finetune.session.start import choose_start

        folder, found = made
        dataset = open_dataset(folder / "store", NAME)
        best = found.members[0].keys[0].backbone  # of a toy, which no network can be built from
        with pytest.raises(UnknownNameError, match=f"backbone '{best}' is unknown"):
            choose_start(FinetuneConfig(dataset=NAME, **folders(folder)), dataset)

    def test_named_members_and_one_method(self, made, tmp_path) -> None:
        folder, found = made
        two = tuple(p.id for p in found.members[1:])
        (line,) = ensemble(folder, probe=two, method=("stack",)).ensembles
        assert set(line.members) == set(two)
        assert line.id not in {other.id for other in found.ensembles}

    def test_two_of_the_same_features_are_of_two_kinds(self, tmp_path: Path) -> None:
        store_parts(tmp_path)
        one = {"dataset": NAME, "features": ("part0@8",), **folders(tmp_path)}
        for budget in ("quick", "full"):
            found = run_probes(ClassifyConfig(head=("logistic",), budget=budget, **one))
        first, second = (p.id for p in found.results)
        assert {p.id for p in ensemble(tmp_path).members} == {first, second}
        found = run_probes(ClassifyConfig(head=("ridge",), **one))
        ranked = [p for p in found.results if not p.members]
        assert [p.head for p in ranked] == ["logistic", "logistic", "ridge"]
        assert {p.id for p in ensemble(tmp_path).members} == {first, ranked[2].id}

    def test_cost_is_the_sum_over_files_of_all_members(self, made) -> None:
        folder, found = made
        dataset = open_dataset(folder / "store", NAME)
        board = Leaderboard.load(folder / "runs" / NAME, NAME, dataset.digest)
        assert (
            extraction_costs(folder / "store", board)[found.ensembles[0].id] is None
        )  # not measured

    def test_a_model_that_knows_only_the_reported_rows_gets_no_weight(self, tmp_path: Path) -> None:
        store_parts(tmp_path, leak=True)
        board = probe(tmp_path)
        planted = next(r for r in board.results if r.features == ("planted@8",))
        assert planted.selection_top1 < 0.3
        for line in ensemble(tmp_path).ensembles:
            weight = line.members.get(planted.id, 0.0)
            assert abs(weight) < 0.25 * max(line.members.values())

    def test_reported_labels_change_no_weight(self, tmp_path: Path) -> None:
        data, weights = digits(), []
        for shift in (0, 1):
            folder = tmp_path / str(shift)
            val = data.split == 1
            labels = np.where(val, (data.labels + shift) % 10, data.labels).astype(np.int32)
            dataset = write_dataset(folder / "store", replace(data, labels=labels))
            for k in range(2):
                write_features(folder / "store", dataset, data.X[:, k::2].copy(), f"part{k}")
            probe(folder)
            lines = {line.head: line for line in ensemble(folder).ensembles}
            weights.append([[*lines[h].members.values()] for h in ("average", "stack")])
        assert weights[0] == weights[1]


class TestRefusals:
    def refusal(self, folder: Path, capsys, *words: str, code: int = 2) -> str:
        capsys.readouterr()
        argv = ["ensemble", "--dataset", NAME, "--cache-dir", str(folder / "store"), "--runs-dir", str(folder / "runs")]  # fmt: skip
        assert main("classify", COMMANDS, [*argv, *words]) == code
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1, (out, err)
        return err

    def test_one_probe_is_no_ensemble(self, tmp_path: Path, capsys) -> None:
        store_parts(tmp_path)
        assert "no leaderboard yet" in self.refusal(tmp_path, capsys, code=1)
        found = probe(tmp_path, features=("part0@8",))
        before = (tmp_path / "runs" / NAME / "leaderboard.json").read_bytes()
        assert "at least two probes to combine, received 1" in self.refusal(tmp_path, capsys)
        assert "received 1" in self.refusal(tmp_path, capsys, "--probe", found.winner)
        with pytest.raises(SystemExit, match="2"):
            self.refusal(tmp_path, capsys, "--method", "vote")
        assert "invalid choice: 'vote'" in capsys.readouterr().err
        assert (tmp_path / "runs" / NAME / "leaderboard.json").read_bytes() == before

    def test_members_are_chosen_by_one_metric(self, tmp_path: Path, capsys) -> None:
        store_parts(tmp_path)
        first = probe(tmp_path)
        by_loss = probe(tmp_path, metric="log-loss")
        found = ensemble(tmp_path, method=("stack",))  # by what the leaderboard ranks by
        line = found.ensembles[0]
        assert (line.metric, line.value) == ("log-loss", line.selection_log_loss)
        assert set(line.members) <= {one.id for one in by_loss.results}
        other = [one.id for one in first.results[:2]]
        assert "chosen by top1, but" in self.refusal(tmp_path, capsys, "--probe", *other)
        again = ensemble(tmp_path, method=("stack",), metric="top1")
        assert again.ensembles[0].metric == "top1"
        assert set(again.ensembles[0].members) <= {one.id for one in first.results}

    def test_members_that_cannot_be(self, made, capsys) -> None:
        folder, found = made
        nested, other = found.ensembles[0].id, found.members[0].id
        assert "received an ensemble" in self.refusal(folder, capsys, "--probe", nested, other)
        assert "is unknown" in self.refusal(folder, capsys, "--probe", "nobody", other, code=1)

    def test_members_selected_on_other_rows(self, tmp_path: Path, capsys) -> None:
        store_parts(tmp_path)
        probe(tmp_path)
        strange = probe(tmp_path, seed=1)
        own = probe(tmp_path)
        line = self.refusal(tmp_path, capsys, "--probe", own.winner, strange.winner)
        assert "selected with seed 1, but the leaderboard ranks seed 0" in line

    def test_vectors_of_a_member_that_changed(self, tmp_path: Path) -> None:
        dataset = store_parts(tmp_path)
        probe(tmp_path)
        line = ensemble(tmp_path, method=("average",)).ensembles[0]
        write_features(tmp_path / "store", dataset, digits().X[:, :22].copy(), "part0")
        with pytest.raises(StaleError, match="made from vectors"):
            predict_split(PredictConfig(models=(f"{NAME}/{line.id}",), **folders(tmp_path)))

    def test_stored_ensembles_load_as_heads(self, made) -> None:
        folder, found = made
        for line in found.ensembles:
            assert load_head(folder / "runs" / NAME / "heads" / line.id).kind == line.head
