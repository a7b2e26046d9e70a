"""Fine-tuning: starts as the probe, keeps BatchNorm's statistics, survives kills with the same history."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from classify_store import write_features
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits

import onepass
from onepass.cache.arrays import unpack_arrays
from onepass.cache.commandline.command import DONE, STOPPED, main
from onepass.cache.errors import CorruptFileError, InvalidInputError
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.protocol.evaluate import selection_rows
from onepass.data.dataset import open_dataset
from onepass.finetune.augmentation import draw_order
from onepass.finetune.config import FinetuneConfig
from onepass.finetune.recipes import RECIPES
from onepass.finetune.session.session import open_session

SIZE = 32


def digit_pictures(folder: Path, count: int) -> tuple[list[Path], list[int]]:
    """Write some of the digits as PNG files; return these and what they show."""
    digits = load_digits()
    folder.mkdir()
    paths = [folder / f"{n:03}.png" for n in range(count)]
    for path, pixels in zip(paths, digits.images, strict=False):
        Image.fromarray((pixels * 15.9).astype(np.uint8)).save(path)
    return paths, digits.target[:count].tolist()


pytestmark = pytest.mark.slow


def run(places: tuple[Path, Path], *words: str) -> subprocess.CompletedProcess:
    return processes.run(*command(places, *words), TINY_BACKBONE="1")


def command(places: tuple[Path, Path], *words: str) -> list[str]:
    store, runs = places
    results = words[0] in ("classify", "finetune", "predict")
    flags = ["--cache-dir", str(store), *(["--runs-dir", str(runs)] if results else [])]
    return [*words, *flags]


def result_of(done: subprocess.CompletedProcess, code: int = DONE) -> dict:
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The digits with the vectors of a tiny backbone, and a leaderboard."""
    folder = tmp_path_factory.mktemp("finetune")
    places = folder / "store", folder / "runs"
    assert run(places, "data", "prepare", "digits").returncode == 0
    words = ["--dataset", "digits", "--backbone", "tiny", "--size", str(SIZE)]
    assert run(places, "extract", *words).returncode == 0
    result_of(
        run(places, "classify", "--dataset", "digits", "--head", "ridge", "logistic", "--json")
    )
    return places


START = ("--from", f"tiny@{SIZE}")
# small batches: an epoch takes long enough that a signal comes before the end
TRAIN = ("finetune", "--dataset", "digits", "--rows", "320", "--batch", "2", *START, "--json")


@pytest.fixture(scope="module")
def whole(places: tuple[Path, Path]) -> dict:
    """Three epochs without interruption."""
    return result_of(run(places, *TRAIN, "--epochs", "3", "--run", "whole"))


