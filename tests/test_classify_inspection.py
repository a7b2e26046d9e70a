"""What is planted in the data is found: wrong labels, copies, outliers; and the arithmetic behind it."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, Digits, digits, rare_digits, write_dataset, write_features
from sklearn.linear_model import Ridge as ExactRidge

from conftest import ROOT, fields_of
from onepass.cache.commandline.command import main
from onepass.cache.errors import MissingFileError, UnknownNameError, UsageError
from onepass.classify.__main__ import COMMANDS
from onepass.classify.analysis.duplicates import confirmed_pairs, difference_hash
from onepass.classify.analysis.inspection import (
    Inspection,
    class_reports,
    confusions,
    inspect_dataset,
)
from onepass.classify.analysis.out_of_sample import leave_one_out
from onepass.classify.analysis.suspects import HEADER, write_suspects
from onepass.classify.config import ClassifyConfig, InspectConfig
from onepass.classify.heads.linear.spectrum import Spectrum
from onepass.classify.pipeline import run_probes
from onepass.data import contact_sheet
from onepass.data.config import RelabelConfig
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.manifest import manifest_path
from onepass.data.relabel import relabel

WRONG = (5, 77, 300, 801)  # training rows whose label is changed
WRONG_VAL = (1360, 1500)
COPIES = {1400: 12, 1390: 40, 1650: 100}  # a row that shows the same picture as a training row
NOISE_ROW = 1600  # shows nothing


def planted() -> tuple[Digits, dict[int, int]]:
    """Digits with errors in them, and the true class of each row with a wrong label."""
    data = digits()
    pixels, labels = data.pixels.copy(), data.labels.copy()
    for row, source in COPIES.items():
        pixels[row], labels[row] = pixels[source], labels[source]
    pixels[1390] = pixels[40][:, ::-1]
    pixels[NOISE_ROW] = np.random.default_rng(1).integers(0, 2, (8, 8, 1)) * 240
    truth = {row: int(labels[row]) for row in (*WRONG, *WRONG_VAL)}
    for row in truth:
        labels[row] = (labels[row] + 5) % 10
    return Digits(pixels, labels, data.split), truth


def config(folder: Path, kind: type = InspectConfig, **other: Any) -> Any:
    return kind(dataset=NAME, cache_dir=folder / "store", runs_dir=folder / "runs", **other)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with planted digits and a ridge probe on their pixels and mirror images."""
    folder = tmp_path_factory.mktemp("inspect")
    data, _ = planted()
    dataset = write_dataset(folder / "store", data)
    # a backbone sees a picture and its mirror image as nearly the same: so do these features
    alike = data.X + data.X[:, mirror()]
    X = np.concatenate([alike] * 8 + [data.X], axis=1)
    write_features(folder / "store", dataset, X)
    run_probes(config(folder, ClassifyConfig, head=("ridge",)))
    return folder


def mirror() -> np.ndarray:
    return np.arange(64).reshape(8, 8)[:, ::-1].ravel()


@pytest.fixture(scope="module")
def found(home: Path) -> Inspection:
    return inspect_dataset(config(home)).found


def test_a_rare_class_is_not_talked_away(tmp_path: Path) -> None:
    data, generator = rare_digits(6), np.random.default_rng(0)
    rare, others = (np.flatnonzero((data.labels == k) & (data.split == 0)) for k in (0, 1))
    missed, mistaken = generator.choice(rare, 5, replace=False), generator.choice(others, 5, replace=False)  # fmt: skip
    labels = data.labels.copy()
    labels[missed], labels[mistaken] = 1, 0
    dataset = write_dataset(tmp_path / "store", Digits(data.pixels, labels, data.split))
    write_features(tmp_path / "store", dataset, data.X)
    run_probes(config(tmp_path, ClassifyConfig, head=("ridge",)))
    reports = inspect_dataset(config(tmp_path)).found.labels
    accused = {issue.row for report in reports for issue in report.worst}
    assert len(accused & {*missed, *mistaken}) >= 9
    true = np.flatnonzero((data.labels == 0) & (labels == 0))
    assert (
        len(accused & set(true)) <= 2 < len(true) / 20
    )  # of those that are what they are said to be
    assert len(accused) < 0.02 * len(labels)


