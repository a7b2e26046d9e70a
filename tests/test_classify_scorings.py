"""The record of every scoring of the validation split."""

import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features

from onepass.cache.errors import CorruptFileError
from onepass.classify.config import ClassifyConfig
from onepass.classify.leaderboard import records
from onepass.classify.pipeline import run_probes
from onepass.classify.protocol.scorings import (
    Scoring,
    Scorings,
    count_scorings,
    number_of_model,
    read_scorings,
    record_scoring,
    scorings_path,
)
from onepass.classify.text import classify_text
from onepass.predict.config import PredictConfig
from onepass.predict.split import predict_split


def note(folder: Path, model: str = "m", **other: Any) -> None:
    fields: dict[str, Any] = {
        "probe": "p", "model": model, "features": "toy@8", "inputs": "ff", "head": "ridge",
        "dataset_digest": "dd", "seed": 0, "accuracy": 0.5,
    }  # fmt: skip
    record_scoring(folder, Scoring(**{**fields, **other}))


def test_lines_are_added_and_never_changed(tmp_path: Path) -> None:
    note(tmp_path / "deep")
    first = scorings_path(tmp_path / "deep").read_bytes()
    note(tmp_path / "deep", "n", accuracy=0.6)
    assert scorings_path(tmp_path / "deep").read_bytes().startswith(first)
    lines = read_scorings(tmp_path / "deep", "dd")
    assert [line.accuracy for line in lines] == [0.5, 0.6]
    assert lines[0].time[:2] == "20"
    assert set(json.loads(first)) == {
        "time", "probe", "model", "features", "inputs", "head", "dataset_digest", "seed", "accuracy", "command",
        "chain",
    }  # fmt: skip


def without_chain(content: bytes) -> bytes:
    """Return the lines as they were written before there was a chain."""
    values = [json.loads(line) for line in content.splitlines()]
    return b"".join(json.dumps({k: v for k, v in value.items() if k != "chain"}).encode() + b"\n" for value in values)  # fmt: skip


@pytest.mark.parametrize("ending", [b'{"probe": "p"}\n', b"[]\n", b"7\n", b'{"probe"\n'])
def test_a_line_that_is_no_scoring_is_an_error(tmp_path: Path, ending: bytes) -> None:
    note(tmp_path)
    old = without_chain(scorings_path(tmp_path).read_bytes())
    for before in (scorings_path(tmp_path).read_bytes(), old):
        scorings_path(tmp_path).write_bytes(before + ending)
        with pytest.raises(CorruptFileError, match=r"scorings.jsonl: line 2: .*put back a copy"):
            read_scorings(tmp_path, "dd")
        with pytest.raises(CorruptFileError, match="line 2"):
            note(tmp_path)
        assert scorings_path(tmp_path).read_bytes() == before + ending


@pytest.mark.parametrize("old", [0, 1, 2])
@pytest.mark.parametrize("kept", [0, 1, 20, -2, -1])
def test_a_torn_line_costs_itself_only(tmp_path: Path, kept: int, old: int) -> None:
    """Every way a power cut may leave the last line, behind lines of today or of before the chain."""
    path = scorings_path(tmp_path)
    for model in "ab"[:old]:
        note(tmp_path, model)
    if old:
        path.write_bytes(without_chain(path.read_bytes()))
    for model in "abc"[old:]:
        note(tmp_path, model)
    content = path.read_bytes()
    last = content.splitlines(keepends=True)[-1]
    path.write_bytes(content[: -len(last)] + last[:kept])
    whole = ["a", "b", "c"] if kept == -1 else ["a", "b"]  # only its end of line is gone
    assert [line.model for line in read_scorings(tmp_path, "dd")] == whole
    for model in "de":
        note(tmp_path, model)
    assert [line.model for line in read_scorings(tmp_path, "dd")] == [*whole, "d", "e"]


def test_a_flipped_bit_or_a_lost_line_is_an_error(tmp_path: Path) -> None:
    path = scorings_path(tmp_path)
    for number in range(4):
        note(tmp_path, f"m{number}", accuracy=number / 7)
    content, lines = path.read_bytes(), read_scorings(tmp_path, "dd")
    places = random.Random(0).sample(range(8 * len(content)), 400)
    ends = [8 * i + bit for i, byte in enumerate(content) if byte == 10 for bit in range(8)]
    for place in [*places, *ends]:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        try:
            assert read_scorings(tmp_path, "dd") == lines, (
                f"bit {place} changed the record silently"
            )
        except CorruptFileError as error:
            assert "scorings.jsonl: line " in str(error)
    one, two, three, four = content.splitlines(keepends=True)
    for wrong in (two + three + four, one + three + four, one + two + four, one + three + two + four,
                  one + one + two + three, without_chain(one) + two, one + without_chain(two)):  # fmt: skip
        path.write_bytes(wrong)
        with pytest.raises(CorruptFileError, match="not those that were written"):
            read_scorings(tmp_path, "dd")


