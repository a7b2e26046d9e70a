"""`onepass classify` from stored rows to the leaderboard, and every input it refuses."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from classify_store import NAME, digits, rare_digits, write_dataset, write_features
from sklearn.metrics import average_precision_score

from conftest import ROOT
from onepass.cache.errors import UnknownNameError
from onepass.cache.features import FeatureKey
from onepass.cache.locks import exclusive
from onepass.classify.__main__ import COMMANDS
from onepass.classify.baselines import pixel_plan
from onepass.classify.config import ClassifyConfig, SweepConfig
from onepass.classify.heads.storage import load_head
from onepass.classify.leaderboard import records
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.metrics import apply_temperature
from onepass.classify.pipeline import ClassifyResult, run_probes
from onepass.classify.protocol.evaluate import protocol_rows
from onepass.classify.protocol.pixels import area_weights, pixel_features
from onepass.classify.search.sweep import run_sweeps
from onepass.classify.text import classify_text
from onepass.data.dataset import ImageDataset

CLASSICAL = ("ridge", "logistic")


@pytest.fixture
def dataset(tmp_path: Path) -> ImageDataset:
    """Digits, and their pixels as features."""
    data = digits()
    record = {
        "published": [{"method": "a paper", "accuracy": 97.2, "source": "X 2019"}],
        "notes": ["n"],
    }
    made = write_dataset(tmp_path / "store", data, record=record)
    write_features(tmp_path / "store", made, data.X)
    return made


def config(folder: Path, **other: Any) -> ClassifyConfig:
    fields = {"dataset": NAME, "head": CLASSICAL, "cache_dir": folder / "store"}
    return ClassifyConfig(**{**fields, "runs_dir": folder / "runs", **other})


def sweep_config(folder: Path) -> SweepConfig:
    return SweepConfig(
        dataset=NAME, cache_dir=folder / "store", runs_dir=folder / "runs", metric="log-loss",
        penalty=("0",), dropout=(0.4,), seeds=(0,), epochs=3, keep=1,
    )  # fmt: skip


def command(folder: Path, *words: str) -> list[str]:
    folders = ["--cache-dir", str(folder / "store"), "--runs-dir", str(folder / "runs")]
    return ["--dataset", NAME, "--head", *CLASSICAL, *folders, *words]


def refusal(folder: Path, capsys, *words: str, code: int = 1) -> str:
    """Run the command, which must fail with one line on standard error; return the line."""
    from onepass.cache.commandline.command import main

    capsys.readouterr()
    assert main("classify", COMMANDS, command(folder, *words)) == code
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1, (out, err)
    return err


def left(folder: Path) -> list[str]:
    """Every file under runs."""
    return sorted(str(p.relative_to(folder)) for p in (folder / "runs").rglob("*") if p.is_file())


class TestLeaderboard:
    def test_probes_beat_the_floor_and_leave_everything(self, tmp_path: Path, dataset) -> None:
        found = run_probes(config(tmp_path))
        assert [r.head for r in found.results] == ["logistic", "ridge"]
        assert [r.head for r in found.baselines] == ["logistic", "majority"]
        best, majority = found.results[0], found.baselines[-1]
        assert best.val_top1 > 0.93 and majority.val_top1 < 0.2
        assert best.val_interval[0] < best.val_top1 < best.val_interval[1]
        assert best.val_top1 < best.val_top5 <= 1
        assert best.keys[0].backbone == "toy" and best.features == ("toy@8",)
        assert len(best.trials) >= 3 and best.params in [trial.params for trial in best.trials]
        assert found.winner == best.id
        board = Leaderboard.load(tmp_path / "runs" / NAME, NAME, dataset.digest)
        assert board.ranked == found.results
        self.check_stored_probe(board, dataset)
        assert found.comparison.first == best.id and found.comparison.rows == len(dataset.rows("val"))  # fmt: skip

    def check_stored_probe(self, board: Leaderboard, dataset: ImageDataset) -> None:
        """Head, probabilities and figures of the winner agree with each other."""
        best, data = board.winner, digits()
        folder = board.head_folder(best)
        head, kept = load_head(folder), load_probabilities(folder, best.rows)
        val = dataset.rows("val")
        predicted = head.predict(data.X[val])
        np.testing.assert_array_equal(kept.val_predicted, predicted)
        assert np.mean(predicted == data.labels[val]) == pytest.approx(best.val_top1)
        raw = head.predict_proba(data.X[dataset.rows("test")])
        probabilities = apply_temperature(raw, best.temperature)
        np.testing.assert_allclose(kept.test, probabilities, atol=1e-3)
        assert kept.selection.shape == (best.rows.selection, 10)

    def test_what_is_on_the_board_is_not_run_again(self, tmp_path: Path, dataset) -> None:
        first = run_probes(config(tmp_path))
        files = {p: (tmp_path / p).stat().st_mtime_ns for p in left(tmp_path)}
        again = run_probes(config(tmp_path))
        assert (first.ran, again.ran, again.reused) == (4, 0, 4)
        assert again.results == first.results
        assert {p: (tmp_path / p).stat().st_mtime_ns for p in left(tmp_path)} == files
        more = run_probes(config(tmp_path, seed=1, head=("ridge",)))
        assert (
            more.ran == 3 and len(more.results) == 1
        )  # what seed 0 selected is not ranked beside it
        assert more.other_seeds == {0: 2} and {r.seed for r in more.baselines} == {1}
        assert (
            "Not ranked, because they were selected on other rows: probes of seed 0: 2"
            in classify_text(more)
        )
        back = run_probes(config(tmp_path))
        assert (back.ran, back.results, back.other_seeds) == (0, first.results, {1: 1})
        board = Leaderboard.load(tmp_path / "runs" / NAME, NAME, dataset.digest)
        assert (board.seed, board.winner.id) == (0, first.winner)

    def test_a_metric_without_a_value_on_val_is_compared_by_top1(self, tmp_path: Path) -> None:
        data = digits()
        data.split[(data.split == 1) & (data.labels == 3)] = 0  # no 3 is validated on
        write_features(tmp_path / "store", write_dataset(tmp_path / "store", data), data.X)
        found = run_probes(config(tmp_path, metric="average-precision", positive="digit 3"))
        assert found.difference is None and "nan" not in classify_text(found)

    def test_another_metric_chooses_and_ranks(self, tmp_path: Path) -> None:
        data = rare_digits()
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        first = run_probes(config(tmp_path))
        found = run_probes(config(tmp_path, metric="average-precision"))
        assert (found.ran, found.other_metrics) == (4, {"top1": 2})
        assert "chosen by another metric: probes by top1: 2." in classify_text(found)
        text = classify_text(found)
        assert "selection average precision" in text and "val average precision (95 %)" in text
        assert f"average precision {found.difference.first:.3f} against" in text
        assert "Classes are uneven: always the largest class is right on 94.6 % of val" in text
        assert found.majority.second.startswith("majority-")
        assert found.results[0].scores["average-precision"].value == pytest.approx(
            found.difference.first, abs=0.01
        )
        board = Leaderboard.load(tmp_path / "runs" / NAME, NAME, made.digest)
        assert (board.metric, board.positive) == ("average-precision", "n00")  # the rarer class
        values = [probe.value for probe in found.results]
        assert values == sorted(values, reverse=True) and board.winner.id == found.winner
        rows = protocol_rows(made, 0)
        for probe in found.results:
            kept = load_probabilities(board.head_folder(probe), probe.rows)
            expected = average_precision_score(
                made.labels[rows.selection] == 0, kept.selection[:, 0]
            )
            assert probe.value == pytest.approx(expected, abs=0.01)  # kept in half precision
        again = run_probes(config(tmp_path, positive="n01"))
        assert (again.ran, again.results) == (0, first.results)  # top-1 is of no class
        other = run_probes(config(tmp_path, metric="average-precision", positive="n01"))
        assert other.ran == 4 and {probe.positive for probe in other.results} == {"n01"}
        swept = run_sweeps(sweep_config(tmp_path))
        assert swept.probes[0].metric == "log-loss"
        assert swept.probes[0].value == swept.probes[0].selection_log_loss
        losses = [head.best.log_loss for head in swept.sweeps[0].heads]
        assert swept.sweeps[0].best.best.log_loss == min(losses)

    def test_the_positive_class_has_to_be_there(self, tmp_path: Path, dataset) -> None:
        with pytest.raises(UnknownNameError, match="is unknown; did you mean"):
            run_probes(config(tmp_path, positive="n1"))

    def test_the_same_run_gives_the_same_numbers(self, tmp_path: Path, dataset) -> None:
        first = run_probes(config(tmp_path))
        again = run_probes(config(tmp_path, runs_dir=tmp_path / "elsewhere"))
        for one, other in zip(first.results, again.results, strict=True):
            assert (one.id, one.trials, one.val_top1, one.val_interval) == (other.id, other.trials, other.val_top1, other.val_interval)  # fmt: skip

    def test_damaged_files_of_a_probe_are_made_again(self, tmp_path: Path, dataset, said) -> None:
        first = run_probes(config(tmp_path))
        folder = tmp_path / "runs" / NAME / "heads" / first.winner
        (folder / "probabilities.npz").write_bytes(b"half")
        again = run_probes(config(tmp_path))
        assert (again.ran, again.reused) == (1, 3)
        assert "it is run again" in said.text
        load_probabilities(folder, again.results[0].rows)

    def test_an_interrupted_run_goes_on(self, tmp_path: Path, dataset, monkeypatch) -> None:
        with monkeypatch.context() as patch:

            def interrupt(*_: Any) -> None:
                raise KeyboardInterrupt

            save, saved = records.save_outcome, []
            patch.setattr(
                records, "save_outcome",
                lambda *a: (saved.append(1), save(*a)) if len(saved) < 3 else interrupt(),
            )  # fmt: skip
            with pytest.raises(KeyboardInterrupt):
                run_probes(config(tmp_path))
        found = run_probes(config(tmp_path))
        assert (found.ran, found.reused) == (1, 3)

    def test_fresh_starts_anew(self, tmp_path: Path, dataset) -> None:
        run_probes(config(tmp_path, seed=1))
        other = tmp_path / "runs" / NAME / "finetune" / "kept.txt"
        other.parent.mkdir()
        other.write_text("x")
        found = run_probes(config(tmp_path, fresh=True, head=("ridge",)))
        assert len(found.results) == 1 and found.ran == 3 and other.exists()
        assert len(list((tmp_path / "runs" / NAME / "heads").iterdir())) == 3

    def test_features_side_by_side(self, tmp_path: Path, dataset) -> None:
        data = digits()
        write_features(tmp_path / "store", dataset, data.X[:, :32].copy(), "left")
        write_features(tmp_path / "store", dataset, data.X[:, 32:].copy(), "right")
        found = run_probes(config(tmp_path, features=("left@8,right@8", "left@8"), head=("ridge",)))
        joined, alone = found.results
        assert joined.features == ("left@8", "right@8") and alone.features == ("left@8",)
        assert joined.val_top1 > alone.val_top1
        assert "left@8 & right@8" in classify_text(found)

    def test_two_classes_have_no_top_five(self, tmp_path: Path) -> None:
        data = digits(2)
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        found = run_probes(config(tmp_path))
        assert all(r.val_top5 is None for r in found.results) and found.results[0].val_top1 > 0.95

    def test_reported_rows_do_not_choose_among_features(self, tmp_path: Path, dataset) -> None:
        data = digits()
        generator = np.random.default_rng(3)
        leak = generator.normal(size=(len(data.labels), 10))
        val = dataset.rows("val")
        leak[val] += 20 * np.eye(10)[data.labels[val]]
        weak = data.X[:, :24].astype(np.float64)
        X = np.concatenate([weak, leak], axis=1).astype(np.float16)
        write_features(tmp_path / "store", dataset, X, "leaky")
        found = run_probes(config(tmp_path))
        assert found.results[0].features == ("toy@8",)


class TestText:
    def test_table_says_all_a_reader_needs(self, tmp_path: Path, dataset) -> None:
        found = run_probes(config(tmp_path))
        text = classify_text(found)
        for words in (
            "toy@8", "logistic", "majority", "baseline", "McNemar", "97.2 % a paper (X 2019)", "Protocol:",
            "Note: n", "leaderboard.json", "onepass finetune --dataset digits-test",
            "onepass predict digits-test --split test",
        ):  # fmt: skip
            assert words in text, words
        best = found.results[0]
        assert (
            f"{100 * best.val_top1:.1f} %" in text and f"{100 * best.val_interval[0]:.1f}" in text
        )

    def test_a_small_difference_is_not_said_to_be_significant(self, tmp_path: Path) -> None:
        data = digits(2)
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        assert "no significant difference" in classify_text(run_probes(config(tmp_path)))

    def test_one_probe_is_compared_with_the_floor(self, tmp_path: Path, dataset) -> None:
        found = run_probes(config(tmp_path, head=("ridge",)))
        assert found.comparison.second == found.baselines[0].id
        assert "pixels@32 logistic" in classify_text(found)


class TestCommand:
    def test_json_is_one_object_and_nothing_else(self, tmp_path: Path, dataset) -> None:
        run = processes.run("classify", *command(tmp_path), "--json")
        assert run.returncode == 0, run.stderr
        value = json.loads(run.stdout)
        assert value["winner"] == value["results"][0]["id"] and value["ran"] == 4
        assert set(value) == set(ClassifyResult.__dataclass_fields__)
        assert "selection" in run.stderr

    def test_classical_heads_never_load_keras(self, tmp_path: Path, dataset) -> None:
        argv = ["classify", *command(tmp_path)]
        code = (
            f"import sys, runpy; sys.argv = {argv!r}\n"
            "try: runpy.run_module('classify', run_name='__main__')\n"
            "except SystemExit as end: print('EXIT', end.code)\n"
            "print('LOADED', [m for m in ('tensorflow', 'keras', 'jax', 'torch') if m in sys.modules])"
        )
        run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert run.stdout.splitlines()[-2:] == ["EXIT 0", "LOADED []"], run.stdout + run.stderr

    @pytest.mark.slow
    def test_dense_runs_through_the_command(self, tmp_path: Path, dataset) -> None:
        found = run_probes(config(tmp_path, head=("dense",), seed=2))
        (best,) = found.results
        assert best.head == "dense" and best.val_top1 > 0.9 and best.params["epochs"] >= 1
        assert load_head(tmp_path / "runs" / NAME / "heads" / best.id).seed == 2


class TestRefusals:
    def test_unknown_data_set(self, tmp_path: Path, capsys) -> None:
        assert "onepass data list" in refusal(tmp_path, capsys)

    def test_no_features(self, tmp_path: Path, capsys) -> None:
        write_dataset(tmp_path / "store", digits())
        assert "onepass extract --dataset digits-test" in refusal(tmp_path, capsys)
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (["--head", "logistik"], "did you mean logistic"),
            (["--features", "toi@8"], "did you mean toy@8"),
            (["--features", ","], "received an empty one"),
            (["--seed", "-1"], "expected a whole number"),
        ],
    )
    def test_unknown_words(self, tmp_path: Path, dataset, capsys, words, says) -> None:
        code = 2 if says.startswith(("received", "expected")) else 1
        assert says in refusal(tmp_path, capsys, *words, code=code)
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_vectors_that_are_no_numbers(self, tmp_path: Path, dataset, capsys, bad) -> None:
        X = digits().X
        X[[7, 1300], 3] = bad
        write_features(tmp_path / "store", dataset, X)
        line = refusal(tmp_path, capsys)
        assert "row 7 (train_7.png) holds NaN or Inf, as do 1 other rows" in line
        assert not (tmp_path / "runs").exists()

    def test_one_class_only(self, tmp_path: Path, capsys) -> None:
        data = digits(2)
        data.labels[:] = 0
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        assert "one class only" in refusal(tmp_path, capsys)

    def test_class_without_training_images(self, tmp_path: Path, capsys) -> None:
        data = digits()
        data.split[(data.labels == 3) & (data.split == 0)] = 1
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        assert "class n03: expected at least two training images" in refusal(tmp_path, capsys)
        assert not (tmp_path / "runs").exists()

    def test_class_with_one_training_image(self, tmp_path: Path, capsys) -> None:
        data = digits()
        data.split[np.flatnonzero((data.labels == 3) & (data.split == 0))[1:]] = 1
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        line = refusal(tmp_path, capsys)
        assert "class n03: expected at least two training images" in line and "received one" in line
        assert not (tmp_path / "runs").exists()

    def test_fewer_rows_than_classes(self, tmp_path: Path, capsys) -> None:
        data = digits()
        data.split[np.flatnonzero(data.split == 0)[6:]] = 1
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        assert "received none (6 rows for 10 classes); add some" in refusal(tmp_path, capsys)
        assert not (tmp_path / "runs").exists()

    def test_training_rows_without_labels(self, tmp_path: Path, capsys) -> None:
        data = digits()
        data.labels[np.flatnonzero(data.split == 0)[:2]] = -1
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        line = refusal(tmp_path, capsys)
        assert "split 'train': expected labelled rows" in line and "2 of them without" in line
        assert not (tmp_path / "runs").exists()

    def test_features_side_by_side_of_two_data_sets(self, tmp_path: Path, dataset, capsys) -> None:
        store, data = tmp_path / "store", digits()
        data.pixels[0] += 1
        other = write_dataset(store, data, "others")  # as many rows
        key: FeatureKey = write_features(store, other, data.X, "foreign")
        target = store / NAME / "features" / "foreign@8.h5"
        target.write_bytes(key.file(store, "others").read_bytes())
        line = refusal(tmp_path, capsys, "--features", "toy@8,foreign@8")
        assert f"(digest {other.contents[:8]}, now" in line and "onepass extract" in line
        assert not (tmp_path / "runs").exists()

    def test_leaderboard_of_an_older_extraction(self, tmp_path: Path, dataset, capsys) -> None:
        found = run_probes(config(tmp_path, head=("ridge",)))
        before = left(tmp_path)
        write_features(tmp_path / "store", dataset, digits().X[:, ::-1].copy())
        line = refusal(tmp_path, capsys)
        assert f"probe {found.winner} was made from vectors" in line and "--fresh" in line
        assert left(tmp_path) == before
        assert run_probes(config(tmp_path, head=("ridge",), fresh=True)).ran == 3

    def test_reported_rows_without_labels(self, tmp_path: Path, capsys) -> None:
        data = digits()
        data.labels[np.flatnonzero(data.split == 1)] = -1
        made = write_dataset(tmp_path / "store", data)
        write_features(tmp_path / "store", made, data.X)
        assert "split 'val': expected labelled rows" in refusal(tmp_path, capsys)

    def test_features_of_another_data_set(self, tmp_path: Path, dataset, capsys) -> None:
        store, data = tmp_path / "store", digits(3)
        other = write_dataset(store, data, "others")
        key: FeatureKey = write_features(store, other, data.X, "foreign")
        target = store / NAME / "features" / "foreign@8.h5"
        target.write_bytes(key.file(store, "others").read_bytes())
        line = refusal(tmp_path, capsys)
        assert (
            f"of other images than {NAME} has now, or in another order (digest {other.contents[:8]}, "
            f"now {dataset.contents[:8]})" in line
        )

    def test_features_of_other_images(self, tmp_path: Path, dataset, capsys) -> None:
        data = digits()
        data.pixels[0] += 1
        write_dataset(tmp_path / "store", data)
        line = refusal(tmp_path, capsys)
        assert dataset.contents[:8] in line and "--backbone toy --size 8" in line

    def test_damaged_leaderboard(self, tmp_path: Path, dataset, capsys) -> None:
        run_probes(config(tmp_path, head=("ridge",)))
        path = tmp_path / "runs" / NAME / "leaderboard.json"
        path.write_text(path.read_text()[:100])
        assert "leaderboard.json: expected a JSON file" in refusal(tmp_path, capsys)
        assert len(path.read_text()) == 100

    def test_two_at_once(self, tmp_path: Path, dataset, capsys) -> None:
        with exclusive(tmp_path / "runs" / NAME / "leaderboard.json"):
            assert "is writing it now" in refusal(tmp_path, capsys)


class TestPixels:
    @pytest.mark.parametrize(("size", "side"), [(64, 32), (300, 32), (50, 32), (8, 32), (33, 16)])
    def test_each_pixel_is_the_mean_of_its_area(self, size: int, side: int) -> None:
        weights = area_weights(size, side)
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
        fine = np.random.default_rng(0).normal(size=size)
        small = min(size, side)
        exact = np.repeat(fine, small).reshape(small, size).mean(axis=1)  # on the common grid
        np.testing.assert_allclose(weights @ fine, exact, atol=1e-5)

    def test_colour_images(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 48, 3), dtype=np.uint8)
        found = pixel_features(pixels, 16)
        exact = pixels.reshape(5, 16, 4, 16, 3, 3).mean(axis=(2, 4))
        assert found.shape == (5, 16 * 16 * 3) and found.dtype == np.float16
        np.testing.assert_allclose(found.reshape(exact.shape), exact, atol=0.1)

    def test_head_and_side_suit_the_number_of_weights(self) -> None:
        assert pixel_plan((2624, 300, 300, 1), 2) == (32, "logistic")
        assert pixel_plan((60000, 64, 64, 3), 200) == (16, "ridge")
