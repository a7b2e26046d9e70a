"""The leaderboard: its order, its file, and what it refuses."""

import dataclasses
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conftest import fields_of, refused
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    StaleError,
    UnknownNameError,
)
from onepass.cache.features import FeatureKey
from onepass.cache.made_by import MadeBy
from onepass.classify.leaderboard.board import Leaderboard, leaderboard_path
from onepass.classify.leaderboard.result import ProbeResult, RowCounts, TrialRecord
from onepass.classify.metrics import find_metric


def result(identity: str, selection: float = 0.5, loss: float = 1.0, **other: Any) -> ProbeResult:
    fields: dict[str, Any] = {
        "id": identity,
        "features": ("toy@8",),
        "keys": (FeatureKey("toy", "sha256:0", 8),),
        "head": "ridge",
        "params": {"penalty": 0.1},
        "trials": (TrialRecord({"penalty": 0.1}, selection, loss),),
        "selection_top1": selection,
        "selection_log_loss": loss,
        "val_top1": 0.4,
        "val_interval": (0.3, 0.5),
        "val_top5": None,
        "seconds": 1.5,
        "seed": 0,
        "budget": "quick",
        "converged": True,
        "baseline": False,
        "dataset_digest": "aaaa1111bbbb",
        "features_digest": "ffff",
        "rows": RowCounts(fit=90, selection=10, train=100, val=20, test=0),
        "made_by": MadeBy.now(),
    }
    return ProbeResult(**{**fields, **other})


def board(folder: Path, *results: ProbeResult) -> Leaderboard:
    return Leaderboard(folder, "toys", "aaaa1111bbbb", results)


def load(folder: Path, digest: str = "aaaa1111bbbb") -> Leaderboard:
    return Leaderboard.load(folder, "toys", digest)


def test_order_is_by_selection_then_log_loss_then_id_whatever_came_first(tmp_path: Path) -> None:
    probes = [
        result("d", 0.9, 0.5, val_top1=0.1, val_interval=(0.0, 0.2)),  # worst on val
        result("b", 0.8, 0.4),
        result("a", 0.8, 0.6),
        result("c", 0.8, 0.6),
    ]
    for order in itertools.permutations(probes):
        assert [r.id for r in board(tmp_path, *order).ranked] == ["d", "b", "a", "c"]


def test_a_baseline_never_wins(tmp_path: Path) -> None:
    floor = result("floor", 0.99, baseline=True, keys=(), features=())
    found = board(tmp_path, floor, result("probe", 0.2))
    assert found.winner.id == "probe" and found.baselines == (floor,)
    with refused(MissingFileError, "no probe on features yet; make it with: onepass classify"):
        _ = board(tmp_path, floor).winner


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    written = board(tmp_path, result("a", val_top5=0.7), result("b", 0.6))
    written.save()
    assert load(tmp_path) == written
    assert [p.name for p in tmp_path.iterdir()] == ["leaderboard.json"]
    assert load(tmp_path).head_folder(written.results[0]) == tmp_path / "heads" / "a"


def earlier(result: dict[str, Any]) -> dict[str, Any]:
    """A line of today as the second format held it."""
    result = dict(result)
    weights, trials = result.pop("members"), result.pop("trials")
    params = {**result["params"], **({"weights": weights} if weights else {})}
    return {**result, "params": params, "members": list(weights), "path": trials}


def test_leaderboards_of_earlier_formats_are_still_read(tmp_path: Path) -> None:
    ensemble = result("c", 0.4, seed=3, keys=(), members={"a": 0.25, "b": 0.75}, head="average")
    written = replace(board(tmp_path, result("a", seed=3), result("b", seed=3), ensemble), seed=3)
    written.save()
    path = leaderboard_path(tmp_path)
    value = fields_of(path)
    assert value["format"] == 5
    new = ("metric", "positive", "selection_value")
    for line in (value, *value["results"]):
        for name in new:
            line.pop(name, None)
    path.write_text(json.dumps({**value, "format": 4}))
    assert load(tmp_path) == written
    whole_keys = [
        {
            **entry,
            "keys": [{"dataset": "toys", "dataset_digest": "d", **key} for key in entry["keys"]],
        }
        for entry in value["results"]
    ]
    path.write_text(json.dumps({**value, "format": 3, "results": whole_keys}))
    assert load(tmp_path) == written
    second = [earlier(entry) for entry in whole_keys]
    path.write_text(json.dumps({**value, "format": 2, "results": second}))
    assert load(tmp_path) == written
    later = ("views", "members", "temperature", "calibration", "scoring")
    first = [{k: v for k, v in entry.items() if k not in later} for entry in second[:2]]
    path.write_text(json.dumps({"format": 1, "dataset": "toys", "dataset_digest": "aaaa1111bbbb", "results": first}))  # fmt: skip
    found = load(tmp_path)
    assert found == replace(
        written, results=written.results[:2]
    )  # and of the seed of its last line
    found.save()
    assert json.loads(path.read_text())["format"] == 5 and load(tmp_path) == found
    value["format"] = 1  # with the fields of today
    path.write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match="expected the fields"):
        load(tmp_path)