def test_what_smaller_images_cost_the_start_is_said(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    """A head is fitted to vectors of one size."""
    store, runs = (Path(shutil.copytree(place, tmp_path / place.name)) for place in places)
    places = store, runs
    of = ("--dataset", "digits", "--features", "tiny@64")
    assert run(places, "extract", *of[:2], "--backbone", "tiny", "--size", "64").returncode == 0
    assert run(places, "classify", *of, "--head", "ridge").returncode == 0
    words = [
        "finetune",
        *of[:2],
        "--from",
        "tiny@64",
        "--rows",
        "320",
        "--epochs",
        "2",
        "--run",
        "grows",
    ]
    said = run(places, *words, "--set", "first_size=0.5").stderr
    found = re.search(
        r"right on (\d+) % of 256 training images at 64 px, on (\d+) % at the 32 px", said
    )
    assert found and int(found[1]) - int(found[2]) > 10, said
    assert "epoch 1 of 2 at 32 px" in said
    assert re.findall(r"selection accuracy .* %( \(at 64 px\))?$", said, re.MULTILINE) == [
        "",
        " (at 64 px)",
        "",
    ]


def test_training_starts_as_the_probe_and_learns(whole: dict) -> None:
    assert whole["warm_start_difference"] <= 1e-3 and "gpu_use" in whole
    losses = [row["loss"] for row in whole["history"]]
    assert len(losses) == 3 and losses[2] < losses[0]
    assert whole["val_interval"][0] <= whole["val_top1"] <= whole["val_interval"][1]


def test_a_run_goes_on_from_the_network_of_a_finished_one(
    places: tuple[Path, Path], whole: dict
) -> None:
    """What was trained is not trained again: the start is what the earlier run kept, to the last image."""
    words = (*TRAIN[:-3], "--from", whole["run"], "--json", "--learning-rate", "1e-4")
    done = run(places, *words, "--epochs", "1")
    on = result_of(done)
    assert on["start"] == "digits/whole (tiny@32)" and "goes on from its network" in done.stderr
    assert on["warm_start_difference"] <= 1e-5
    config = FinetuneConfig(
        dataset="digits", from_=whole["run"], cache_dir=places[0], runs_dir=places[1]
    )
    seeds = {open_session(replace(config, seed=n)).draws_seed for n in (0, 0, 1)}
    assert len(seeds) == 2 and not seeds & {
        0,
        1,
    }  # not the order and the mirrorings of the first run again
    assert on["start_selection"]["accuracy"] == whole["selection_top1"]
    assert on["probe"] == whole["probe"] and on["run"] == "digits/whole-continued"
    assert on["history"][0]["loss"] < whole["history"][0]["loss"]
    kept = [unpack_arrays((places[1] / "digits" / "finetune" / name / "weights.npz").read_bytes())
            for name in ("whole", "whole-continued")]  # fmt: skip
    assert (on["kept_epochs"] == [0]) == all(
        np.array_equal(kept[0][n], kept[1][n]) for n in kept[0]
    )
    again = result_of(run(places, *words, "--epochs", "1"))
    assert again["val_top1"] == on["val_top1"]


def test_frozen_layers_of_an_earlier_run_are_not_kept_as_those_of_the_backbone(
    places: tuple[Path, Path], whole: dict
) -> None:
    words = (*TRAIN[:-3], "--from", whole["run"], "--json", "--unfreeze", "last:1", "--epochs", "1")
    done = run(places, *words, "--run", "upper")
    assert done.returncode == DONE, done.stderr
    assert "computed in each step: digits/whole trained their weights" in done.stderr


def test_a_run_that_learnt_the_selection_split_chooses_nothing_there(
    places: tuple[Path, Path], whole: dict
) -> None:
    words = (*TRAIN, "--epochs", "1", "--batch", "32")
    result_of(run(places, *words, "--no-select", "--run", "all-rows"))
    result_of(run(places, *words, "--epochs", "0", "--run", "as-network"))
    after = (*TRAIN[:-3], "--json", "--epochs", "1", "--run", "after", "--from")
    for flags, expected in (
        (["digits/all-rows"], "learnt from the selection split too"),
        (["digits/as-network"], "learnt from the selection split too"),  # its head did
        (["digits/nothing"], "finished ones: all-rows"),
        (["whole"], "received none (a run is named digits/RUN)"),
        ([whole["run"], "--weights", "none"], "has weights of its own"),
        ([whole["run"], "--recipe", "de2020-dense2"], "before its head"),
        ([whole["run"], "--epochs", "0"], "no run to go on from"),
    ):
        done = run(places, *after, *flags)
        assert done.returncode in (1, 2) and expected in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1 or done.returncode == 2, done.stderr
    assert not (places[1] / "digits" / "finetune" / "after").exists()
    gone = places[1] / "digits" / "finetune" / "all-rows" / "weights.npz"
    gone.unlink()
    done = run(places, *after, "digits/all-rows", "--no-select")
    expected = f"{gone}: expected the weights of a finished run, received none; delete result.json"
    assert done.returncode == 1 and expected in done.stderr, done.stderr


def test_a_run_goes_on_after_the_data_set_grew(places: tuple[Path, Path], tmp_path: Path) -> None:
    """With more images and a label put right; what it learnt from is neither chosen nor validated on."""
    places, table = (tmp_path / "store", tmp_path / "runs"), tmp_path / "digits.csv"
    pictures, labels = digit_pictures(tmp_path / "pictures", 400)

    def prepare(count: int, splits: tuple[str, ...] = ("",)) -> None:
        rows = [f"{pictures[n]},{labels[n]},{splits[n % len(splits)]}" for n in range(count)]
        table.write_text("\n".join(["image,label,split", *rows]) + "\n")
        done = run(places, "data", "prepare", str(table), "--name", "d")
        assert done.returncode == 0, done.stderr
        words = ("--dataset", "d", "--backbone", "tiny", "--size", str(SIZE))
        assert run(places, "extract", *words).returncode == 0
        assert run(places, "classify", "--dataset", "d", "--head", "ridge").returncode == 0

    prepare(300)
    words = ("finetune", "--dataset", "d", "--epochs", "1", "--batch", "16", "--json")
    first = result_of(run(places, *words, "--run", "first"))
    labels[0] = (labels[0] + 1) % 10
    prepare(400)
    stale = run(places, "predict", "d/first", "--split", "val")
    assert stale.returncode == 1 and "go on from its network with --from d/first" in stale.stderr
    done = run(places, *words, "--run", "second", "--from", "d/first")
    second = result_of(done)
    assert second["from_run"] == "d/first" and second["warm_start_difference"] is None
    assert "d/first learnt from the state" in done.stderr and "100 images" in done.stderr
    assert second["trained_rows"] > first["trained_rows"]
    dataset = open_dataset(places[0], "d")
    folder = places[1] / "d" / "finetune"
    seen = {name: {bytes(c) for c in unpack_arrays((folder / name / "learnt_from.npz").read_bytes())["content"]}
            for name in ("first", "second")}  # fmt: skip
    assert len(seen["first"]) == first["trained_rows"] and seen["first"] < seen["second"]
    chosen_on = unpack_arrays((folder / "second" / "selection_logits.npz").read_bytes())["rows"]
    for rows in (chosen_on, dataset.rows("val")):
        assert len(rows) and not seen["second"] & {bytes(c) for c in dataset.content[rows]}
    prepare(400, ("train", "train", "val"))  # others than were drawn
    done = run(places, *words, "--run", "third", "--from", "d/first")
    assert done.returncode == 1 and "that d validates on today; train from a probe" in done.stderr
    for (
        path
    ) in pictures:  # the same photographs in another form: what was seen of them is not known
        Image.open(path).resize((16, 16)).save(path)
    prepare(400)
    done = run(places, *words, "--run", "third", "--from", "d/first")
    assert done.returncode == 1 and "holds none today, in this size" in done.stderr, done.stderr
    (folder / "first" / "learnt_from.npz").unlink()  # as a version before wrote it
    done = run(places, *words, "--run", "third", "--from", "d/first")
    assert done.returncode == 1 and "did not note on which images" in done.stderr
    labels[350:] = [11] * 50  # a class that it does not know: there is no way on
    prepare(400)
    stale = run(places, "predict", "d/first", "--split", "val")
    assert stale.returncode == 1 and "--from" not in stale.stderr, stale.stderr
    done = run(places, *words, "--run", "third", "--from", "d/first")
    assert done.returncode == 1 and "knows other classes than d has today" in done.stderr


def test_a_run_goes_on_where_both_splits_have_an_image(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    """As in Tiny ImageNet, seven times: the data set's own, not what the run has seen and others have not."""
    places, table = (tmp_path / "store", tmp_path / "runs"), tmp_path / "digits.csv"
    pictures, labels = digit_pictures(tmp_path / "pictures", 200)
    shutil.copyfile(pictures[0], copy := tmp_path / "copy.png")
    rows = [
        f"{p},{n},{('train', 'val')[i % 4 == 3]}"
        for i, (p, n) in enumerate(zip(pictures, labels, strict=True))
    ]
    table.write_text("\n".join(["image,label,split", *rows, f"{copy},{labels[0]},val"]) + "\n")
    done = run(places, "data", "prepare", str(table), "--name", "d")
    assert done.returncode == 0 and "splits share images" in done.stdout + done.stderr, done.stdout
    words = ("--dataset", "d", "--backbone", "tiny", "--size", str(SIZE))
    assert run(places, "extract", *words).returncode == 0
    assert run(places, "classify", "--dataset", "d", "--head", "ridge").returncode == 0
    words = (
        "finetune",
        "--dataset",
        "d",
        "--epochs",
        "1",
        "--batch",
        "16",
        "--no-select",
        "--json",
    )
    assert result_of(run(places, *words, "--run", "first"))["trained_rows"] == 150
    second = result_of(run(places, *words, "--run", "second", "--from", "d/first"))
    assert second["from_run"] == "d/first"


def test_a_probe_of_several_views_is_a_start_fitted_on_all_of_them(
    places: tuple[Path, Path],
) -> None:
    prepared = ("prepare", "digits", "--name", "turned", "--symmetries", "quarter_turns")
    assert run(places, "data", *prepared).returncode == 0
    words = ("--dataset", "turned")
    views = ("--backbone", "tiny", "--size", str(SIZE), "--view", "", "symmetries")
    assert run(places, "extract", *words, *views).returncode == 0
    heads = ("--head", "ridge", "--views", "symmetries", "--json")
    board = result_of(run(places, "classify", *words, *heads))
    trained = (*words, *START, "--rows", "200", "--epochs", "1", "--run", "turned", "--json")
    result = result_of(run(places, "finetune", *trained))
    assert result["probe"] == board["winner"] and result["warm_start_difference"] <= 1e-3
    store, runs = places
    dataset = open_dataset(store, "turned")
    probe = Leaderboard.load(runs / "turned", "turned", dataset.digest).winner
    assert probe.views == ("turn:90", "turn:180", "turn:270")
    rows, _ = selection_rows(dataset, probe.seed)
    X = [
        onepass.open_features("turned", f"tiny@{SIZE}{view}", cache_dir=store).X[rows]
        for view in ("", *(f"+{view}" for view in probe.views))
    ]
    head = load_head(runs / "turned" / "heads" / probe.id)
    fitted = clone(head).fit(np.concatenate(X), np.tile(dataset.labels[rows], 4))
    start = unpack_arrays((runs / "turned" / "finetune" / "turned" / "start.npz").read_bytes())
    found = next(array for name, array in start.items() if name.endswith("bias"))
    np.testing.assert_allclose(found, fitted.linear()[1], atol=1e-4)


def steady(history: list[dict]) -> list[tuple]:
    return [(row["epoch"], row["loss"], row["accuracy"]) for row in history]


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_interrupted_runs_have_the_same_history_and_weights(
    places: tuple[Path, Path], whole: dict, how: str
) -> None:
    name = f"ended-by-{how}"
    words = [*TRAIN, "--epochs", "3", "--run", name]
    process, out = processes.interrupted(
        how, "epoch 1 of 3: loss", *command(places, *words), TINY_BACKBONE="1"
    )
    if how == "SIGTERM":
        assert process.returncode == STOPPED and json.loads(out)["stopped"] == "SIGTERM"
    again = run(places, *words)
    result = result_of(again)
    assert "resuming after epoch" in again.stderr and "resuming after epoch 0" not in again.stderr
    assert steady(result["history"]) == steady(whole["history"])
    folder = places[1] / "digits" / "finetune"
    with (
        np.load(folder / name / "val_logits.npz") as ours,
        np.load(folder / "whole" / "val_logits.npz") as theirs,
    ):
        np.testing.assert_array_equal(ours["logits"], theirs["logits"])


def next_of(said: str) -> list[str]:
    """The command that is printed as the next one, without its folders."""
    (line,) = [line for line in said.splitlines() if line.startswith("Next: onepass")]
    command = line.removeprefix("Next: onepass ").partition(", or ")[0]
    return command.partition(" --cache-dir")[0].split()


SMALL = ("finetune", "--dataset", "digits", *START, "--rows", "64", "--batch", "8")


@pytest.mark.parametrize("select", ["--select", "--no-select"])
def test_a_network_that_is_worse_than_its_probe_is_not_handed_on(
    places: tuple[Path, Path], select: str
) -> None:
    name = f"spoilt{select}"
    flags = [select, "--learning-rate", "0.3", "--epochs", "1", "--set", "ema=0", "--run", name]
    done = run(places, *SMALL, *flags)
    assert done.returncode == DONE, done.stderr
    result = json.loads((places[1] / "digits" / "finetune" / name / "result.json").read_text())
    assert next_of(done.stdout) == ["predict", "digits", "--split", "val"]
    told = run(places, *next_of(done.stdout))
    assert told.returncode == DONE and "digits/" in told.stdout and name not in told.stdout
    assert len(result["history"]) == 1
    if select == "--select":
        start = result["start_selection"]
        assert result["kept_epochs"] == [0] and result["selection_top1"] == start["accuracy"]
        assert "kept: epoch 0, the start" in done.stdout
        assert f"epoch 0, the start: selection accuracy {100 * start['accuracy']:.1f} %" in done.stdout  # fmt: skip
        assert result["val_top1"] > 0.5
    else:
        assert result["kept_epochs"] == [1] and result["start_selection"] is None
        assert "points worse than its probe, a significant difference" in done.stdout


def test_without_an_epoch_the_run_is_the_probe_and_can_be_exported(
    places: tuple[Path, Path],
) -> None:
    done = run(places, "finetune", "--dataset", "digits", *START, "--epochs", "0")
    assert done.returncode == DONE, done.stderr
    name = f"tiny@{SIZE}-probe"
    folder = places[1] / "digits" / "finetune" / name
    result = json.loads((folder / "result.json").read_text())
    assert result["history"] == [] and result["settings"]["epochs"] == 0
    assert result["val_top1"] == pytest.approx(result["probe_top1"], abs=0.005)
    kept = np.load(places[1] / "digits" / "heads" / result["probe"] / "probabilities.npz")
    with np.load(folder / "val_logits.npz") as found:
        same = found["logits"].argmax(axis=1) == kept["val_predicted"]
    assert same.mean() > 0.99
    assert next_of(done.stdout) == ["predict", "export", f"digits/{name}"]
    exported = run(places, *next_of(done.stdout), "--format", "tflite", "litert")
    assert exported.returncode == DONE, exported.stderr
    files = {path.name for path in (folder / "export").iterdir()}
    made = {f"digits-{name}.tflite", "labels.json", "MODEL_CARD.md", "example-litert.py"}
    assert files == made | {"command.toml"}


def test_a_finished_run_is_not_run_again(places: tuple[Path, Path], whole: dict) -> None:
    again = run(places, *TRAIN, "--epochs", "3", "--run", "whole")
    assert "this run is finished" in again.stderr
    assert result_of(again)["val_top1"] == whole["val_top1"]
    record = (places[1] / "digits" / "scorings.jsonl").read_text().splitlines()
    looks = [json.loads(line) for line in record]
    ours = [look["accuracy"] for look in looks if look["probe"] == whole["run"]]
    assert ours == [whole["val_top1"]]  # once, and not again


def test_a_kill_before_the_mistakes_are_looked_at_costs_nothing(
    places: tuple[Path, Path], whole: dict
) -> None:
    mistakes = places[1] / "digits" / "finetune" / "whole" / "errors.json"
    before = mistakes.read_bytes()
    mistakes.unlink()
    run(places, *TRAIN, "--epochs", "3", "--run", "whole")
    assert mistakes.read_bytes() == before


def test_a_folder_of_another_configuration_is_refused(
    places: tuple[Path, Path], whole: dict
) -> None:
    refused = run(places, *TRAIN, "--epochs", "3", "--run", "whole", "--seed", "1")
    assert refused.returncode == 1
    assert (
        "seed: 0, now 1" in refused.stderr.splitlines()[-1]
        and "--run NAME" in refused.stderr.splitlines()[-1]
    )


def test_predictions_are_those_that_were_scored(
    places: tuple[Path, Path], whole: dict, tmp_path: Path
) -> None:
    out = tmp_path / "val.csv"
    done = run(
        places,
        "predict",
        "digits/whole",
        "--split",
        "val",
        "--format",
        "kaggle",
        "--out",
        str(out),
    )
    assert done.returncode == 0, done.stderr
    lines = out.read_text().splitlines()
    assert lines[0] == "Id,Category"
    from onepass.data.dataset import open_dataset

    dataset = open_dataset(places[0], "digits")
    truth = {dataset.names[i]: dataset.class_ids[dataset.labels[i]] for i in dataset.rows("val")}
    right = np.mean(
        [truth[name] == label for name, label in (line.rsplit(",", 1) for line in lines[1:])]
    )
    assert len(lines) - 1 == len(truth) and right == pytest.approx(whole["val_top1"])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ("--dataset", "digits", "--from", "efficientnet_lite0@999"),
            1,
            "onepass classify --dataset digits",
        ),
        (("--dataset", "nothing"), 1, "nothing"),
        (("--dataset", "digits", "--epochs", "-1"), 2, "below 0"),
        (("--dataset", "digits", "--epochs", "0", "--set", "hidden=8"), 2, "no dense layers"),
        (("--dataset", "digits", "--epochs", "0", "--learning-rate", "auto"), 2, "auto"),
        (("--dataset", "digits", "--weights", "nowhere.h5"), 1, "nowhere.h5"),
    ],
)
def test_bad_input_is_one_clear_line(
    places: tuple[Path, Path], words: tuple[str, ...], code: int, said: str
) -> None:
    done = run(places, "finetune", *words)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert said in done.stderr.strip().splitlines()[-1]


