"""Transferability scores against direct computations, and the command that ranks features by them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf

from conftest import fields_of, refused
from onepass.cache.commandline.command import main
from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.classify.__main__ import COMMANDS
from onepass.classify.analysis.transfer_scores import (
    Moments,
    h_score,
    leep,
    logme,
    nce,
    zero_training,
)
from onepass.classify.analysis.transferability import (
    FeatureScores,
    Transferability,
    agreements,
    score_features,
)
from onepass.classify.config import ClassifyConfig, TransferConfig
from onepass.classify.heads import lazy_rows
from onepass.classify.heads.baselines.imagenet import ImageNet, imagenet_columns
from onepass.classify.pipeline import run_probes
from onepass.data.dataset import ImageDataset
from onepass.data.imagenet import imagenet_wnids


def toy(rows: int = 60, features: int = 7, classes: int = 3, spread: float = 1.0):
    """Rows of a few classes, away from the origin, in no order."""
    generator = np.random.default_rng(3)
    numbers = generator.permutation(np.arange(rows) % classes)
    centres = generator.normal(0, spread, (classes, features))
    X = 2 + centres[numbers] + generator.normal(0, 1, (rows, features))
    return X.astype(np.float32), numbers


def evidence(X: np.ndarray, y: np.ndarray) -> float:
    """The largest log-evidence of y ~ N(0, XXᵀ/α + I/β) a row, by a general optimiser on (α, β)."""

    def minus(powers: np.ndarray) -> float:
        alpha, beta = np.exp(np.minimum(powers, np.log(1e6)))
        covariance = X @ X.T / alpha + np.eye(len(X)) / beta
        return -multivariate_normal(cov=covariance).logpdf(y)

    return -minimize(minus, np.log([1.0, 5.0]), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8}).fun / len(X)  # fmt: skip


class TestLogME:
    @pytest.mark.parametrize("rows", [60, 200])
    def test_is_the_maximum_evidence_of_bayesian_regression(self, rows: int) -> None:
        X, numbers = toy(rows)
        direct = np.mean([evidence(X.astype(np.float64), (numbers == k) * 1.0) for k in range(3)])
        assert logme(Moments.of(X, numbers, 3)) == pytest.approx(direct, abs=1e-4)

    def test_more_features_than_rows(self) -> None:
        X, numbers = toy(40, 90)
        found = logme(Moments.of(X, numbers, 3))
        direct = np.mean([evidence(X.astype(np.float64), (numbers == k) * 1.0) for k in range(3)])
        assert found == pytest.approx(direct, abs=2e-2)

    def test_prefers_features_that_part_the_classes(self) -> None:
        found = [logme(Moments.of(*toy(300, spread=s), 3)) for s in (0.0, 0.5, 1.0, 3.0)]
        assert found == sorted(found) and len(set(found)) == 4


class TestHScore:
    def test_equals_its_definition(self) -> None:
        X, numbers = toy(200)
        means = np.stack([X[numbers == k].mean(axis=0) for k in range(3)])[numbers]
        direct = np.trace(np.linalg.pinv(np.cov(X.T)) @ np.cov(means.T))
        score, amount = h_score(Moments.of(X, numbers, 3), shrink=False)
        assert score == pytest.approx(direct, rel=1e-4) and amount == 0

    @pytest.mark.parametrize("rows", [40, 300])
    def test_shrinkage_is_ledoit_and_wolfs(self, rows: int) -> None:
        X, numbers = toy(rows, 30)
        covariance, direct = ledoit_wolf(X.astype(np.float64))
        means = np.stack([X[numbers == k].mean(axis=0) for k in range(3)])[numbers]
        between = np.cov(means.T, bias=True)
        score, amount = h_score(Moments.of(X, numbers, 3))
        assert amount == pytest.approx(direct, rel=1e-3)
        exact = (1 - direct) * np.trace(np.linalg.inv(covariance) @ between)
        assert score == pytest.approx(exact, rel=1e-3)

    def test_a_feature_that_never_moves_is_harmless(self) -> None:
        X, numbers = toy(200)
        plain, _ = h_score(Moments.of(X, numbers, 3))
        dead, _ = h_score(Moments.of(np.hstack([X, np.full((200, 1), 5, np.float32)]), numbers, 3))
        assert np.isfinite(dead) and dead == pytest.approx(plain, rel=0.2)


def test_moments_do_not_depend_on_the_blocks(monkeypatch) -> None:
    X, numbers = toy(200)
    once = Moments.of(X.astype(np.float16), numbers, 3)
    monkeypatch.setattr(lazy_rows, "BLOCK_NUMBERS", 7 * 32)
    again = Moments.of(X.astype(np.float16), numbers, 3)
    for name in ("mean", "class_means", "scatter", "fourth"):
        np.testing.assert_allclose(getattr(once, name), getattr(again, name), rtol=1e-5)


class TestFromLogits:
    def logits(self, strength: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
        """A source of 5 classes that leans towards the row's class number."""
        generator = np.random.default_rng(0)
        numbers = generator.integers(0, 3, 80)
        logits = generator.normal(0, 1, (80, 5))
        logits[np.arange(80), numbers] += strength
        return logits.astype(np.float32), numbers

    def test_leep_equals_its_definition_in_loops(self) -> None:
        logits, numbers = self.logits()
        theta = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        joint = [[sum(theta[i][z] for i in range(80) if numbers[i] == y) / 80 for z in range(5)] for y in range(3)]  # fmt: skip
        total = 0.0
        for i in range(80):
            chance = 0.0
            for z in range(5):
                chance += joint[numbers[i]][z] / sum(joint[y][z] for y in range(3)) * theta[i][z]
            total += np.log(chance)
        assert leep(logits, numbers, 3) == pytest.approx(total / 80, abs=1e-5)

    def test_nce_equals_the_conditional_entropy_in_loops(self) -> None:
        logits, numbers = self.logits()
        source, total = logits.argmax(axis=1), 0.0
        for i in range(80):
            same = source == source[i]
            total += np.log(np.mean(numbers[same] == numbers[i]))
        assert nce(logits, numbers, 3) == pytest.approx(total / 80, abs=1e-9)

    @pytest.mark.parametrize("score", [leep, nce])
    def test_rises_with_what_the_source_knows_up_to_zero(self, score) -> None:
        found = [score(*self.logits(strength), 3) for strength in (0.0, 2.0, 5.0, 50.0)]
        assert found == sorted(found) and found[-1] == pytest.approx(0, abs=1e-6)


