"""`onepass predict` of runs and of several models: averages, learnt weights, temperature, views."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset
from finished_runs import write_run, write_runs

from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.artifacts import to_json
from onepass.cache.commandline.command import main
from onepass.cache.errors import InvalidInputError, StaleError, UsageError
from onepass.cache.made_by import MadeBy
from onepass.cache.provenance import digest_array
from onepass.classify.leaderboard.prediction_record import MemberRecord, PredictionRecord
from onepass.classify.metrics import (
    apply_temperature,
    calibration_temperature,
    log_loss,
    log_probabilities,
    softmax,
)
from onepass.classify.protocol.scorings import read_scorings
from onepass.data.config import RelabelConfig
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.relabel import relabel
from onepass.predict.__main__ import COMMANDS
from onepass.predict.average import average, learn_weights, mix
from onepass.predict.config import PredictConfig
from onepass.predict.models import load_predictor
from onepass.predict.predictor import Predictor
from onepass.predict.split import predict_split


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ImageDataset]:
    """A data set and the finished runs r1, r2 and r3."""
    return write_runs(tmp_path_factory.mktemp("average"))


def predict(places: tuple[Path, Path, ImageDataset], *words: str) -> tuple[dict, Path]:
    store, runs, _ = places
    out = runs / "out.file"
    flags = ["--cache-dir", str(store), "--runs-dir", str(runs), "--out", str(out)]
    assert main("predict", COMMANDS, [*words, *flags]) == 0
    return json.loads((runs / "out.file.json").read_text()), out


def test_learnt_weights_are_those_of_a_grid() -> None:
    """Independent: the best mixture of two members over a fine grid of weights."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 5, 400)
    members = []
    for noise in (1.0, 1.6):
        logits = noise * random.standard_normal((400, 5))
        logits[np.arange(400), truth] += 1.5
        members.append(softmax(logits.astype(np.float32)))
    weights = learn_weights(members, truth)
    grid = np.linspace(0, 1, 1001)
    losses = [
        log_loss(truth, log_probabilities(w * members[0] + (1 - w) * members[1])) for w in grid
    ]
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(grid[int(np.argmin(losses))], abs=2e-3)
    assert 0.5 < weights[0] < 1


def test_a_useless_member_loses_its_weight() -> None:
    truth = np.arange(300) % 3
    good = np.full((300, 3), 0.05, np.float32)
    good[np.arange(300), truth] = 0.9
    weights = learn_weights([good, np.full((300, 3), 1 / 3, np.float32)], truth)
    assert weights[0] > 0.999
    np.testing.assert_allclose(mix([good, good], np.array([0.3, 0.7])), good, rtol=1e-6)


def test_equal_weights_are_the_mean_and_val_is_scored(places) -> None:
    _, runs, dataset = places
    record, path = predict(
        places, f"{NAME}/r1", f"{NAME}/r3", "--split", "val", "--format", "csv",
        "--no-temperature",
    )  # fmt: skip
    rows = dataset.rows("val")
    folder = runs / NAME / "finetune"
    parts = [
        unpack_arrays((folder / r / "val_logits.npz").read_bytes())["logits"] for r in ("r1", "r3")
    ]
    own = [member["temperature"] for member in record["members"]]
    expected = np.mean(
        [apply_temperature(softmax(p), t) for p, t in zip(parts, own, strict=True)], axis=0
    )
    lines = list(csv.DictReader(path.read_text().splitlines()))
    assert [line["class_id"] for line in lines] == [
        dataset.class_ids[k] for k in expected.argmax(axis=1)
    ]
    np.testing.assert_allclose(
        [float(line["probability"]) for line in lines], expected.max(axis=1), atol=2e-6
    )
    right = float(np.mean(expected.argmax(axis=1) == dataset.labels[rows]))
    assert record["val_top1"] == pytest.approx(right)
    assert record["val_interval"][0] < right < record["val_interval"][1]
    assert record["temperature"] == 1 and record["learnt_on"] == 0
    looks = (runs / NAME / "scorings.jsonl").read_text().splitlines()
    assert json.loads(looks[-1])["accuracy"] == record["val_top1"]  # that val was seen is on record


def test_a_run_that_is_scored_again_is_the_model_it_was(places) -> None:
    """By its logits, as at the end of its training; an average is another model."""
    _, runs, dataset = places
    predict(places, f"{NAME}/r1", "--split", "val")
    predict(places, f"{NAME}/r1", f"{NAME}/r3", "--split", "val")
    alone, both = read_scorings(runs / NAME, dataset.digest)[-2:]
    arrays = unpack_arrays((runs / NAME / "finetune" / "r1" / "val_logits.npz").read_bytes())
    assert alone.model == digest_array(arrays["logits"]) != both.model
    assert (alone.probe, both.probe) == (f"{NAME}/r1", f"{NAME}/r1 + {NAME}/r3")