class TestPlanted:
    def test_wrong_labels_are_found_with_their_true_class(self, found: Inspection) -> None:
        _, truth = planted()
        for report, rows in zip(found.labels, (WRONG, WRONG_VAL), strict=True):
            suggested = {issue.row: issue.suggested for issue in report.worst}
            assert {row: suggested.get(row) for row in rows} == {row: truth[row] for row in rows}
            assert report.suspected == len(report.worst) < 0.06 * report.rows
            assert set(rows) <= {issue.row for issue in report.worst[: 3 * len(rows)]}
            assert 0.85 < report.accuracy < 1

    def test_copies_are_found_also_mirrored(self, found: Inspection) -> None:
        pairs = {(pair.row, pair.other): pair for pair in found.duplicates.pairs}
        assert set(COPIES.items()) <= set(pairs)
        copy, mirrored = pairs[1400, 12], pairs[1390, 40]
        assert copy.exact and copy.bits == 0 and copy.cosine > 0.999 and not copy.mirrored
        assert mirrored.mirrored and not mirrored.exact
        assert found.duplicates.exact["val"] == 1 and found.duplicates.exact["test"] == 1
        assert found.duplicates.counts["val"] >= 2

    def test_noise_is_an_outlier(self, found: Inspection) -> None:
        assert NOISE_ROW in [one.row for one in found.outliers[:20]]
        distances = [one.distance for one in found.outliers]
        assert distances == sorted(distances, reverse=True)

    def test_the_file_holds_the_same_and_the_text_says_it(self, home, found, capsys) -> None:
        path = home / "runs" / NAME / Inspection.NAME
        assert Inspection.read(path) == found
        value = fields_of(path)
        (home / "old.json").write_text(json.dumps({**value, "format": 1, "path": str(path)}))
        assert Inspection.read(home / "old.json") == found
        words = ["--cache-dir", str(home / "store"), "--runs-dir", str(home / "runs")]
        assert main("classify", COMMANDS, ["inspect", "--dataset", NAME, "--top", "2", *words]) == 0
        out = capsys.readouterr().out
        assert "every pixel equal" in out and "looks like digit" in out
        assert "Worst classes" in out and "distance" in out and "inspection.json" in out

    def test_what_is_wrong_is_said(self, home: Path, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="ridge-"):
            inspect_dataset(config(home, probe="ridge-0"))
        with pytest.raises(MissingFileError, match="no leaderboard yet"):
            inspect_dataset(
                InspectConfig(dataset=NAME, cache_dir=home / "store", runs_dir=tmp_path)
            )
        with pytest.raises(UsageError, match="--top 0"):
            config(home, top=0)


class TestClasses:
    def test_counts_are_those_of_the_labels(self, home: Path, found: Inspection) -> None:
        assert len(found.classes) == 10
        assert sum(one.val_rows for one in found.classes) == found.labels[1].rows
        right = sum(one.val_rows * one.val_accuracy for one in found.classes)
        assert right / found.labels[1].rows == pytest.approx(found.val_top1)
        shares = [one.val_accuracy for one in found.classes]
        assert shares == sorted(shares)

    def test_confusions_by_hand(self, tmp_path: Path) -> None:
        dataset: ImageDataset = write_dataset(tmp_path, digits(3))
        truth, train = (dataset.labels[dataset.rows(split)] for split in ("val", "train"))
        predicted = truth.copy()
        ones, twos = np.flatnonzero(truth == 1), np.flatnonzero(truth == 2)
        predicted[ones[:4]], predicted[twos[:3]], predicted[twos[3]] = 2, 1, 0
        first, second = confusions(dataset, predicted, top=5)
        assert (first.first, first.second) == (1, 2)
        assert (first.first_as_second, first.second_as_first) == (4, 3)
        assert first.share == pytest.approx(7 / (len(ones) + len(twos)))
        assert (second.first, second.second, second.second_as_first) == (0, 2, 1)
        *worse, best = class_reports(dataset, np.zeros_like(train), predicted)
        assert (best.label, best.taken_for, best.val_accuracy, best.train_accuracy) == (
            0,
            None,
            1,
            1,
        )
        by_label = {one.label: one for one in worse}
        assert by_label[1].val_accuracy == 1 - 4 / len(ones) and by_label[1].taken_for == 2
        assert by_label[2].taken_for == 1 and by_label[2].train_accuracy == 0


@pytest.mark.parametrize("features", [20, 400])
def test_leaving_a_row_out_equals_a_fit_without_it(features: int) -> None:
    generator = np.random.default_rng(0)
    numbers = np.arange(150) % 3
    centres = generator.normal(0, 2.7 / features**0.5, (3, features))
    X = generator.normal(0, 1, (150, features)) + centres[numbers]
    spectrum = Spectrum.of(X, numbers, 3)
    left = leave_one_out(X, numbers, spectrum)
    Z, others = spectrum.scaler.apply(X, np.float64), np.ones(150, bool)
    odds = np.log(left.probabilities)
    for row in (0, 7, 149):
        others[:] = True
        others[row] = False
        exact = ExactRidge(alpha=150 * left.penalty).fit(Z[others], np.eye(3)[numbers[others]])
        scores = exact.predict(Z[row : row + 1])[0]
        # probabilities are softmax(scores / temperature)
        ratio = (odds[row] - odds[row].mean()) / (scores - scores.mean())
        np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.02)
    assert left.accuracy == np.mean(left.probabilities.argmax(axis=1) == numbers)