def test_without_a_leaderboard_the_next_command_is_named(
    places: tuple[Path, Path], tmp_path: Path
) -> None:
    done = run((places[0], tmp_path), "finetune", "--dataset", "digits")
    assert (
        done.returncode == 1 and "onepass classify --dataset digits" in done.stderr.splitlines()[-1]
    )


def test_the_learning_rate_is_looked_for_once(places: tuple[Path, Path]) -> None:
    """By the run itself what `find-lr` finds with the same flags; written down, so that it goes on with it."""
    few = ["--dataset", "digits", *START, "--rows", "64", "--batch", "8", "--epochs", "1"]
    words = ["finetune", *few, "--learning-rate", "auto", "--run", "auto", "--json"]
    stopped = run(places, *words, "--time-limit", "0.001s")
    assert result_of(stopped, STOPPED)["stopped"] == "time limit"
    config = json.loads((places[1] / "digits/finetune/auto/config.json").read_text())
    rate = config["identity"]["recipe"]["learning_rate"]
    assert rate == config["found"]["suggested"] and 1e-8 < rate < 1e-2
    assert f"learning rate {rate:g}: a tenth of" in stopped.stderr
    done = run(places, *words)
    assert result_of(done)["settings"]["learning_rate"] == rate
    assert "resuming after epoch 0, step 1" in done.stderr and "a tenth of" not in done.stderr
    found = result_of(run(places, "finetune", "find-lr", *few, "--json"))
    assert found["suggested"] == pytest.approx(rate, rel=0.2)
    assert found["rates"] == sorted(found["rates"]) and found["rates"][0] == pytest.approx(1e-7)