def test_weights_and_temperature_come_from_the_selection_rows_alone(places, tmp_path: Path) -> None:
    words = (f"{NAME}/r1", f"{NAME}/r3", "--weights", "learnt", "--split", "val")
    record, _ = predict(places, *words)
    weights = [member["weight"] for member in record["members"]]
    assert record["learnt_on"] == 112 and weights[0] > 0.8 and record["temperature"] != 1
    # the same selection rows with other val logits give the same weights and temperature
    path = places[1] / NAME / "finetune" / "r1" / "val_logits.npz"
    before = path.read_bytes()
    arrays = unpack_arrays(before)
    path.write_bytes(pack_arrays({**arrays, "logits": -arrays["logits"]}))
    spoilt, _ = predict(places, *words)
    path.write_bytes(before)
    assert [member["weight"] for member in spoilt["members"]] == weights
    assert spoilt["temperature"] == record["temperature"]
    assert spoilt["val_top1"] < record["val_top1"]


def test_members_are_averaged_at_their_own_temperatures(places) -> None:
    """By hand, from the runs' logits: calibrate each, mix, calibrate the mean."""
    _, runs, dataset = places
    words = (f"{NAME}/r1", f"{NAME}/r3", "--weights", "learnt", "--split", "val")
    record, path = predict(places, *words, "--format", "csv")
    parts: dict[str, list[np.ndarray]] = {"selection": [], "val": []}
    truth, temperatures = np.zeros(0), []
    for run in ("r1", "r3"):
        own = {
            part: unpack_arrays(
                (runs / NAME / "finetune" / run / f"{part}_logits.npz").read_bytes()
            )
            for part in parts
        }
        truth = dataset.labels[own["selection"]["rows"]]
        temperature = calibration_temperature(truth, softmax(own["selection"]["logits"]))
        temperatures.append(temperature)
        for part, found in parts.items():
            found.append(apply_temperature(softmax(own[part]["logits"]), temperature))
    assert [m["temperature"] for m in record["members"]] == pytest.approx(temperatures, rel=1e-3)
    assert all(abs(temperature - 1) > 0.02 for temperature in temperatures)
    weights = learn_weights(parts["selection"], truth)
    assert [m["weight"] for m in record["members"]] == pytest.approx(weights, abs=1e-3)
    last = calibration_temperature(truth, mix(parts["selection"], weights))
    assert record["temperature"] == pytest.approx(last, rel=1e-3)
    expected = apply_temperature(mix(parts["val"], weights), last)
    lines = list(csv.DictReader(path.read_text().splitlines()))
    np.testing.assert_allclose(
        [float(line["probability"]) for line in lines], expected.max(axis=1), atol=2e-4
    )
    mean, _ = predict(places, *words, "--no-temperature")
    assert mean["members"] == record["members"] and mean["temperature"] == 1
    assert mean["selection_top1"] == record["selection_top1"]
    in_sample = np.mean(mix(parts["selection"], weights).argmax(axis=1) == truth)
    assert record["selection_top1"] == pytest.approx(in_sample, abs=0.03)  # cross-fitted
    low, high = record["selection_interval"]
    assert low < record["selection_top1"] < high
    alone, _ = predict(places, f"{NAME}/r1", "--split", "val")
    assert alone["members"][0]["temperature"] == 1
    own = np.mean(parts["selection"][0].argmax(axis=1) == truth)
    assert alone["selection_top1"] == pytest.approx(own)
    assert alone["temperature"] == pytest.approx(temperatures[0], rel=1e-3)