class TestPixels:
    def images(self, count: int = 6) -> np.ndarray:
        """Smooth random pictures (count, 64, 64, 3)."""
        coarse = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3))
        return np.kron(coarse, np.ones((1, 11, 11, 1)))[:, :64, :64].astype(np.uint8)

    def test_pixels_decide(self) -> None:
        pixels = self.images()
        noise = np.random.default_rng(1).integers(-6, 7, pixels[0].shape)
        pixels[1] = np.clip(pixels[0] * 0.8 + 20 + noise, 0, 255)  # another exposure, noise
        pixels[2] = pixels[3][:, ::-1]
        rows, others = np.array([1, 2, 4, 0]), np.array([0, 3, 5, 1])
        pairs = confirmed_pairs(pixels, rows, others, np.array([0.99, 0.95, 0.999, 0.5]))
        assert {(pair.row, pair.other, pair.mirrored) for pair in pairs} == {(1, 0, False), (2, 3, True)}  # fmt: skip

    def test_flat_images_are_no_copies_of_each_other(self) -> None:
        pixels = self.images()
        pixels[0], pixels[1] = 7, 9
        common = np.array([0]), np.array([1]), np.array([0.99])
        assert not [pair for pair in confirmed_pairs(pixels, *common) if pair.exact]

    def test_hash_is_blind_to_brightness(self) -> None:
        grey = self.images().mean(axis=3).astype(np.float32)
        first, second = difference_hash(grey), difference_hash(grey * 0.5 + 30)
        assert first.shape == (6, 64) and np.array_equal(first, second)
        assert np.sum(first[0] != first[1]) > 10