def test_lines_of_two_processes_at_once_are_one_chain(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as threads:  # a lock of the system, each with a file of its own
        list(threads.map(lambda number: note(tmp_path, f"m{number}"), range(40)))
    assert sorted(s.model for s in read_scorings(tmp_path, "dd")) == sorted(
        f"m{n}" for n in range(40)
    )


def test_brackets_without_end_are_an_error_of_the_line(tmp_path: Path) -> None:
    note(tmp_path, "a\u2028b")  # Unicode calls this a new line too; the record does not
    assert [line.model for line in read_scorings(tmp_path, "dd")] == ["a\u2028b"]
    with scorings_path(tmp_path).open("a") as file:
        file.write("[" * 100_000 + "\n")
    with pytest.raises(CorruptFileError, match=r"scorings\.jsonl: line 2"):
        read_scorings(tmp_path, "dd")


def test_a_line_is_one_synced_write(tmp_path: Path, monkeypatch) -> None:
    calls: list[str] = []
    for name in ("write", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])  # fmt: skip
    note(tmp_path)
    assert calls[:2] == ["write", "fsync"] and calls.count("write") == 1


def test_models_are_numbered_by_features_and_head(tmp_path: Path) -> None:
    def number(model: str, features: str = "toy@8", head: str = "ridge", digest: str = "dd") -> int:
        return number_of_model(tmp_path, digest, features, head, model)

    assert number("a") == 1
    note(tmp_path, "a")
    note(tmp_path, "a")  # the same model again: a look, but no new one
    note(tmp_path, "b")
    note(tmp_path, "c", features="other@8")
    assert (number("a"), number("b"), number("new")) == (1, 2, 3)
    assert number("new", features="other@8") == 2 and number("new", head="dense") == 1
    assert number("new", digest="changed") == 1
    assert count_scorings(tmp_path, "dd") == Scorings(4, 3)
    assert count_scorings(tmp_path, "changed") == Scorings(0, 0)


class TestThroughTheCommands:
    @pytest.fixture
    def folders(self, tmp_path: Path) -> dict[str, Path]:
        data = digits()
        write_features(tmp_path / "store", write_dataset(tmp_path / "store", data), data.X)
        return {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}

    def run(self, folders: dict[str, Path], **other: Any) -> Any:
        return run_probes(ClassifyConfig(**{"dataset": NAME, "head": ("ridge",), **folders, **other}))  # fmt: skip

    def test_a_changed_model_is_counted_even_after_a_fresh_start(self, folders) -> None:
        first = self.run(folders)
        assert (first.scorings, first.results[0].scoring) == (Scorings(3, 3), 1)
        assert "validation split has been scored 3 times, for 3 models" in classify_text(first)
        assert self.run(folders).scorings == Scorings(3, 3)  # nothing was scored
        again = self.run(folders, fresh=True)
        assert (again.scorings, again.results[0].scoring) == (Scorings(6, 3), 1)
        changed = self.run(folders, fresh=True, seed=1)
        assert changed.scorings.times == 9 and changed.scorings.models > 3
        text = classify_text(changed)
        assert changed.results[0].scoring == 2 and " ×2" in text
        assert "the Nth model of that head on these features" in text

    def test_predicting_the_reported_rows_is_a_look_at_them(self, folders, tmp_path) -> None:
        found = self.run(folders)
        for split in ("val", "test"):
            predict_split(PredictConfig(models=(NAME,), split=split, out=tmp_path / "o", **folders))
        lines = read_scorings(folders["runs_dir"] / NAME, found.results[0].dataset_digest)
        assert len(lines) == 4 and lines[-1].probe == found.winner
        assert lines[-1].accuracy == pytest.approx(found.results[0].val_top1)
        assert count_scorings(folders["runs_dir"] / NAME, lines[0].dataset_digest).models == 3

    def test_it_is_on_record_before_it_is_on_the_leaderboard(self, folders, monkeypatch) -> None:
        """A run that is killed between the two has looked all the same."""
        with monkeypatch.context() as patch:

            def end(*_: Any) -> None:
                raise KeyboardInterrupt

            patch.setattr(records.Leaderboard, "save", end)
            with pytest.raises(KeyboardInterrupt):
                self.run(folders)
        found = self.run(folders)
        assert found.scorings == Scorings(4, 3)  # the first probe twice, the same model
        assert np.all([r.scoring == 1 for r in (*found.results, *found.baselines)])