def test_the_selection_accuracy_of_learnt_weights_is_cross_fitted() -> None:
    """Members that know nothing: weights that suit some rows are no good for others."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 30)
    noise = random.uniform(0.05, 0.95, (8, 30)).astype(np.float32)
    parts = [np.stack([1 - p, p], axis=1) for p in noise]
    data = SimpleNamespace(labels=labels)
    members = [Predictor(f"d/{i}", "", data, lambda _, p=p: p, np.arange(30)) for i, p in enumerate(parts)]  # fmt: skip
    both = average(members, learnt=True)
    assert both.selection is not None
    crossed = float(np.mean(both.selection().argmax(axis=1) == labels))
    in_sample = float(np.mean(both.compute("selection").argmax(axis=1) == labels))
    assert crossed < in_sample
    assert average(members, learnt=False).selection is None


def test_a_member_that_was_chosen_by_folds_is_weighed_on_the_rows_that_all_held_out() -> None:
    labels = np.random.default_rng(0).integers(0, 2, 40)
    right, some = np.eye(2, dtype=np.float32)[labels] * 0.8 + 0.1, np.arange(3, 40, 4)
    data = SimpleNamespace(labels=labels)
    by_folds = Predictor("d/a", "", data, lambda part: right, np.arange(40))
    run = Predictor("d/b", "", data, lambda part: 1 - right[some], some)
    both = average([by_folds, run], learnt=True)
    assert both.learnt_on == len(some) and both.weights[0] > 0.99
    np.testing.assert_array_equal(both.held_out, some)
    np.testing.assert_allclose(both.compute("selection"), right[some], atol=0.01)
    other = replace(run, held_out=some + 40)
    with pytest.raises(InvalidInputError, match="held out different selection rows"):
        average([by_folds, other], learnt=True)


def test_a_run_that_saw_all_rows_learns_nothing_and_says_so(places, capsys) -> None:
    record, _ = predict(places, f"{NAME}/r2", "--split", "val")
    assert record["temperature"] == 1 and record["learnt_on"] == 0
    assert f"{NAME}/r2 was trained on the selection rows" in record["note"]
    assert record["selection_top1"] is None and record["selection_interval"] is None
    assert record["note"] in capsys.readouterr().out
    store, runs, _ = places
    config = PredictConfig(
        models=(f"{NAME}/r1", f"{NAME}/r2"), weights="learnt", cache_dir=store, runs_dir=runs
    )
    with pytest.raises(InvalidInputError, match=r"r2 was trained.*--weights equal"):
        predict_split(config)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"models": ("a/b/c",)}, "expected DATASET"),
        ({"models": ("a/",)}, "expected DATASET"),
        ({"models": ("a/r1", "b/r1")}, "of one data set"),
        ({"models": ("a/r1", "a/r1")}, "each model once"),
    ],
)
def test_bad_flags_are_one_clear_line(fields: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_predictor(PredictConfig(**fields))


def test_views_that_cannot_be_averaged_are_refused() -> None:
    from onepass.predict.views import views_to_average

    assert views_to_average(("five-crop", "flip"), None) == (
        "", "crop:tl", "crop:tr", "crop:bl", "crop:br", "crop:center", "flip",
    )  # fmt: skip
    assert views_to_average(("flip", "flip"), None) == ("", "flip")
    for view, said in (("random:3", "the same for every image"), ("mirror", "no such|expected")):
        with pytest.raises(InvalidInputError, match=said):
            views_to_average((view,), None)


def test_a_record_of_the_format_before_is_read(tmp_path: Path) -> None:
    """Then "format" was the format of the answers, and unlabelled rows had no fields for a score."""
    before = {
        "members": [{"name": "d/r1", "views": ["", "flip"], "weight": 1.0}], "weights": "equal",
        "temperature": 1.0, "learnt_on": 0, "note": "", "split": "test", "rows": 7,
        "format": "kaggle", "dataset": "d", "dataset_digest": "0", "made_by": to_json(MadeBy.now()),
    }  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(before))
    record = PredictionRecord.read(tmp_path / "a.json")
    assert (record.file_format, record.val_top1) == ("kaggle", None)
    assert record.members == (MemberRecord("d/r1", ("", "flip"), 1.0),)
    record.write(tmp_path / "b.json")
    assert PredictionRecord.read(tmp_path / "b.json") == record


def relabelled(store: Path, file: Path, **changes: str) -> ImageDataset:
    """Give a few rows another label."""
    lines = [f"{name}.png,{label}" for name, label in changes.items()]
    file.write_text("\n".join(["file,label", *lines]) + "\n")
    relabel(RelabelConfig(name=NAME, labels=file, cache_dir=store))
    return open_dataset(store, NAME)


def test_a_run_from_before_a_relabel_still_predicts_and_says_what_it_learnt_from(tmp_path) -> None:
    store, runs, dataset = write_runs(tmp_path)
    first, second = (dataset.names[row].removesuffix(".png") for row in dataset.rows("val")[:2])
    learnt = relabelled(store, tmp_path / "l.csv", **{first: "n03"})
    write_run(runs, learnt, "r9", 1.0, held_out=True)
    before, _ = predict((store, runs, dataset), f"{NAME}/r9", "--split", "val")
    assert before["note"] == ""
    today = relabelled(store, tmp_path / "l.csv", **{second: "n04"})
    after, _ = predict((store, runs, dataset), f"{NAME}/r9", "--split", "val")
    assert after["dataset_digest"] == today.digest and after["temperature"] == before["temperature"]
    assert after["note"].startswith(
        f"{NAME}/r9 learnt from the state {learnt.digest[:8]} of {NAME}"
    )
    assert f"since then: labels changed: 1 ({second}.png" in after["note"]
    changed = abs(after["val_top1"] - before["val_top1"]) * len(today.rows("val"))
    assert changed == pytest.approx(0, abs=1e-9) or changed == pytest.approx(1)
    # an image that it learnt from is not one to score it on
    split = digits().split.copy()
    split[dataset.rows("train")[0]] = 1
    write_dataset(store, replace(digits(), split=split))
    config = PredictConfig(models=(f"{NAME}/r9",), split="val", cache_dir=store, runs_dir=runs)
    with pytest.raises(StaleError, match=r"1 of the \d+ validation images were none then"):
        predict_split(config)
    other = write_dataset(store, digits(), ids=[f"m{k:02d}" for k in range(10)])
    with pytest.raises(StaleError, match=f"is now {other.digest[:8]}"):
        predict_split(config)
