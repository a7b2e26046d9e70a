"""What accuracy costs: files counted once, and a front that nothing beats."""

from pathlib import Path

import pytest
from classify_store import NAME, digits, write_dataset, write_features
from stored import store_features

from onepass.classify.config import ClassifyConfig, EnsembleConfig
from onepass.classify.ensemble import run_ensemble
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.pareto import board_front, extraction_costs, pareto_front
from onepass.classify.pipeline import run_probes
from onepass.classify.text import classify_text
from onepass.data.dataset import open_dataset


def test_front_holds_what_nothing_beats() -> None:
    points = {
        "cheap": (1.0, 0.5),
        "worse and dearer": (2.0, 0.4),
        "better": (3.0, 0.7),
        "as good, dearer": (4.0, 0.7),
        "as dear, worse": (3.0, 0.6),
        "best": (9.0, 0.8),
    }
    assert pareto_front(points) == ("cheap", "better", "best")
    assert pareto_front({}) == ()


def test_equal_points_give_one_name_whatever_their_order() -> None:
    points = {"b": (1.0, 0.5), "a": (1.0, 0.5)}
    assert pareto_front(points) == pareto_front(dict(reversed(points.items()))) == ("a",)


def measured(folder: Path, backbone: str, rate: float, view: str = "") -> None:
    """Say in a feature file how fast it was extracted."""
    from onepass.cache.features import ExtractionRecord, open_features

    found = open_features(folder / "store" / NAME / "features" / f"{backbone}@8{view and '+' + view}.h5")  # fmt: skip
    X, (key,) = found.X.copy(), found.keys
    record = ExtractionRecord(rate, len(X), ["cpu:0"], "device")
    store_features(folder / "store", open_dataset(folder / "store", NAME), X, key, {"extraction": record})  # fmt: skip


def test_what_was_only_carried_over_has_no_cost(tmp_path: Path) -> None:
    data = digits()
    write_features(tmp_path / "store", write_dataset(tmp_path / "store", data), data.X, "a")
    measured(tmp_path, "a", 0.0)
    folders = {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    found = run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), **folders))
    assert found.costs[found.winner] is None and not found.front


def test_costs_add_up_over_files_views_and_members(tmp_path: Path) -> None:
    data = digits()
    dataset = write_dataset(tmp_path / "store", data)
    for name, columns, rate in (("a", slice(0, 32), 100.0), ("b", slice(32, 64), 200.0)):
        for view in ("", "flip"):
            write_features(tmp_path / "store", dataset, data.X[:, columns].copy(), name, view=view)
            measured(tmp_path, name, rate, view)
    write_features(tmp_path / "store", dataset, data.X, "unmeasured")
    folders = {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    keys = ("a@8", "b@8", "a@8,b@8", "unmeasured@8")
    run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), features=keys, **folders))
    viewed = run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), features=("a@8",), views=("flip",), **folders))  # fmt: skip
    ids = {r.features_text: r.id for r in viewed.results}
    members = (ids["a@8 with flip"], ids["a@8 & b@8"])
    made = run_ensemble(EnsembleConfig(dataset=NAME, method=("average",), probe=members, **folders))
    board = Leaderboard.load(tmp_path / "runs" / NAME, NAME, dataset.digest)
    costs = extraction_costs(tmp_path / "store", board)
    assert costs[ids["a@8"]] == pytest.approx(10) and costs[ids["b@8"]] == pytest.approx(5)
    assert costs[ids["a@8 & b@8"]] == pytest.approx(15)
    assert costs[ids["a@8 with flip"]] == pytest.approx(20)
    assert costs[made.ensembles[0].id] == pytest.approx(25)  # a, a+flip, b: each once
    assert costs[ids["unmeasured@8"]] is None
    front = board_front(board, costs)
    assert front[0] == ids["b@8"] and ids["unmeasured@8"] not in front
    text = classify_text(run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), features=keys, **folders)))  # fmt: skip
    assert "5.00 ms *" in text and "Pareto front" in text
