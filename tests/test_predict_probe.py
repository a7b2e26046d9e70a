"""`onepass predict` of a probe: the files that are handed in."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from conftest import refused
from onepass.cache.commandline.command import main
from onepass.cache.errors import (  # fmt: skip
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    StaleError,
    UnknownNameError,
    UsageError,
)
from onepass.classify.config import ClassifyConfig
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.prediction_record import PredictionRecord
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import SMALLEST
from onepass.classify.pipeline import ClassifyResult, run_probes
from onepass.data.dataset import open_dataset
from onepass.predict.__main__ import COMMANDS
from onepass.predict.answers import encode_answers
from onepass.predict.config import PredictConfig
from onepass.predict.models import load_predictor
from onepass.predict.split import predict_split
from onepass.predict.text import predict_text


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, ClassifyResult]:
    """A folder with data set, features and leaderboard."""
    folder = tmp_path_factory.mktemp("predict")
    data = digits()
    write_features(folder / "store", write_dataset(folder / "store", data), data.X)
    found = run_probes(
        ClassifyConfig(
            dataset=NAME, head=("ridge", "logistic"),
            cache_dir=folder / "store", runs_dir=folder / "runs",
        )
    )  # fmt: skip
    return folder, found


@pytest.fixture
def copy(made, tmp_path: Path) -> Path:
    """A copy of that folder, to be damaged."""
    shutil.copytree(made[0], tmp_path, dirs_exist_ok=True)
    return tmp_path


def config(folder: Path, probe: str = "", **other: Any) -> PredictConfig:
    model = f"{NAME}/{probe}" if probe else NAME
    fields = {"models": (model,), "cache_dir": folder / "store", "runs_dir": folder / "runs"}
    return PredictConfig(**{**fields, **other})


def expected(made: tuple[Path, ClassifyResult], split: str) -> np.ndarray:
    """Classes that the winner gives to a split, from what the run of probes kept."""
    folder, found = made
    best = found.results[0]
    kept = load_probabilities(folder / "runs" / NAME / "heads" / best.id, best.rows)
    return kept.test_predicted if split == "test" else kept.val_predicted


def test_course_format_has_a_line_per_image_in_row_order(made, tmp_path: Path) -> None:
    folder, found = made
    result = predict_split(config(folder, out=tmp_path / "deep" / "out.txt", format="course"))
    lines = (tmp_path / "deep" / "out.txt").read_text().splitlines()
    dataset = open_dataset(folder / "store", NAME)
    rows = dataset.rows("test")
    classes = [f"n{k:02d}" for k in expected(made, "test")]
    assert lines == [f"{dataset.names[r]} {c}" for r, c in zip(rows, classes, strict=True)]
    record = PredictionRecord.read(tmp_path / "deep" / "out.txt.json")
    assert (record.rows, record.val_top1, record.file_format) == (len(rows), None, "course")
    assert [member.name for member in record.members] == [f"{NAME}/{found.winner}"]
    assert record == result.record
    assert np.mean(expected(made, "test") == digits().labels[rows]) > 0.9


def test_kaggle_format_and_its_header(made, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    predict_split(config(made[0], out=out, format="kaggle", header=("file", "label")))
    table = list(csv.reader(out.read_text().splitlines()))
    assert table[0] == ["file", "label"] and len(table) == 1 + len(expected(made, "test"))
    assert [row[1] for row in table[1:]] == [f"n{k:02d}" for k in expected(made, "test")]
    predict_split(config(made[0], out=out, format="kaggle"))
    assert out.read_text().startswith("Id,Category\n")


def test_csv_with_names_and_probabilities_of_the_reported_rows(made, tmp_path: Path) -> None:
    folder, found = made
    out = tmp_path / "out.csv"
    result = predict_split(config(folder, out=out, format="csv", split="val"))
    table = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["class_name"] for row in table] == [f"digit {k}" for k in expected(made, "val")]
    assert all(0.1 <= float(row["probability"]) <= 1 for row in table)
    assert result.record.val_top1 == pytest.approx(found.results[0].val_top1)
    best, text = found.results[0], predict_text(result)
    assert f"Validation top-1: {100 * best.val_top1:.1f} %" in text and best.id in text
    assert (
        result.record.temperature == best.temperature
        and result.record.learnt_on == best.rows.selection
    )


@pytest.mark.parametrize("head", ["ridge", "logistic", "majority"])
def test_any_probe_can_predict(made, tmp_path: Path, head: str) -> None:
    folder, found = made
    probe = next(r for r in (*found.results, *found.baselines) if r.head == head)
    result = predict_split(config(folder, probe=probe.id, split="val", out=tmp_path / "o"))
    assert result.record.val_top1 == pytest.approx(probe.val_top1)


def test_pixel_baseline_can_predict(made, tmp_path: Path) -> None:
    folder, found = made
    result = predict_split(config(folder, probe=found.baselines[0].id, split="val", out=tmp_path / "o"))  # fmt: skip
    assert result.record.members[0].description == "logistic on pixels@32"
    assert result.record.val_top1 == pytest.approx(found.baselines[0].val_top1)


def test_the_test_split_is_scored_where_it_is_asked_for_and_only_then(copy: Path, made) -> None:
    data = digits()
    test = data.split == 2
    held = np.where(test, data.labels, -1).astype(np.int32)
    dataset = write_dataset(copy / "store", data, held=held)
    assert np.all(dataset.labels[test] == -1)
    unasked = predict_split(config(copy)).record
    assert (unasked.test_top1, unasked.test_interval, unasked.log_loss) == (None, None, None)
    looks = (copy / "runs" / NAME / "scorings.jsonl").read_text()
    result = predict_split(config(copy, score=True))
    right = expected(made, "test") == data.labels[test]
    assert result.record.test_top1 == pytest.approx(right.mean()) and right.mean() > 0.9
    low, high = result.record.test_interval
    assert low < right.mean() < high and result.record.val_top1 is None
    assert PredictionRecord.read(result.record_path) == result.record
    assert (
        f"Test top-1: {100 * right.mean():.1f} % (95 % interval {100 * low:.1f} %"
        in predict_text(result)
    )
    assert (
        copy / "runs" / NAME / "scorings.jsonl"
    ).read_text() == looks  # validation is not scored by it


def test_no_score_without_labels_of_all_test_images(made, copy: Path) -> None:
    with pytest.raises(
        InvalidInputError, match=r"label of every test image .* 224 of 224 have none"
    ):
        predict_split(config(made[0], score=True))
    data = digits()
    held = np.where((data.split == 2) & (np.arange(len(data.labels)) % 2 == 0), data.labels, -1)
    write_dataset(copy / "store", data, held=held.astype(np.int32))
    with pytest.raises(InvalidInputError, match=r"but 1\d\d of 224 have none"):
        predict_split(config(copy, score=True))
    with pytest.raises(UsageError, match="expected --split test; the validation split is always"):
        config(made[0], score=True, split="val")


def test_default_place_and_what_the_command_says(copy: Path, capsys) -> None:
    words = [NAME, "--cache-dir", str(copy / "store"), "--runs-dir", str(copy / "runs")]  # fmt: skip
    assert main("predict", COMMANDS, words) == 0
    out = capsys.readouterr().out
    command, path, record = sorted((copy / "runs" / NAME / "predictions").iterdir())
    assert command.name == f"{path.stem}.command.toml"
    assert str(path) in out and path.suffix == ".csv" and "onepass finetune" in out
    assert str(record) in out and record.name == path.name + ".json"
    assert main("predict", COMMANDS, [*words, "--format", "kaggle"]) == 0
    assert len(list(path.parent.iterdir())) == 6


class TestRefusals:
    def test_no_leaderboard(self, copy: Path) -> None:
        with refused(MissingFileError, "make it with: onepass classify --dataset digits-test"):
            predict_split(config(copy, runs_dir=copy / "none"))

    def test_unknown_probe(self, made) -> None:
        with pytest.raises(UnknownNameError, match="did you mean"):
            predict_split(config(made[0], probe=made[1].winner[:-1]))

    def test_no_such_rows(self, tmp_path: Path) -> None:
        data = digits()
        data.split[data.split == 2] = 1
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        run_probes(
            ClassifyConfig(
                dataset=NAME, head=("ridge",),
                cache_dir=tmp_path / "store", runs_dir=tmp_path / "runs",
            )
        )  # fmt: skip
        with pytest.raises(InvalidInputError, match="has no test rows; name another split"):
            predict_split(config(tmp_path, out=tmp_path / "out"))
        assert not (tmp_path / "out").exists()

    def test_missing_or_damaged_head(self, copy: Path, made) -> None:
        folder = copy / "runs" / NAME / "heads" / made[1].winner
        (folder / "arrays.npz").write_bytes(b"")
        with pytest.raises(CorruptFileError, match="run the classify command again"):
            predict_split(config(copy))
        shutil.rmtree(folder)
        with pytest.raises(MissingFileError, match="run the classify command again"):
            predict_split(config(copy))

    def test_vectors_that_changed_since(self, copy: Path) -> None:
        write_features(copy / "store", open_dataset(copy / "store", NAME), digits().X[:, ::-1].copy())  # fmt: skip
        with refused(StaleError, r"made from vectors .* onepass classify --dataset"):
            predict_split(config(copy))

    def test_data_set_that_changed_since(self, copy: Path) -> None:
        data = digits()
        data.labels[0] = (data.labels[0] + 1) % 10
        write_dataset(copy / "store", data)
        with refused(StaleError, "classify --dataset"):
            predict_split(config(copy))

    def test_features_that_are_gone(self, copy: Path) -> None:
        shutil.rmtree(copy / "store" / NAME / "features")
        with pytest.raises(MissingFileError, match="no feature file yet"):
            predict_split(config(copy))

    def test_a_folder_for_a_file(self, made, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="expected a file"):
            predict_split(config(made[0], out=tmp_path))

    def test_header_of_three(self, made) -> None:
        with pytest.raises(UsageError, match="two column names, received 3"):
            config(made[0], header=("a", "b", "c"))

    def test_names_with_spaces_need_csv(self, made) -> None:
        prediction = load_predictor(config(made[0])).predict_split("test")
        spaced = replace(prediction, names=[f"my {name}" for name in prediction.names])
        with pytest.raises(InvalidInputError, match="use --format csv"):
            encode_answers(spaced, "course", ())
        text = encode_answers(spaced, "csv", ()).decode()
        assert text.count("\n") == 1 + len(prediction.rows)

    def test_a_name_like_a_formula_runs_in_no_spreadsheet_and_is_handed_in_as_it_is(
        self, made
    ) -> None:
        prediction = load_predictor(config(made[0])).predict_split("test")
        names = [f"=cmd|'/c calc'!A{row}.png" for row in prediction.rows]
        hostile = replace(prediction, names=[name.replace(" ", "_") for name in names])
        text = encode_answers(hostile, "csv", ()).decode()
        assert all(line.startswith("'=cmd") for line in text.splitlines()[1:])
        for form in ("kaggle", "course"):
            lines = encode_answers(hostile, form, ("Id", "Category")).decode().splitlines()
            assert all(line.startswith("=cmd") for line in lines[form == "kaggle" :])

    def test_views_are_for_runs(self, made) -> None:
        with pytest.raises(UsageError, match="expected a fine-tuned run among the models"):
            predict_split(config(made[0], views=("flip",)))


def test_without_a_temperature_it_is_the_head_itself(made, tmp_path: Path) -> None:
    folder, found = made
    board = Leaderboard.load(folder / "runs" / NAME, NAME, found.results[0].dataset_digest)
    best = replace(found.results[0], temperature=1.3)
    runs = shutil.copytree(folder / "runs", tmp_path / "runs")
    replace(board, folder=runs / NAME).holding(best).save()
    plain = (
        load_predictor(config(folder, runs_dir=runs, temperature=False))
        .predict_split("val")
        .probabilities
    )
    scaled = load_predictor(config(folder, runs_dir=runs)).predict_split("val").probabilities
    powers = np.maximum(plain, SMALLEST).astype(np.float64) ** (1 / best.temperature)
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), scaled, atol=1e-5)
    assert plain.dtype == scaled.dtype == np.float32


def test_head_of_the_winner_loads(made) -> None:
    folder, found = made
    assert load_head(folder / "runs" / NAME / "heads" / found.winner).kind == "logistic"