def test_one_metric_is_ranked_at_a_time(tmp_path: Path) -> None:
    losses = [
        result(name, 0.9, metric="log-loss", selection_value=loss)
        for name, loss in (("a", 0.4), ("b", 0.3))
    ]
    precise = [
        result(name, metric="average-precision", positive=name, selection_value=0.7)
        for name in ("cat", "dog")
    ]
    found = board(tmp_path, result("top", 0.9), *losses, *precise)
    assert [r.id for r in found.ranked] == ["top"]
    assert found.other_metrics == {
        "average-precision of cat": 1,
        "average-precision of dog": 1,
        "log-loss": 2,
    }
    by_loss = replace(found, metric="log-loss")
    assert [r.id for r in by_loss.ranked] == ["b", "a"]  # the lower loss is the better
    cats = found.ranked_by(find_metric("average-precision", 0), ["cat", "dog"])
    assert [r.id for r in cats.ranked] == ["cat"] and cats.other_metrics["top1"] == 1
    cats.save()
    assert load(tmp_path) == cats


def test_one_seed_is_ranked_at_a_time(tmp_path: Path) -> None:
    floor = result("floor", baseline=True, keys=(), features=(), seed=1)
    found = board(tmp_path, result("a", 0.6), result("b", 0.9, seed=1), floor)
    assert [r.id for r in found.ranked] == ["a"] and not found.baselines
    assert found.other_seeds == {1: 1} and found.find("b").seed == 1
    other = dataclasses.replace(found, seed=1)
    assert other.winner.id == "b" and other.baselines == (floor,) and other.other_seeds == {0: 1}
    other.save()
    assert load(tmp_path).seed == 1


def test_views_stand_in_the_text(tmp_path: Path) -> None:
    line = result("a", features=("a@8", "b@8"), views=("flip",))
    assert line.features_text == "a@8 & b@8 with flip"


def test_a_result_takes_the_place_of_its_predecessor(tmp_path: Path) -> None:
    found = board(tmp_path, result("a"), result("b")).holding(result("a", 0.7))
    assert [(r.id, r.selection_top1) for r in found.results] == [("b", 0.5), ("a", 0.7)]


def test_find(tmp_path: Path) -> None:
    found = board(tmp_path, result("ridge-1", 0.4), result("ridge-2", 0.6))
    assert found.find("best").id == "ridge-2" and found.find("ridge-1").id == "ridge-1"
    with pytest.raises(UnknownNameError, match="did you mean ridge-"):
        found.find("ridge-3")


def test_results_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result("a").val_top1 = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "change",
    [
        {"val_top1": 1.5},
        {"selection_top1": float("nan")},
        {"val_interval": (0.5, 0.3)},
        {"id": "../outside"},
        {"id": ""},
        {"temperature": 0.0},
    ],
)
def test_senseless_results_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        result(**{"identity": "a", **{("identity" if k == "id" else k): v for k, v in change.items()}})  # fmt: skip


def test_results_of_two_states_of_the_data_set_do_not_mix(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="one state"):
        board(tmp_path, result("a"), result("b", dataset_digest="other"))


def test_none_yet_tells_the_command(tmp_path: Path) -> None:
    with refused(MissingFileError, "make it with: onepass classify --dataset toys"):
        load(tmp_path)


def test_an_older_data_set_is_refused_in_one_line(tmp_path: Path) -> None:
    board(tmp_path, result("a")).save()
    with refused(StaleError, r"aaaa1111.*cccc2222.*classify --dataset toys$"):
        load(tmp_path, "cccc2222dddd")


@pytest.mark.parametrize(
    "damage", ["cut", "empty", "list", "format", "field", "extra", "type", "path"]
)
def test_a_damaged_file_is_refused(tmp_path: Path, damage: str) -> None:
    board(tmp_path, result("a")).save()
    path = leaderboard_path(tmp_path)
    text, value = path.read_text(), json.loads(path.read_text())
    entry = value["results"][0]
    match damage:
        case "cut":
            text = text[: len(text) // 2]
        case "empty":
            text = ""
        case "list":
            text = "[]"
        case "format":
            text = json.dumps({**value, "format": 99})
        case "field":
            del entry["seconds"]
        case "extra":
            entry["surprise"] = 1
        case "type":
            entry["selection_top1"] = "high"
        case "path":
            entry["id"] = "../../elsewhere"
    if damage in ("field", "extra", "type", "path"):
        text = json.dumps(value)
    path.write_text(text)
    with pytest.raises(CorruptFileError, match=r"leaderboard\.json"):
        load(tmp_path)
