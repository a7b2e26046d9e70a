"""`dense` and `mlp`: the steps of Keras, many heads as one, and the contract of scikit-learn."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks
from test_classify_heads import halves, one_thread  # noqa: F401  a fixture

from onepass.cache.errors import InvalidInputError
from onepass.classify.heads.neural.batches import (
    FeatureBatch,
    HeadSettings,
    SharedSettings,
    batches,
    steps_of,
)
from onepass.classify.heads.neural.dense import Dense
from onepass.classify.heads.neural.mlp import Mlp
from onepass.classify.heads.neural.network import Group, Networks
from onepass.classify.heads.neural.trained_head import TrainedHead
from onepass.classify.heads.storage import load_head, save_head
from onepass.classify.search import neural, successive_halving
from onepass.classify.search.neural import Grid, JointTraining
from onepass.classify.search.search import Search, Split, Trial
from onepass.classify.search.successive_halving import Schedule


# The one check that is skipped, check_array_api_input, wants SCIPY_ARRAY_API in the environment.
# as in test_classify_heads.py: weights are words
@parametrize_with_checks(
    [Dense(), Mlp(hidden=32)],
    expected_failed_checks=lambda _: {"check_class_weight_classifiers": "weights are words"},
)
def test_scikit_learn_contract(estimator, check) -> None:
    check(estimator)


def train_together(
    head: TrainedHead, params: list[dict[str, Any]], schedule: Schedule
) -> tuple[JointTraining, list[Trial]]:
    """Return the strategy after its search on `halves`, and the trials."""
    strategy = JointTraining(params, schedule)
    return strategy, strategy(Search(head, Split(*halves())))


def data(classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    X = generator.normal(size=(64, 20)).astype(np.float32)
    return X, generator.integers(0, classes, 64)


def batch(X: np.ndarray, y: np.ndarray, share: float = 1.0) -> FeatureBatch:
    return FeatureBatch(X, y, np.roll(y, 1), share)


def keras_twin(group: Group, place: int, setting: HeadSettings, training: SharedSettings) -> Any:
    """A Keras model with the weights, the loss and the optimiser of one head of a group."""
    import keras

    layers = [keras.layers.Input((group.arrays[0].shape[0],))]
    for layer, weights in enumerate(group.arrays[::2]):
        last = layer == len(group.arrays) // 2 - 1
        penalty = keras.regularizers.L1L2(setting.l1, setting.l2)
        activation = None if last else "relu"
        layers.append(keras.layers.Dense(weights.shape[2], activation, kernel_regularizer=penalty))
    model = keras.Sequential(layers)
    model.set_weights([array[..., place, :] for array in group.arrays])
    rate: Any = setting.learning_rate
    mean = {"use_ema": True, "ema_momentum": training.ema}
    if training.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, **mean)
    else:
        rate = keras.optimizers.schedules.InverseTimeDecay(rate, 1, 1e-6)
        optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, **mean)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=training.label_smoothing
    )
    model.compile(optimizer, loss)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(), (16,)])
@pytest.mark.parametrize(("optimizer", "rate"), [("adam", 1e-3), ("sgd", 1e-2)])
def test_steps_are_those_of_keras(optimizer: str, rate: float, hidden: tuple[int, ...]) -> None:
    X, y = data()
    training = SharedSettings(hidden, optimizer, label_smoothing=0.1, ema=0.9)
    none = (0.0,) * (len(hidden) + 1)
    settings = [
        HeadSettings(rate, none),
        HeadSettings(rate / 3, none, l1=1e-3),
        HeadSettings(rate, none, l2=1e-2),
    ]
    group = Networks(settings, training, 20, 5, np.arange(5)).groups[0]
    assert group.members == [0, 1, 2]
    twins = [keras_twin(group, i, s, training) for i, s in enumerate(settings)]
    for _ in range(6):
        group.step(batch(X, y))
        for twin in twins:
            twin.train_on_batch(X, np.eye(5)[y])
    for place, twin in enumerate(twins):
        weights = twin.get_weights()
        twin.optimizer.finalize_variable_values(twin.trainable_variables)
        means = twin.get_weights()
        for arrays, theirs in ((group.arrays, weights), (group.optimizer.means, means)):
            for array, their in zip(arrays, theirs, strict=True):
                np.testing.assert_allclose(
                    array[..., place, :], np.asarray(their), rtol=1e-4, atol=2e-6
                )


def test_mixed_rows_pull_towards_both_classes() -> None:
    X, y = data()
    y = np.where(np.arange(64) % 2, 1, 3)
    group = Networks(
        [HeadSettings(0.1, (0.0,))], SharedSettings(optimizer="sgd"), 20, 5, np.arange(5)
    ).groups[0]
    loss, right = group.step(batch(X, y, share=0.75))
    assert loss == pytest.approx(np.log(5)) and 0 <= right[0] <= 1
    # the bias's first step goes against the mean of probability less target
    target = 0.75 * np.eye(5)[y] + 0.25 * np.eye(5)[np.roll(y, 1)]
    expected = -0.1 * (0.2 - target).mean(axis=0) * 1.9
    np.testing.assert_allclose(group.arrays[1][0], expected, atol=1e-6)


class TestBatches:
    def test_an_epoch_shows_each_row_once(self) -> None:
        X = np.arange(640, dtype=np.float32)[:, None]
        source = batches(X, np.arange(640), SharedSettings(batch_size=64))
        epochs = [[next(source) for _ in range(steps_of(640, 64))] for _ in range(2)]
        first, second = (np.concatenate([b.truth for b in epoch]) for epoch in epochs)
        assert sorted(first) == sorted(second) == list(range(640))
        assert (first != second).any() and (first != np.arange(640)).any()
        assert all((b.X[:, 0] == b.truth).all() and b.share == 1 for b in epochs[0])

    def test_mixup_mixes_rows_as_it_mixes_classes(self) -> None:
        X = np.arange(640, dtype=np.float32)[:, None]
        source = batches(X, np.arange(640), SharedSettings(mixup=0.4))
        found = list(itertools.islice(source, 8))
        assert len({b.share for b in found}) == 8
        for b in found:
            assert 0.5 <= b.share <= 1
            np.testing.assert_allclose(
                b.X[:, 0], b.share * b.truth + (1 - b.share) * b.partner, rtol=1e-4
            )


def test_dropout_leaves_out_its_share_and_keeps_the_mean() -> None:
    group = Networks([HeadSettings(0.1, (0.65,))], SharedSettings(), 400, 2, np.arange(2)).groups[0]
    left = group._dropped_out(np.ones((500, 400), np.float32), 0.65)
    assert np.mean(left == 0) == pytest.approx(0.65, abs=0.005)
    assert left.mean() == pytest.approx(1, abs=0.01)
    assert np.unique(left).tolist() == pytest.approx([0, 1 / 0.35], rel=1e-4)


@pytest.mark.parametrize("head", [Dense(epochs=3), Mlp(epochs=3, hidden=24)], ids=str)
def test_heads_trained_together_are_the_heads_trained_alone(head: TrainedHead) -> None:
    X, y, V, v = halves()
    grid = Grid((1e-3, 1e-2), ((0.0, 0.0), (1e-4, 0.0), (0.0, 1e-3)), (0.0, 0.4), seed=(7,))
    head = clone(head).set_params(seed=7, label_smoothing=0.1)
    search = Search(head, Split(X, y, V, v))
    trials = JointTraining(grid.params(), Schedule(3, keep=1))(search)
    assert len(trials) == len(grid.params()) == 12
    for trial in trials[::3]:
        alone = clone(head).set_params(**trial.params).fit(X, y)
        np.testing.assert_allclose(alone.logits(V), trial.head.logits(V), atol=1e-4)
        assert trial.accuracy == pytest.approx(alone.score(V, v))
        assert trial.log_loss == pytest.approx(search.evaluate(alone, {}).log_loss, abs=1e-5)


def test_in_folds_the_same_heads_stay_and_each_learns_from_the_rows_of_its_fold() -> None:
    X, y, V, v = halves()
    halves_of_it = [Split(X, y, V, v), Split(V, v, X, y)]
    params = Grid((1e-5, 1e-3, 1e-2), dropout=(0.0, 0.4), seed=(7,)).params()
    head = Dense(seed=7)
    together = JointTraining(params, Schedule(9, keep=2))
    first, second = together.in_folds([Search(head, split) for split in halves_of_it])
    figures = [[(t.params, t.accuracy, t.log_loss, t.merit) for t in fold] for fold in (first, second)]  # fmt: skip
    assert figures[0] == figures[1] and len(first) > 1
    for pair in zip(first, second, strict=True):
        alone = [
            Search(head, split).evaluate(clone(head).set_params(**pair[0].params).fit(split.X, split.y), {})
            for split in halves_of_it
        ]  # fmt: skip
        weights = [len(split.y_selection) for split in halves_of_it]
        mean = np.average([one.log_loss for one in alone], weights=weights)
        assert pair[0].log_loss == pytest.approx(mean, abs=1e-5)
        for trial, one, split in zip(pair, alone, halves_of_it, strict=True):
            logits = trial.head.logits(split.X_selection)
            np.testing.assert_allclose(one.head.logits(split.X_selection), logits, atol=1e-4)
    lasted = [len(curve.points) for curve in together.curves]
    assert lasted.count(max(lasted)) == 1  # one head was trained to the end, the same in both


def test_seeds_differ_and_repeat() -> None:
    X, y, V, v = halves()
    order = np.argsort(y, kind="stable")
    head, again, other = (Dense(epochs=20, seed=s).fit(X[order], y[order]) for s in (3, 3, 4))
    assert head.score(V, v) > 0.9
    np.testing.assert_array_equal(head.weights_, again.weights_)
    assert np.abs(head.weights_ - other.weights_).max() > 1e-3


def test_the_two_layers_learn_what_one_cannot() -> None:
    generator = np.random.default_rng(0)
    X = generator.uniform(-1, 1, (2000, 2))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    mlp = Mlp(dropout=0.0, hidden=64, epochs=60).fit(X[:1000], y[:1000])
    assert mlp.score(X[1000:], y[1000:]) > 0.9
    assert Dense(dropout=0.0).fit(X[:1000], y[:1000]).score(X[1000:], y[1000:]) < 0.7


def test_l1_pushes_weights_to_zero_and_l2_makes_them_small() -> None:
    X, y, _, _ = halves()
    free, sparse, small = (Dense(epochs=15, **p).fit(X, y) for p in ({}, {"l1": 1e-2}, {"l2": 0.1}))
    assert np.mean(np.abs(sparse.weights_) < 5e-3) > 2 * np.mean(np.abs(free.weights_) < 5e-3)
    assert np.linalg.norm(small.weights_) < 0.7 * np.linalg.norm(free.weights_)


class TestSearch:
    def test_chooses_epochs_and_a_fit_of_them_is_the_same_head(self, monkeypatch) -> None:
        monkeypatch.setattr(successive_halving, "CHECKPOINTS", (1, 4, 7))
        X, y, V, v = halves()
        notes: list[str] = []
        trials = Search(Dense(learning_rate=3e-3), Split(X, y, V, v), note=notes.append).run()
        assert [t.params["epochs"] for t in trials][:3] == [1, 4, 7] and notes
        assert trials[0].accuracy < trials[2].accuracy
        alone = clone(trials[1].head).fit(X, y)
        np.testing.assert_allclose(alone.weights_, trials[1].head.weights_, atol=1e-5)

    def test_stops_beyond_its_peak(self) -> None:
        params = Grid((0.05,), dropout=(0.0,)).params()
        found, _ = train_together(Dense(), params, Schedule(epochs=90, patience=2))
        (curve,) = found.curves
        assert curve.best is not None
        later = [one for one in curve.snapshots if one.epochs > curve.best.epochs]
        assert sum(one.loss > curve.best.loss for one in later) == 2
        assert curve.points[-1].epoch == curve.snapshots[-1].epochs < 90

    def test_full_tries_its_grid(self, monkeypatch) -> None:
        grids = {"dense": Grid((1e-3, 1e-2), dropout=(0.2, 0.5))}
        monkeypatch.setattr(neural, "FULL_GRIDS", grids)
        trials = Search(Dense(seed=5), Split(*halves()), budget="full").run()
        best = max(trials, key=lambda trial: trial.accuracy)
        assert best.accuracy > 0.93 and {t.params["seed"] for t in trials} == {5}
        assert best.head.get_params().items() >= best.params.items()

    def test_refuses_an_unknown_budget(self) -> None:
        with pytest.raises(InvalidInputError, match="quick or full, received 'huge'"):
            Search(Dense(), Split(*halves()), budget="huge")


class TestHalving:
    def test_rungs(self) -> None:
        assert Schedule(27).rungs(64, 10) == [(64, 10), (16, 30), (4, 90), (1, 270)]
        assert Schedule(5, keep=1).rungs(64, 10) == [(64, 50)]
        assert Schedule(4).rungs(1, 10) == [(1, 40)]
        assert Schedule(1).rungs(5, 2) == [(5, 1), (2, 1), (1, 2)]

    def test_drops_the_worst_and_records_every_epoch(self) -> None:
        params = Grid((1e-6, 1e-5, 1e-4, 1e-2), dropout=(0.1,), seed=(0, 1)).params()
        found, _ = train_together(Dense(), params, Schedule(epochs=9, keep=4))
        ends = [curve.points[-1].epoch for curve in found.curves]
        assert sorted(ends) == [1] * 6 + [3, 9]
        lasted = {p["learning_rate"] for p, end in zip(params, ends, strict=True) if end > 1}
        assert lasted == {0.01}
        longest = found.curves[ends.index(9)].points
        assert [point.epoch for point in longest] == list(range(1, 10))
        assert longest[-1].train_accuracy > longest[0].train_accuracy
        assert longest[-1].selection_loss < longest[0].selection_loss  # type: ignore[operator]

    def test_a_rung_inside_an_epoch(self) -> None:
        found, trials = train_together(
            Dense(), Grid((1e-4, 1e-2)).params(), Schedule(epochs=2, keep=2)
        )
        epochs = [[point.epoch for point in curve.points] for curve in found.curves]
        assert epochs[0] == [pytest.approx(2 / 3, abs=0.02)]
        assert epochs[1] == [*epochs[0], 1, 2]
        assert len(trials) == 1

    def test_a_head_that_diverges_is_dropped(self) -> None:
        X, y, _, _ = halves()
        params = Grid((1e30, 1e-2)).params()
        head = Mlp(optimizer="sgd", hidden=8)
        found, trials = train_together(head, params, Schedule(epochs=6, keep=2))
        assert found.curves[0].points[-1].selection_loss is None
        assert [trial.params["learning_rate"] for trial in trials] == [1e-2]
        with pytest.raises(InvalidInputError, match="finite weights; expected lower learning"):
            train_together(head, params[:1], Schedule(epochs=2))
        with pytest.raises(InvalidInputError, match=r"the weights diverged; .*below 1e\+30"):
            clone(head).set_params(learning_rate=1e30).fit(X, y)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"dropout": 1.0}, "dropout"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"l2": -1.0}, "l2"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"ema": 1.0}, "ema"),
        ({"optimizer": "lion"}, "adam or sgd"),
    ],
)
@pytest.mark.parametrize("kind", [Dense, Mlp])
def test_refuses_senseless_parameters(kind: type[TrainedHead], params: dict, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{kind.kind}: expected .*{words}"):
        kind(**params).fit([[0.0], [1.0]], [0, 1])


def test_mlp_of_double_precision_and_from_disk(tmp_path: Path) -> None:
    X, y, V, _ = halves()
    head = Mlp(hidden=16, epochs=3).fit(X, y)
    assert head.logits(V).dtype == np.float32
    assert head.logits(V.astype(np.float64)).dtype == np.float64
    np.testing.assert_allclose(head.logits(V), head.logits(V.astype(np.float64)), atol=1e-5)
    save_head(head, tmp_path)
    np.testing.assert_array_equal(load_head(tmp_path).logits(V), head.logits(V))
    assert not hasattr(head, "linear")