def spoil_features(store: Path, how: str) -> None:
    """Delete the vectors, write others in their place, or prepare the images in another way."""
    from onepass.cache.features import list_features, open_features
    from onepass.data.dataset import open_dataset

    paths = list_features(store, "digits")
    if how == "prepared anew":
        from onepass.data.__main__ import COMMANDS

        words = ["prepare", "digits", "--seed", "7", "--resplit", "--cache-dir", str(store)]
        assert main("data", COMMANDS, words) == 0
        return
    (path,) = paths
    stored = open_features(path)
    path.unlink()
    if how == "extracted again":
        key = {
            k: v
            for k, v in asdict(stored.keys[0]).items()
            if k not in ("dataset", "dataset_digest")
        }
        write_features(store, open_dataset(store, "digits"), stored.X[:, ::-1].copy(), **key)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("deleted", r"digits/features: no feature file yet; make it with: onepass extract"),
        ("extracted again", r"made from vectors \w{8}, but .* is now \w{8}.*onepass classify"),
        (
            "prepared anew",
            r"leaderboard.json: made from digits \w{8}.*onepass classify --dataset digits",
        ),
    ],
)
def test_a_leaderboard_of_other_features_is_refused_before_anything_is_made(
    places: tuple[Path, Path], tmp_path: Path, how: str, said: str
) -> None:
    store = Path(shutil.copytree(places[0], tmp_path / "store"))
    spoil_features(store, how)
    words = ["finetune", "--dataset", "digits", *START, "--run", "stale"]
    done = run((store, places[1]), *words)
    error = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(error) == 1 and re.search(said, error[0]), error
    assert not (places[1] / "digits" / "finetune" / "stale").exists()


