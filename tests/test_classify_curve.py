"""The learning curve: nested rows, a power law that is found again, and a run that resumes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from conftest import fields_of, refused
from onepass.cache.commandline.command import STOPPED, main
from onepass.cache.content import source_of
from onepass.cache.errors import InvalidInputError
from onepass.classify.__main__ import COMMANDS
from onepass.classify.config import CurveConfig
from onepass.classify.metrics import METRICS, TOP1
from onepass.classify.resampling import curve as room
from onepass.classify.resampling.curve import (
    CurvePoint,
    curve_sizes,
    extrapolate,
    fit_power_law,
    run_curve,
)
from onepass.data.splits import nested_order


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("curve") / "store"
    write_features(store, write_dataset(store, digits()), digits().X)
    return store


def config(store: Path, runs: Path, **changes) -> CurveConfig:
    known = {"dataset": NAME, "head": "ridge", "seeds": 2, "cache_dir": store, "runs_dir": runs}
    return CurveConfig(**{**known, **changes})


class TestNestedOrder:
    def test_each_beginning_is_stratified_and_has_every_class(self) -> None:
        labels = np.repeat([0, 1, 2], [300, 90, 10])
        rows = np.arange(400)
        content = np.stack([source_of(b"%d" % row) for row in rows])
        order = nested_order(labels, rows, content)
        assert np.array_equal(np.sort(order), rows)
        for size in (3, 40, 100, 200):
            counts = np.bincount(labels[order[:size]], minlength=3)
            assert np.all(counts >= 1)
            assert np.abs(counts - size * np.array([0.75, 0.225, 0.025])).max() <= 2
        assert not np.array_equal(order, nested_order(labels, rows, content, seed=1))

    def test_a_group_comes_as_one(self) -> None:
        labels, groups = np.repeat(np.arange(30) % 2, 4), [f"g{row // 4}" for row in range(120)]
        content = np.stack([source_of(b"%d" % row) for row in range(120)])
        order = nested_order(labels, np.arange(120), content, groups)
        own = order[labels[order] == 0] // 4
        assert len(np.flatnonzero(np.diff(own))) == 14  # fifteen groups, each without a break


class TestPowerLaw:
    def test_a_law_is_found_again(self) -> None:
        sizes = 25.0 * 2 ** np.arange(7)
        laws = np.array([[0.1, 2.0, 0.5], [0.0, 1.0, 0.24], [0.2, 0.0, 1.0]])
        losses = laws[:, :1] + laws[:, 1:2] * sizes ** -laws[:, 2:]
        found = fit_power_law(sizes, losses)
        again = found[:, :1] + found[:, 1:2] * (2 * sizes) ** -found[:, 2:]
        assert again == pytest.approx(laws[:, :1] + laws[:, 1:2] * (2 * sizes) ** -laws[:, 2:], abs=1e-4)  # fmt: skip
        assert found[:2, 2] == pytest.approx(laws[:2, 2], abs=0.01)

    def test_neither_floor_nor_scale_is_negative(self) -> None:
        losses = np.array([[0.5, 0.3, 0.05], [0.1, 0.2, 0.3]])
        found = fit_power_law(np.array([10.0, 20.0, 40.0]), losses)
        assert found.min() >= 0 and found[1, 1] == 0

    @pytest.mark.parametrize("break_at", [np.inf, 400], ids=["a law", "no law"])
    def test_the_interval_holds_what_doubling_is_worth(self, break_at: float) -> None:
        """Accuracy on folds of 400 rows; beyond the break it rises half as steeply, as of a head that is too small."""

        def accuracy(n: float) -> float:
            return 0.9 - n**-0.5 * (1 + n / break_at) ** 0.25

        hits, rows = 0, 1600
        for seed in range(60):
            random = np.random.default_rng(seed)
            luck = random.random((6, 400))  # the same held-out rows at every size
            points = tuple(
                CurvePoint(n, tuple((luck < accuracy(n)).mean(axis=1)), 0.0)
                for n in (25, 50, 100, 200, 400, 800, 1600)
            )
            found = extrapolate(points, TOP1, rows)
            for interval, truth in (
                (found.gain_interval, accuracy(2 * rows) - accuracy(rows)),
                (found.doubled_interval, accuracy(2 * rows)),
            ):
                hits += interval[0] <= truth <= interval[1]
        assert hits >= 2 * 60 * 0.9

    def test_few_sizes_have_the_interval_of_the_folds(self) -> None:
        points = tuple(CurvePoint(n, (0.9 - n**-0.5, 0.88 - n**-0.5), 0.0) for n in (100, 200, 400))
        found = extrapolate(points, TOP1, 400)
        assert found.doubled_interval[0] < found.doubled < found.doubled_interval[1] <= 1

    def test_a_loss_falls(self) -> None:
        points = tuple(CurvePoint(n, (n**-0.5, n**-0.5), 0.0) for n in (100, 200, 400))
        found = extrapolate(points, METRICS["log-loss"], 400)
        assert found.doubled < found.now and found.gain > 0


class TestCommand:
    def test_sizes_double_and_more_images_are_better(self, store, tmp_path) -> None:
        result = run_curve(config(store, tmp_path))
        (curve,) = result.found.curves
        sizes = [point.rows for point in curve.points]
        assert sizes[-1] == 4 * result.found.rows // 5 and np.all(np.diff(np.log2(sizes)) > 0.9)
        assert curve.points[-1].mean > curve.points[0].mean + 0.1
        assert all(len(point.figures) == 4 for point in curve.points)
        assert curve.expected.doubled > curve.points[-1].mean - 0.01
        assert run_curve(config(store, tmp_path)).ran == 0
        assert run_curve(config(store, tmp_path, head="centroid")).ran == len(sizes)
        assert len(run_curve(config(store, tmp_path)).found.curves) == 2

    def test_a_stop_resumes_at_the_next_size(self, store, tmp_path, monkeypatch, capsys) -> None:
        whole = run_curve(config(store, tmp_path / "whole"))
        real, sizes = room.measure, []

        def interrupted(*arguments):
            if len(sizes) == 2:
                raise KeyboardInterrupt
            sizes.append(arguments)
            return real(*arguments)

        monkeypatch.setattr(room, "measure", interrupted)
        words = ["curve", "--dataset", NAME, "--head", "ridge", "--seeds", "2"]
        words += ["--cache-dir", str(store), "--runs-dir", str(tmp_path)]
        assert main("classify", COMMANDS, words) == STOPPED
        monkeypatch.setattr(room, "measure", real)
        assert main("classify", COMMANDS, words) == 0
        text = capsys.readouterr().out
        assert "Doubling the labels from" in text and "points" in text
        found, expected = (fields_of(path) for path in (tmp_path / NAME / "curve.json", whole.path))
        for file in (found, expected):
            del file["made_by"]
            for point in file["curves"][0]["points"]:
                del point["seconds"]
        assert found == expected

    def test_a_metric_without_meaning_on_a_fold_is_refused(self, tmp_path) -> None:
        data, rare = digits(2), np.zeros(360, np.int32)
        rare[np.flatnonzero(data.split == 0)[:2]] = rare[np.flatnonzero(data.split == 1)[:2]] = 1
        data = replace(data, labels=rare[: len(data.labels)])
        write_features(tmp_path, write_dataset(tmp_path, data), data.X)
        with refused(InvalidInputError, r"AUROC has no meaning on \d of 4 held-out folds"):
            run_curve(config(tmp_path, tmp_path / "runs", metric="auroc"))

    def test_too_few_images_are_refused(self) -> None:
        with refused(InvalidInputError, "at least 80 training images of 10 classes"):
            curve_sizes(79, 10)
        assert curve_sizes(80, 10) == [20, 40, 80]