class TestZeroTraining:
    def test_only_the_classes_of_the_data_set_may_win(self) -> None:
        wnids = imagenet_wnids()
        columns = imagenet_columns([wnids[5], "no wnid", wnids[900]], 1000)
        assert columns == [5, -1, 900]
        logits = np.zeros((4, 1000), np.float32)
        logits[:, 7] = 9  # the best, but not of this data set
        logits[[0, 1, 2, 3], [5, 900, 5, 900]] = 1
        assert zero_training(logits, np.array([0, 2, 2, 1]), columns) == pytest.approx(2 / 3)
        head = ImageNet(columns).fit(logits[[0, 1, 2]], [0, 1, 2])
        assert head.predict(logits).tolist() == [0, 2, 0, 2]
        np.testing.assert_allclose(head.predict_proba(logits).sum(axis=1), 1, rtol=1e-6)

    def test_logits_of_another_source_mean_nothing(self) -> None:
        assert imagenet_columns(imagenet_wnids()[:2], 21843) == [-1, -1]
        assert zero_training(np.zeros((2, 10)), np.array([0, 1]), [-1, -1]) is None
        with pytest.raises(InvalidInputError, match="none of the classes"):
            ImageNet([-1, -1]).fit(np.zeros((2, 10)), [0, 1])
        with pytest.raises(InvalidInputError, match="below 10"):
            ImageNet([0, 10]).fit(np.zeros((2, 10)), [0, 1])


NOISE = (0.0, 3.0, 6.0, 15.0)


def stored(folder: Path) -> ImageDataset:
    """Digits that carry wnids, features of four qualities, and logits beside the first."""
    data, generator = digits(), np.random.default_rng(0)
    dataset = write_dataset(folder / "store", data, ids=imagenet_wnids()[:10])
    for number, noise in enumerate(NOISE):
        X = data.X + generator.normal(0, noise, data.X.shape)
        write_features(folder / "store", dataset, X.astype(np.float16), f"toy{number}")
    logits = generator.normal(0, 1, (len(data.labels), 1000))
    logits[np.arange(len(logits)), data.labels] += 3
    write_features(folder / "store", dataset, logits.astype(np.float16), "toy0", pooling="logits")
    return dataset


def config(folder: Path, kind: type = TransferConfig, **other: Any) -> Any:
    return kind(dataset=NAME, cache_dir=folder / "store", runs_dir=folder / "runs", **other)