@pytest.fixture(scope="module")
def real_classifier() -> Any:
    """A real backbone under a head of three classes."""
    from onepass.extract.backbones.registry import find_backbone
    from onepass.extract.network.model import build_extractor
    from onepass.finetune.training.model import assemble

    extractor = build_extractor(find_backbone("efficientnet_lite0"), SIZE, (8, 8, 1))
    return assemble(extractor, 3, RECIPES["default"])


def test_every_layer_learns_but_batch_norm_keeps_its_statistics(real_classifier: Any) -> None:
    import keras

    from onepass.finetune.training.optimizer import LayerwiseAdam
    from onepass.finetune.training.step import TrainStep

    classifier = real_classifier
    norms = [
        layer
        for layer in classifier.extractor.get_layer("backbone").layers
        if "BatchNorm" in type(layer).__name__
    ]
    assert len(norms) > 40
    before = [[np.array(w) for w in layer.get_weights()] for layer in norms]
    trained = [
        np.copy(keras.ops.convert_to_numpy(v)) for v in classifier.trainer.trainable_variables
    ]
    count = len(classifier.trainer.trainable_variables)
    optimizer = LayerwiseAdam(learning_rate=1e-3, factors=[1.0] * count)
    step = TrainStep(classifier.trainer, optimizer)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype=np.uint8)
    step(pixels, np.arange(8, dtype=np.int32) % 3, {"flips": np.zeros((8, 2), bool)})
    step.sync()
    after = [layer.get_weights() for layer in norms]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old[2], new[2])  # moving mean
        np.testing.assert_array_equal(old[3], new[3])  # moving variance
    moved = [
        np.any(keras.ops.convert_to_numpy(v) != w)
        for v, w in zip(classifier.trainer.trainable_variables, trained, strict=True)
    ]
    assert np.mean(moved) > 0.95


