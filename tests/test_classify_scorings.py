"""The record of every look at the reported rows."""

import json
import os
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
    }  # fmt: skip


def test_a_whole_line_that_is_no_scoring_is_an_error(tmp_path: Path) -> None:
    note(tmp_path)
    with scorings_path(tmp_path).open("a") as file:
        file.write('{"probe": "p"}\n')
    with pytest.raises(CorruptFileError, match=r"scorings.jsonl: line 2: .*model: missing"):
        read_scorings(tmp_path, "dd")


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_torn_line_costs_itself_only(tmp_path: Path, kept: int) -> None:
    note(tmp_path, "a")
    whole = scorings_path(tmp_path).read_bytes()
    scorings_path(tmp_path).write_bytes(whole + whole[:kept])  # every way a power cut may leave it
    note(tmp_path, "b")
    models = [line.model for line in read_scorings(tmp_path, "dd")]
    assert models == (["a", "a", "b"] if kept == -1 else ["a", "b"])
    assert all(json.loads(t) for t in scorings_path(tmp_path).read_text().splitlines() if t[-1] == "}")  # fmt: skip


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