class TestSuspects:
    """The table that a person edits, and `onepass data relabel` takes."""

    def test_what_is_planted_stands_in_the_table_and_is_corrected_by_it(self, home: Path) -> None:
        _, truth = planted()
        written = inspect_dataset(config(home)).suspects
        assert written.sheet is not None and written.sheet.read_bytes()[1:4] == b"PNG"
        store = home / "store"
        dataset = open_dataset(store, NAME)
        with written.table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == written.count and list(rows[0]) == list(HEADER)
        likely, possible = rows[: written.likely], rows[written.likely :]
        assert {int(row["row"]) for row in likely} >= set(truth)
        assert [row["why"].startswith("possibly: ") for row in rows] == [False] * len(likely) + [True] * len(possible)  # fmt: skip
        by_row = {int(row["row"]): row for row in rows}
        assert all(by_row[row]["suggested"] == f"digit {label}" for row, label in truth.items())
        assert all(row["file"] == dataset.names[int(row["row"])] for row in rows)
        assert "looks like digit" in by_row[WRONG[0]]["why"]
        for part in (likely, possible):
            scores = [float(row["score"]) for row in part]
            assert scores == sorted(scores) and part
        # as it was written it changes nothing
        flags = {"name": NAME, "cache_dir": store}
        assert not relabel(RelabelConfig(labels=written.table, **flags)).changed
        for row in truth:
            by_row[row]["label"] = by_row[row]["suggested"]
        edited = home / "edited.csv"
        with edited.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, HEADER, delimiter=";")
            table.writeheader()
            table.writerows(rows)
        manifest = manifest_path(store, NAME)
        before = manifest.read_bytes()
        try:
            assert relabel(RelabelConfig(labels=edited, **flags)).changed
            corrected = open_dataset(store, NAME)
            assert all(corrected.labels[row] == label for row, label in truth.items())
            others = np.setdiff1d(np.arange(len(dataset.names)), list(truth))
            assert np.array_equal(corrected.labels[others], dataset.labels[others])
        finally:
            manifest.write_bytes(before)  # for the other tests

    def test_a_table_that_was_edited_is_kept(self, home: Path) -> None:
        written = inspect_dataset(config(home)).suspects
        assert inspect_dataset(config(home)).suspects.previous is None
        written.table.write_bytes(written.table.read_bytes() + b"more\r\n")
        again = inspect_dataset(config(home)).suspects
        assert again.previous is not None and again.previous.read_bytes().endswith(b"more\r\n")

    def test_one_image_under_two_labels_is_suspected_twice(self, tmp_path: Path) -> None:
        data = digits()
        pixels, labels = data.pixels.copy(), data.labels.copy()
        pixels[9], labels[9] = pixels[4], (labels[4] + 1) % 10
        dataset = write_dataset(tmp_path / "store", Digits(pixels, labels, data.split))
        written = write_suspects(tmp_path, dataset, [])
        with written.table.open(encoding="utf-8-sig", newline="") as file:
            rows = {int(row["row"]): row for row in csv.DictReader(file)}
        assert set(rows) == {4, 9} and rows[4]["label"] == rows[9]["suggested"]
        assert f"the same image as {dataset.names[9]}" in rows[4]["why"]

    def test_nothing_suspected_is_a_table_without_rows(self, tmp_path: Path) -> None:
        dataset = write_dataset(tmp_path / "store", digits())
        (tmp_path / "suspects.png").write_bytes(b"of before")
        written = write_suspects(tmp_path, dataset, [])
        assert (written.count, written.sheet) == (0, None)
        assert written.table.read_text("utf-8-sig").splitlines() == [",".join(HEADER)]
        assert not (tmp_path / "suspects.png").exists()

    def test_excluded_images_are_no_duplicates_and_no_outliers(self, home: Path) -> None:
        store = home / "store"
        manifest = manifest_path(store, NAME)
        before, runs = manifest.read_bytes(), home / "other-runs"
        named = home / "out.csv"
        dataset = open_dataset(store, NAME)
        rows = [dataset.names[row] for row in (1400, NOISE_ROW)]
        named.write_text("file,label\n" + "".join(f"{name},excluded\n" for name in rows))
        try:
            relabel(RelabelConfig(name=NAME, labels=named, cache_dir=store))
            flags = {"dataset": NAME, "cache_dir": store, "runs_dir": runs}
            run_probes(ClassifyConfig(head=("ridge",), **flags))
            found = inspect_dataset(InspectConfig(**flags)).found
        finally:
            manifest.write_bytes(before)
        assert not {one.row for one in found.outliers} & {1400, NOISE_ROW}
        assert not {pair.row for pair in found.duplicates.pairs} & {1400, NOISE_ROW}

    def test_the_whole_loop_builds_no_backbone(self, home: Path, tmp_path: Path) -> None:
        """Found by inspect, corrected by relabel, trained again: without the libraries that backbones need."""
        shutil.copytree(home, tmp_path / "home")
        places = [
            "--cache-dir",
            str(tmp_path / "home/store"),
            "--runs-dir",
            str(tmp_path / "home/runs"),
        ]
        code = (
            "import csv, sys\n"
            "from importlib import import_module\n"
            "from onepass.cache.commandline.command import main\n"
            "def run(room, *words): assert main(room, import_module(f'onepass.{room}.__main__').COMMANDS, list(words)) == 0\n"
            "name, table, store, runs = sys.argv[1], sys.argv[2], sys.argv[3:5], sys.argv[5:]\n"
            "run('classify', 'inspect', '--dataset', name, *store, *runs)\n"
            "rows = list(csv.DictReader(open(table, encoding='utf-8-sig', newline='')))\n"
            "with open(table, 'w', encoding='utf-8', newline='') as file:\n"
            "    out = csv.DictWriter(file, rows[0]); out.writeheader()\n"
            "    out.writerows({**row, 'label': row['suggested']} for row in rows)\n"
            "run('data', 'relabel', name, '--labels', table, *store)\n"
            "run('classify', '--dataset', name, '--head', 'ridge', *store, *runs)\n"
            "assert not {'tensorflow', 'keras', 'jax', 'torch'} & set(sys.modules)\n"
        )
        table = tmp_path / "home/runs" / NAME / "suspects.csv"
        done = subprocess.run(
            [sys.executable, "-c", code, NAME, table, *places],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "no image decoded, no vector computed" in done.stdout


@pytest.mark.parametrize("letter", "→…ßéжΩş")
def test_a_contact_sheet_has_the_letters_of_class_names(letter: str) -> None:
    font = contact_sheet._font()
    assert bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))  # a box: there is none


def test_a_long_line_of_a_contact_sheet_keeps_both_ends() -> None:
    font = contact_sheet._font()
    name = "front-door-2026-11-27-" + "x" * 5000 + "-0123.jpg"
    shown = contact_sheet._fitting(name, font)
    start, end = shown.split("…")
    assert name.startswith(start) and name.endswith(end) and len(start) > 5 and "0123.jpg" in end
    assert contact_sheet.THUMB - 20 < font.getlength(shown) <= contact_sheet.THUMB
    assert contact_sheet._fitting(" cat \n 98 %", font) == "cat 98 %"