def test_order_depends_on_seed_and_epoch_only() -> None:
    rows = np.arange(1000)
    assert (
        draw_order(rows, 0, 1).tolist()
        == draw_order(rows, 0, 1).tolist()
        != draw_order(rows, 0, 2).tolist()
    )
    assert sorted(draw_order(rows, 0, 1)) == rows.tolist()


def test_a_probe_of_another_backbone_is_refused(real_classifier: Any) -> None:
    from onepass.finetune.training.model import warm_start

    with pytest.raises(InvalidInputError, match=r"expected \(1280, 3\)"):
        warm_start(
            real_classifier,
            np.zeros((512, 3), np.float32),
            np.zeros(3, np.float32),
            np.zeros((1, 8, 8, 1), np.uint8),
        )


@pytest.mark.parametrize("damage", ["cut", "other model", "text"])
def test_a_checkpoint_that_is_not_ours_is_one_clear_error(tmp_path: Path, damage: str) -> None:
    import keras

    from onepass.finetune.session.checkpoint import load_variables, save_variables

    path = tmp_path / "checkpoint.npz"
    variables = {"kernel": keras.Variable(np.arange(6.0).reshape(2, 3))}
    save_variables(path, {"model": variables}, {"place": 3})
    assert load_variables(path, {"model": variables}) == {"place": 3}
    if damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "text":
        path.write_text("not a checkpoint")
    other = {"kernel": keras.Variable(np.zeros((4, 4)))}
    with pytest.raises(CorruptFileError, match=r"checkpoint\.npz"):
        load_variables(path, {"model": other if damage == "other model" else variables})
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(variables["kernel"]), np.arange(6.0).reshape(2, 3)
    )


