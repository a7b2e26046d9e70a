"""Several views of the same images: fitted on together, averaged when they predict."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from conftest import refused
from onepass.cache.commandline.command import main
from onepass.cache.errors import InvalidInputError, MissingFileError, StaleError, UsageError
from onepass.classify.__main__ import COMMANDS
from onepass.classify.config import ClassifyConfig, CurveConfig, SweepConfig
from onepass.classify.heads.linear.ridge import Ridge
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import apply_temperature
from onepass.classify.pipeline import run_probes
from onepass.classify.protocol.evaluate import protocol_rows, run_probe
from onepass.classify.protocol.views import (
    evaluated_together,
    mean_probabilities,
    repeated,
    stacked,
)
from onepass.classify.resampling.curve import run_curve
from onepass.classify.search.search import Search, Split
from onepass.classify.search.sweep import run_sweeps
from onepass.classify.text import classify_text, sweep_text
from onepass.predict.config import PredictConfig
from onepass.predict.split import predict_split


@pytest.fixture
def dataset(tmp_path: Path) -> Any:
    """Digits; their pixels as features in two parts, each also in the view `flip`."""
    data = digits()
    made = write_dataset(tmp_path / "store", data)
    X = data.pixels[..., 0].astype(np.float16) / 16
    for view, turned in (("", X), ("flip", X[:, :, ::-1])):
        flat = np.ascontiguousarray(turned).reshape(len(X), 64)
        write_features(tmp_path / "store", made, flat[:, :32].copy(), "top", view=view)
        write_features(tmp_path / "store", made, flat[:, 32:].copy(), "bottom", view=view)
    return made


def config(folder: Path, **other: Any) -> ClassifyConfig:
    fields = {"dataset": NAME, "head": ("ridge",), "views": ("flip",)}
    folders = {"cache_dir": folder / "store", "runs_dir": folder / "runs"}
    return ClassifyConfig(**{**fields, **folders, **other})


def two_views() -> tuple[Any, Any, np.ndarray, np.ndarray]:
    data = digits()
    rows = protocol_rows(data.opened(), 0)
    return data, rows, data.X, data.X[:, ::-1].copy()


def test_a_head_is_fitted_on_the_rows_of_all_views_and_predicts_their_mean() -> None:
    data, rows, plain, turned = two_views()
    outcome = run_probe(Ridge(), (plain, turned), data.labels, rows)
    both = np.concatenate([plain[rows.train], turned[rows.train]])
    by_hand = outcome.head.refit(both, np.tile(data.labels[rows.train], 2))
    np.testing.assert_allclose(outcome.head.weights_, by_hand.weights_, atol=1e-5)  # type: ignore[attr-defined]
    mean = (by_hand.predict_proba(plain[rows.val]) + by_hand.predict_proba(turned[rows.val])) / 2
    np.testing.assert_allclose(outcome.raw_val[0], mean.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(outcome.val, apply_temperature(mean, outcome.temperature), atol=1e-5)
    truth = data.labels[rows.selection]
    assert outcome.chosen.accuracy == pytest.approx(
        np.mean(outcome.selection.argmax(axis=1) == truth)
    )


def test_selection_and_reported_rows_never_enter_a_fit_in_any_view() -> None:
    data, rows, plain, turned = two_views()
    generator = np.random.default_rng(0)
    garbled = [view.copy() for view in (plain, turned)]
    for view in garbled:
        view[rows.val] = generator.normal(size=view[rows.val].shape)
    honest = run_probe(Ridge(), (plain, turned), data.labels, rows)
    other = run_probe(Ridge(), tuple(garbled), data.labels, rows)
    np.testing.assert_array_equal(honest.selection, other.selection)
    for view in garbled:
        view[rows.selection] = generator.normal(size=view[rows.selection].shape)
    chosen = run_probe(Ridge(), tuple(garbled), data.labels, rows).trials
    # the penalties are refined where the selection rows say so; those that both tried have equal heads
    pairs = [
        (p, q) for p in honest.trials for q in chosen if p.params["penalty"] == q.params["penalty"]
    ]
    assert len(pairs) >= 3
    for one, two in pairs:
        first, second = (p.head.weights_ * p.params["temperature"] for p in (one, two))  # type: ignore[attr-defined]
        np.testing.assert_allclose(first, second, rtol=2e-5, atol=1e-7)


def test_trials_are_evaluated_by_the_mean() -> None:
    data, rows, plain, turned = two_views()
    y = data.labels
    split = Split(plain[rows.fit], y[rows.fit], plain[rows.selection], y[rows.selection])
    trials = Search(Ridge(), split).run()[:2]
    together = evaluated_together(trials, (plain, turned), rows.selection, y[rows.selection])
    for alone, both in zip(trials, together, strict=True):
        mean = mean_probabilities(alone.head, (plain, turned), rows.selection)
        own = mean[np.arange(len(mean)), y[rows.selection]]
        assert both.params == alone.params and both.head is alone.head
        assert both.accuracy == np.mean(mean.argmax(axis=1) == y[rows.selection])
        assert both.log_loss == pytest.approx(-np.log(np.maximum(own, 1e-7)).mean(), rel=1e-4)


def test_rows_stand_view_after_view() -> None:
    X, rows = np.arange(12).reshape(6, 2), np.array([1, 4])
    np.testing.assert_array_equal(stacked((X, -X), rows), [[2, 3], [8, 9], [-2, -3], [-8, -9]])
    np.testing.assert_array_equal(repeated(np.array([7, 8]), (X, -X)), [7, 8, 7, 8])
    assert np.shares_memory(stacked(X, np.array([1, 2])), X)


def test_command_with_views_of_features_side_by_side(tmp_path: Path, dataset, capsys) -> None:
    words = ["--dataset", NAME, "--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs")]  # fmt: skip
    both = "top@8,bottom@8"
    assert main("classify", COMMANDS, [*words, "--features", both, "--head", "ridge"]) == 0
    assert main("classify", COMMANDS, [*words, "--features", both, "--head", "ridge", "--views", "flip"]) == 0  # fmt: skip
    assert "top@8 & bottom@8 with flip" in capsys.readouterr().out
    found = run_probes(config(tmp_path, features=(both,)))
    assert found.ran == 0 and len(found.results) == 2
    viewed = next(r for r in found.results if r.views)
    plain = next(r for r in found.results if not r.views)
    assert viewed.id != plain.id and viewed.features == plain.features
    assert viewed.features_digest != plain.features_digest
    assert [key.view for key in viewed.keys] == ["", "", "flip", "flip"]
    kept = load_probabilities(tmp_path / "runs" / NAME / "heads" / viewed.id, viewed.rows)
    out = tmp_path / "val.csv"
    made = predict_split(PredictConfig(
        models=(f"{NAME}/{viewed.id}",), split="val", out=out, format="csv",
        cache_dir=tmp_path / "store", runs_dir=tmp_path / "runs",
    ))  # fmt: skip
    assert made.record.val_top1 == pytest.approx(viewed.val_top1)
    shares = [float(line.rsplit(",", 1)[1]) for line in out.read_text().splitlines()[1:]]
    np.testing.assert_allclose(shares, kept.val.max(axis=1), atol=1e-3)
    assert "with flip" in classify_text(found)


def test_default_takes_what_is_stored_in_all_views(tmp_path: Path, dataset) -> None:
    write_features(tmp_path / "store", dataset, digits().X, "alone")
    found = run_probes(config(tmp_path))
    assert {r.features for r in found.results} == {("top@8",), ("bottom@8",)}
    with refused(MissingFileError, "--view '' scale:2"):
        run_probes(config(tmp_path, views=("scale:2",)))


def test_what_is_no_view_is_refused_in_one_line(tmp_path: Path, dataset) -> None:
    write_features(tmp_path / "store", dataset, digits().X, "alone")
    with refused(MissingFileError, r"extract .* --backbone alone --size 8 --view flip"):
        run_probes(config(tmp_path, features=("alone@8",)))
    with pytest.raises(UsageError, match="expected features of the plain view"):
        run_probes(config(tmp_path, features=("top@8+flip",)))
    with pytest.raises(UsageError, match="expected each view once"):
        config(tmp_path, views=("flip", "flip"))
    write_features(tmp_path / "store", dataset, digits().X, "alone", view="flip", weights="sha256:1")  # fmt: skip
    with pytest.raises(InvalidInputError, match="weights: sha256:0, now sha256:1"):  # fmt: skip
        run_probes(config(tmp_path, features=("alone@8",)))
    assert not (tmp_path / "runs" / NAME / "leaderboard.json").exists()


def test_a_view_that_changed_is_another_input(tmp_path: Path, dataset, capsys) -> None:
    found = run_probes(config(tmp_path, features=("top@8",)))
    write_features(tmp_path / "store", dataset, digits().X[:, :32].copy(), "top", view="flip")
    with refused(StaleError, r"is now .* --fresh"):
        run_probes(config(tmp_path, features=("top@8",)))
    with pytest.raises(StaleError, match="made from vectors"):
        predict_split(PredictConfig(
            models=(f"{NAME}/{found.winner}",), cache_dir=tmp_path / "store", runs_dir=tmp_path / "runs"
        ))  # fmt: skip


def test_features_of_a_view_are_tried_alone_only_where_they_are_named(
    tmp_path: Path, dataset
) -> None:
    found = run_probes(config(tmp_path, views=()))
    assert {probe.features for probe in found.results} == {("top@8",), ("bottom@8",)}
    named = run_probes(config(tmp_path, views=(), features=("top@8+flip",)))
    assert ("top@8+flip",) in {probe.features for probe in named.results}


def test_a_sweep_learns_from_all_views_and_its_head_is_chosen_by_their_mean(tmp_path: Path, dataset, capsys) -> None:  # fmt: skip
    folders = {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    grid: Any = {"learning_rate": (1e-3, 4e-3), "penalty": ("0",), "seeds": (0,), "epochs": 4}
    swept = run_sweeps(SweepConfig(dataset=NAME, features=("top@8,bottom@8",), views=("flip",), **grid, **folders))  # fmt: skip
    (sweep,), (probe,) = swept.sweeps, swept.probes
    assert sweep.views == probe.views == ("flip",)
    assert "top@8 & bottom@8 with flip: 4 dense heads" in sweep_text(swept)
    head = load_head(tmp_path / "runs" / NAME / "heads" / probe.id)
    images = digits().pixels[dataset.rows("val"), ..., 0].astype(np.float16) / 16
    views = [view.reshape(len(images), 64) for view in (images, images[:, :, ::-1])]
    mean = (head.predict_proba(views[0]) + head.predict_proba(views[1])) / 2
    truth = dataset.labels[dataset.rows("val")]
    assert np.mean(mean.argmax(axis=1) == truth) == pytest.approx(probe.val_top1)
    assert probe.selection_top1 == max(trial.accuracy for trial in probe.trials)
    plain_one = run_sweeps(SweepConfig(dataset=NAME, features=("top@8,bottom@8",), **grid, **folders))  # fmt: skip
    assert plain_one.ran == 1 and plain_one.probes[0].id != probe.id
    assert not plain_one.sweeps[0].views


def test_a_learning_curve_of_all_views_stands_beside_the_plain_one(tmp_path: Path, dataset) -> None:
    fields: Any = {"dataset": NAME, "features": ("top@8",), "head": "ridge", "seeds": 1}
    folders = {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    alone = run_curve(CurveConfig(**fields, **folders)).found.curves
    both = run_curve(CurveConfig(**fields, **folders, views=("flip",))).found.curves
    assert both[0] == alone[0] and len(both) == 2
    assert [curve.name for curve in both] == ["top@8 ridge", "top@8 with flip ridge"]
    assert both[1].points[-1].figures != both[0].points[-1].figures
    assert run_curve(CurveConfig(**fields, **folders, views=("flip",))).ran == 0


@pytest.mark.parametrize("command", ["", "sweep", "curve"])
def test_a_view_that_is_not_stored_or_is_named_twice_is_refused(command: str, tmp_path: Path, dataset, capsys) -> None:  # fmt: skip
    words = ["--dataset", NAME, "--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs")]  # fmt: skip
    argv = [*filter(None, [command]), *words]
    assert main("classify", COMMANDS, [*argv, "--views", "turn:90"]) == 1
    assert "no features are stored in the views turn:90" in capsys.readouterr().err
    assert main("classify", COMMANDS, [*argv, "--views", "flip", "flip"]) == 2
    assert "expected each view once" in capsys.readouterr().err