class TestCommand:
    def test_scores_rank_features_as_the_probes_do(self, tmp_path: Path, capsys) -> None:
        dataset = stored(tmp_path)
        run_probes(config(tmp_path, ClassifyConfig, head=("ridge",)))
        result = score_features(config(tmp_path))
        found = result.found
        assert [one.features for one in found.scores] == [(f"toy{k}@8",) for k in range(4)]
        assert {one.score: one.count for one in found.agreement} == {"logme": 4, "h_score": 4}
        assert all(one.kendall == 1 and one.spearman == 1 for one in found.agreement)
        first = found.scores[0]
        assert first.mapped_classes == 10 and 0.6 < first.zero_training < 0.99
        assert first.nce < 0 and first.leep < 0 and found.scores[1].leep is None
        assert Transferability.read(result.path) == found
        assert found.rows == len(dataset.rows("train"))
        old = {**fields_of(result.path), "format": 1, "path": "p", "ran": 4}
        (tmp_path / "old.json").write_text(json.dumps(old))
        assert Transferability.read(tmp_path / "old.json") == found
        self.check_text(tmp_path, capsys)

    def check_text(self, folder: Path, capsys) -> None:
        words = ["--dataset", NAME, "--cache-dir", str(folder / "store"), "--runs-dir", str(folder / "runs")]  # fmt: skip
        capsys.readouterr()
        assert main("classify", COMMANDS, ["transfer", *words]) == 0
        out = capsys.readouterr().out
        assert "0 sets of features scored, 4 cached" in out
        assert "restricted to the 10 that are ImageNet's" in out and "+1.00" in out

    def test_reported_rows_change_nothing(self, tmp_path: Path) -> None:
        dataset = stored(tmp_path)
        before = score_features(config(tmp_path, features=("toy0@8",))).found.scores[0]
        X = digits().X
        X[dataset.rows("val")] = np.eye(64, dtype=np.float16)[dataset.labels[dataset.rows("val")]]
        write_features(tmp_path / "store", dataset, X, "toy0")
        after = score_features(config(tmp_path, features=("toy0@8",))).found.scores[0]
        assert before.digest != after.digest
        assert (before.logme, before.h_score, before.leep) == (
            after.logme,
            after.h_score,
            after.leep,
        )

    def test_only_what_is_new_is_scored(self, tmp_path: Path) -> None:
        stored(tmp_path)
        first = score_features(config(tmp_path, features=("toy0@8", "toy1@8,toy2@8")))
        assert first.ran == 2 and first.found.scores[0].width in (64, 128)
        assert first.found.agreement == ()
        again = score_features(config(tmp_path))
        assert again.ran == 3 and len(again.found.scores) == 5
        assert score_features(config(tmp_path, fresh=True)).ran == 4
        again.path.write_text("half")
        with refused(CorruptFileError, r"transferability\.json.*--fresh"):
            score_features(config(tmp_path))
        assert score_features(config(tmp_path, fresh=True)).ran == 4

    def test_nan_in_the_logits_is_named(self, tmp_path: Path) -> None:
        dataset = stored(tmp_path)
        logits = np.full((len(dataset.labels), 1000), np.nan, np.float16)
        write_features(tmp_path / "store", dataset, logits, "toy0", pooling="logits")
        with pytest.raises(InvalidInputError, match="toy0@8: its logits hold NaN"):
            score_features(config(tmp_path))

    def test_a_damaged_leaderboard_is_said(self, tmp_path: Path) -> None:
        stored(tmp_path)
        path = tmp_path / "runs" / NAME / "leaderboard.json"
        path.parent.mkdir(parents=True)
        path.write_text("{}")
        with pytest.raises(CorruptFileError, match="leaderboard"):
            score_features(config(tmp_path))


def test_agreement_is_rank_correlation() -> None:
    def one(logme: float, top1: float | None) -> FeatureScores:
        return FeatureScores((str(logme),), "", 1, logme, 1.0, 0.0, None, None, None, 0, 0.0, "p", "ridge", top1)  # fmt: skip

    scores = (one(0.1, 0.2), one(0.2, 0.5), one(0.3, 0.4), one(0.4, 0.9), one(9.0, None))
    (logme_agreement,) = agreements(scores)  # the H-score is the same for all
    assert (logme_agreement.kendall, logme_agreement.spearman) == (0.667, 0.8)
    assert logme_agreement.count == 4