def test_a_diverging_loss_stops_and_keeps_the_checkpoint(
    places: tuple[Path, Path], whole: dict
) -> None:
    words = [*TRAIN, "--epochs", "40", "--run", "diverges", "--learning-rate", "1e30"]
    done = run(places, *words, "--checkpoint-every", "0.001s")
    assert done.returncode == 1, done.stdout
    error = done.stderr.splitlines()[-1]
    assert "is not a number; the last checkpoint is kept" in error
    assert "Lower --learning-rate (now 1e+30)" in error and "--run" in error
    kept = places[1] / "digits" / "finetune" / "diverges" / "checkpoint.npz"
    with np.load(kept, allow_pickle=False) as arrays:
        model = [arrays[name] for name in arrays.files if name.startswith("model/")]
    assert model and all(np.isfinite(value).all() for value in model)


def test_an_ablation_compares_on_the_same_rows_and_goes_on_where_it_was(
    places: tuple[Path, Path],
) -> None:
    words = ["finetune", "ablate", "--dataset", "digits", *START, "--rows", "64", "--epochs", "1"]
    words += ["--augmentation", "recipe", "--json"]
    flips = [*words, "--set", "flip=true"]
    first = result_of(run(places, *flips))
    assert [line["left_out"] for line in first["lines"]] == ["", "flip"]
    full, less = first["lines"]
    assert full["difference"] is None and less["rows"] == 64
    apart = less["selection_accuracy"] - full["selection_accuracy"]
    assert less["difference"] == pytest.approx(apart)
    low, high = less["difference_interval"]
    assert low <= apart <= high
    again = run(places, *flips)
    assert result_of(again) == first and "epoch 1" not in again.stderr
    written = json.loads((places[1] / "digits" / "finetune" / "ablation.json").read_text())
    assert written["lines"] == first["lines"] and written["augmentation"]["flip"] is True
    refused = run(places, *words)  # digits have no symmetry
    assert refused.returncode == 2 and "has none" in refused.stderr.splitlines()[-1]
