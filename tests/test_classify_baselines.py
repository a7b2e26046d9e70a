"""The lines that cannot win: a random guess, the backbone's own classes, networks on pixels."""

from pathlib import Path

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features
from sklearn.utils.estimator_checks import parametrize_with_checks

from onepass.cache.errors import InvalidInputError
from onepass.classify.config import ClassifyConfig
from onepass.classify.heads.baselines.blind import Guess
from onepass.classify.heads.baselines.cnn import Cnn
from onepass.classify.heads.storage import load_head, save_head
from onepass.classify.pipeline import run_probes
from onepass.data.imagenet import imagenet_wnids
from onepass.predict.config import PredictConfig
from onepass.predict.split import predict_split


@parametrize_with_checks([Guess()])
def test_scikit_learn_contract(estimator, check) -> None:
    check(estimator)


class TestGuess:
    def test_is_right_once_in_k_times_with_even_probabilities(self) -> None:
        X = np.arange(20_000, dtype=np.float32)[:, None]
        y = np.arange(20_000) % 8
        head = Guess(seed=3).fit(X, y)
        assert head.score(X, y) == pytest.approx(1 / 8, abs=0.01)
        np.testing.assert_allclose(np.bincount(head.predict(X)) / 20_000, 1 / 8, atol=0.01)
        np.testing.assert_allclose(head.predict_proba(X), 1 / 8, rtol=1e-3)

    def test_is_the_same_for_the_same_seed_only(self) -> None:
        X, y = np.arange(500.0)[:, None], np.arange(500) % 8
        first, again, other = (Guess(seed).fit(X, y).predict(X) for seed in (0, 0, 1))
        assert np.array_equal(first, again) and np.mean(first == other) < 0.3


class TestCnn:
    def learnt(self, **params: object) -> tuple[Cnn, np.ndarray, np.ndarray]:
        data = digits(4)
        X = data.pixels.reshape(len(data.labels), -1).astype(np.float16)
        head = Cnn(epochs=8, batch_size=32, learning_rate=5e-3, **params)
        return head.fit(X[:450], data.labels[:450]), X[450:], data.labels[450:]

    @pytest.mark.slow
    def test_learns_and_is_stored_as_arrays(self, tmp_path: Path) -> None:
        head, X, y = self.learnt(height=8, width=8)
        assert head.score(X, y) > 0.85
        save_head(head, tmp_path)
        again = load_head(tmp_path)
        np.testing.assert_allclose(again.logits(X), head.logits(X), atol=1e-4)

    def test_numbers_that_are_no_image_are_refused(self) -> None:
        X, y = np.zeros((4, 10), np.float32), [0, 1, 0, 1]
        for params in ({}, {"height": 3, "width": 3}):
            with pytest.raises(InvalidInputError, match="received 10 numbers"):
                Cnn(**params).fit(X, y)


@pytest.mark.slow
def test_all_baselines_stand_below_the_leaderboard(tmp_path: Path) -> None:
    data = digits(4)
    dataset = write_dataset(tmp_path / "store", data, ids=imagenet_wnids()[:4])
    write_features(tmp_path / "store", dataset, data.X)
    logits = np.random.default_rng(0).normal(0, 1, (len(data.labels), 1000))
    logits[np.arange(len(logits)), data.labels] += 2
    write_features(tmp_path / "store", dataset, logits.astype(np.float16), pooling="logits")
    folders = {"dataset": NAME, "cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    wanted = ClassifyConfig(head=("ridge",), baselines="all", **folders)
    found = run_probes(wanted)
    by_head = {result.head: result for result in found.baselines}
    assert set(by_head) == {"majority", "logistic", "guess", "imagenet", "dense", "cnn"}
    assert [result.head for result in found.results] == ["ridge"] and found.winner.startswith(
        "ridge-"
    )
    assert by_head["guess"].val_top1 < 0.45 < by_head["imagenet"].val_top1 < 0.98
    assert by_head["imagenet"].features == ("toy@8",) and by_head["dense"].val_top1 > 0.9
    assert by_head["cnn"].features == ("pixels@64",)
    again = run_probes(wanted)
    assert again.ran == 0 and again.baselines == found.baselines
    for head in ("imagenet", "cnn", "guess"):
        probe = by_head[head]
        predicted = predict_split(
            PredictConfig(
                models=(f"{NAME}/{probe.id}",), split="val", out=tmp_path / "o",
                cache_dir=tmp_path / "store", runs_dir=tmp_path / "runs",
            )
        )  # fmt: skip
        assert predicted.record.val_top1 == pytest.approx(probe.val_top1)
