"""After training: ensembles, views, error analysis and export, on a run whose network was never trained."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset
from PIL import Image

from onepass.cache.commandline.command import main
from onepass.cache.errors import InvalidInputError, MissingFileError, UsageError
from onepass.classify.heads.storage import pack_arrays, unpack_arrays
from onepass.classify.metrics import log_loss, log_probabilities, softmax
from onepass.data.dataset import ImageDataset
from onepass.data.splits import selection_split
from onepass.finetune.config import ErrorsConfig, PredictConfig
from onepass.finetune.recipes import RECIPES
from onepass.finetune.session.history import EpochRow
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.session.run_identity import RunConfig, RunIdentity
from onepass.predict.ensemble import learn_weights, mix


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ImageDataset]:
    """A data set, and two finished runs with logits but no network: r1 held rows out, r2 did not."""
    folder = tmp_path_factory.mktemp("after")
    store, runs = folder / "store", folder / "runs"
    dataset = write_dataset(store, digits())
    for name, noise in (("r1", 1.0), ("r2", 2.0), ("r3", 3.0)):
        write_run(runs, dataset, name, noise, held_out=name != "r2")
    return store, runs, dataset


def write_run(runs: Path, dataset: ImageDataset, name: str, noise: float, held_out: bool) -> Path:
    """Leave on disk what a finished run leaves, with logits that are right but for noise."""
    run = runs / NAME / "finetune" / name
    run.mkdir(parents=True)
    labels = digits().labels
    random = np.random.default_rng(int(noise * 10))
    parts = {"val": dataset.rows("val"), "test": dataset.rows("test")}
    if held_out:
        parts["selection"] = selection_split(dataset.labels, dataset.rows("train"))[1]
    for part, rows in parts.items():
        logits = noise * random.standard_normal((len(rows), 10)).astype(np.float32)
        logits[np.arange(len(rows)), labels[rows]] += 2
        (run / f"{part}_logits.npz").write_bytes(pack_arrays({"logits": logits, "rows": rows}))
    identity = RunIdentity(
        NAME, dataset.digest, "gone-0", {}, RECIPES["default"], "all", held_out, 0, "none", 0
    )
    RunConfig(identity, {}).write(run / "config.json")
    row = EpochRow(1, 1.0, 0.75, 1.0, selection_accuracy=0.5 if held_out else None)
    FinetuneResult(f"{NAME}/{name}", Path(name), "", None, (row,), "", 0.5).write(
        run / "result.json"
    )
    return run


def predict(places: tuple[Path, Path, ImageDataset], *words: str) -> tuple[dict, Path]:
    store, runs, _ = places
    out = runs / "out.file"
    from onepass.finetune.__main__ import COMMANDS

    flags = ["--cache-dir", str(store), "--runs-dir", str(runs), "--out", str(out)]
    assert main("finetune", COMMANDS, ["predict", *words, *flags]) == 0
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
        places, "--run", f"{NAME}/r1", f"{NAME}/r3", "--split", "val", "--format", "csv",
        "--no-temperature",
    )  # fmt: skip
    rows = dataset.rows("val")
    folder = runs / NAME / "finetune"
    parts = [
        unpack_arrays((folder / r / "val_logits.npz").read_bytes())["logits"] for r in ("r1", "r3")
    ]
    expected = np.mean([softmax(part) for part in parts], axis=0)
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


def test_weights_and_temperature_come_from_the_selection_rows_alone(places, tmp_path: Path) -> None:
    words = ("--run", f"{NAME}/r1", f"{NAME}/r3", "--weights", "learnt", "--split", "val")
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


def test_a_run_that_saw_all_rows_learns_nothing_and_says_so(places, capsys) -> None:
    record, _ = predict(places, "--run", f"{NAME}/r2", "--split", "val")
    assert record["temperature"] == 1 and record["learnt_on"] == 0
    assert f"{NAME}/r2 was trained on the selection rows" in record["note"]
    assert record["note"] in capsys.readouterr().out
    store, runs, _ = places
    from onepass.predict.combine import predict_run

    config = PredictConfig(
        run=(f"{NAME}/r1", f"{NAME}/r2"), weights="learnt", cache_dir=store, runs_dir=runs
    )
    with pytest.raises(InvalidInputError, match=r"r2 was trained.*--weights equal"):
        predict_run(config)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"run": ("r1",)}, "expected DATASET/RUN"),
        ({"run": ("a/r1", "b/r1")}, "of one data set"),
        ({"run": ("a/r1", "a/r1")}, "each once"),
    ],
)
def test_bad_flags_are_one_clear_line(fields: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        PredictConfig(**fields)


def test_views_that_cannot_be_averaged_are_refused() -> None:
    from onepass.predict.views import expand_views

    assert expand_views(("five-crop", "flip")) == (
        "", "crop:tl", "crop:tr", "crop:bl", "crop:br", "crop:center", "flip",
    )  # fmt: skip
    assert expand_views(("flip", "flip")) == ("", "flip")
    for view, said in (("random:3", "the same for every image"), ("mirror", "no such|expected")):
        with pytest.raises(InvalidInputError, match=said):
            expand_views((view,))


def test_error_analysis_names_what_is_wrong(places) -> None:
    from onepass.finetune.errors import analyse_errors

    store, runs, dataset = places
    config = ErrorsConfig(run=f"{NAME}/r1", cache_dir=store, runs_dir=runs, pictures=7)
    report = analyse_errors(config)
    found = json.loads(report.path.read_text())
    with np.load(runs / NAME / "finetune" / "r1" / "val_logits.npz") as kept:
        logits, rows = kept["logits"], kept["rows"]
    wrong = logits.argmax(axis=1) != dataset.labels[rows]
    assert found["wrong"] == wrong.sum() and found["rows"] == len(rows)
    assert found["sample"]["rows"] == len(rows)  # fewer than 1,000
    assert found["probe"] is None  # it is gone
    first = found["mistakes"][0]
    row = first["row"]
    assert dataset.names[row] == first["file"] and first["true_name"] != first["predicted_name"]
    assert first["true_id"] == dataset.class_ids[dataset.labels[row]]
    sureness = softmax(logits)[wrong].max()
    assert first["confidence"] == pytest.approx(float(sureness))
    assert len(found["classes"]) == 10 and len(found["mistakes"]) == 7
    assert found["epochs"] == [{"epoch": 1, "train": 0.75, "selection": 0.5, "gap": 0.25}]
    assert report.sheet is not None
    with Image.open(report.sheet) as sheet:
        assert sheet.size == (8 + 6 * 136, 8 + 2 * 184)
        picture = np.asarray(sheet.convert("L"))[8:136, 8:136]
    original = dataset.pixels[row][..., 0]
    shrunk = np.asarray(Image.fromarray(picture).resize((8, 8), Image.Resampling.BOX))
    assert np.corrcoef(shrunk.ravel(), original.ravel())[0, 1] > 0.95


def test_the_frozen_probe_is_what_fine_tuning_is_held_against(places) -> None:
    from onepass.finetune.errors import _against, analyse_run
    from onepass.finetune.session.runs import open_run

    store, runs, dataset = places
    run = open_run(store, runs, f"{NAME}/r1")
    rows = dataset.rows("val")
    truth = dataset.labels[rows]
    taken, frozen = truth.copy(), truth.copy()
    frozen[truth == 3] = 0  # the probe knew no 3
    taken[truth == 5] = 0  # fine-tuning forgot the 5
    against = _against(run, truth, taken, frozen)
    assert [c.class_id for c in against.helped] == ["n03"]
    assert [c.class_id for c in against.harmed] == ["n05"]
    assert (against.gained, against.lost) == (np.sum(truth == 3), np.sum(truth == 5))
    assert analyse_run(run, runs).found.probe is None


def test_a_run_that_is_not_there_names_those_that_are(places) -> None:
    from onepass.finetune.errors import analyse_errors

    store, runs, _ = places
    with pytest.raises(MissingFileError, match="finished ones: r1, r2, r3"):
        analyse_errors(ErrorsConfig(run=f"{NAME}/r9", cache_dir=store, runs_dir=runs))
