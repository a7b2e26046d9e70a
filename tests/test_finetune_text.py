"""What `onepass finetune` says at its end: a drop is a drop, and the better model is the next one."""

from dataclasses import replace
from pathlib import Path

import pytest

from onepass.classify.text import gain_words
from onepass.finetune.recipes import RECIPES
from onepass.finetune.session.history import EpochRow, SelectionScore, best_first, why_ended
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.text import train_text

ROW = EpochRow(1, 1.0, 0.75, 1.0, selection_loss=0.5, selection_accuracy=0.9)
RESULT = FinetuneResult(
    "birds/a", Path("a"), "tiny@32 + ridge", None, (ROW,), "", probe_top1=0.9, val_top1=0.95,
    val_interval=(0.9, 1.0), p_value=0.3, settings=RECIPES["default"], kept="best epoch, 1",
    kept_epochs=(1,), probe="ridge-1",
)  # fmt: skip


@pytest.mark.parametrize(
    ("gain", "p", "words"),
    [
        (-0.108, 0.2, "10.8 points worse than its probe; too few images to call it significant"),
        (-0.108, 0.001, "10.8 points worse than its probe, a significant difference"),
        (0.01, 0.2, "1.0 points better than its probe; too few images to call it significant"),
        (-0.0001, 1.0, "as good as its probe"),
    ],
)
def test_a_drop_is_called_a_drop(gain: float, p: float, words: str) -> None:
    assert gain_words(gain, p) == words
    text = train_text(replace(RESULT, val_top1=0.9 + gain, p_value=p))
    assert f"the frozen probe had 90.0 %: {words} (McNemar's test, p = " in text


@pytest.mark.parametrize(
    ("changes", "command"),
    [
        ({}, "onepass predict birds --split val"),
        ({"test_rows": 9}, "onepass predict birds --split test"),
        (
            {"settings": replace(RECIPES["default"], epochs=0), "kept_epochs": (0,), "history": ()},
            "onepass predict export birds/a",
        ),
    ],
)
def test_the_model_to_use_is_the_next(changes: dict, command: str) -> None:
    lines = train_text(replace(RESULT, **changes)).splitlines()
    assert lines[-2:] == [f"Next: {command}", "      onepass report --dataset birds"]


def test_a_result_of_format_1_opens(tmp_path: Path) -> None:
    from onepass.cache.artifacts import to_json
    from onepass.cache.files import write_json

    later = ("probe", "start_selection", "test_rows", "from_run")
    value = {name: field for name, field in to_json(RESULT).items() if name not in later}
    write_json(tmp_path / "result.json", {"format": 1, **value})
    assert FinetuneResult.read(tmp_path / "result.json") == replace(RESULT, probe="")


def test_the_start_is_a_candidate_like_any_epoch() -> None:
    rows = [ROW, replace(ROW, epoch=2, selection_accuracy=0.8)]
    assert [*best_first(rows)] == [1, 2]
    assert [*best_first(rows, SelectionScore(0.95, 2.0))] == [0, 1, 2]
    assert [*best_first(rows, SelectionScore(0.9, 0.5))] == [0, 1, 2]  # of equal ones the earlier
    assert [*best_first(rows, SelectionScore(0.9, 0.6))] == [1, 0, 2]
    by_metric = [replace(ROW, selection_merit=0.2), replace(ROW, epoch=2, selection_merit=0.3)]
    assert [*best_first(by_metric, SelectionScore(1.0, 0.0, 0.25))] == [2, 0, 1]
    assert why_ended(rows, 9, 2) == ""
    assert "early stopping" in why_ended(rows, 9, 2, SelectionScore(0.95, 2.0))


def test_the_page_draws_the_start_as_epoch_0() -> None:
    from onepass.cache.made_by import MadeBy
    from onepass.finetune.session.run_identity import RunConfig, RunIdentity
    from onepass.finetune.session.runs import Run
    from onepass.report.figures.learning import learning_figures

    result = replace(RESULT, start_selection=SelectionScore(0.875, 0.25))
    identity = RunIdentity("d", "0", "p", {}, RECIPES["default"], "all", True, 0, "imagenet", 0)
    config = RunConfig(identity, MadeBy.now())
    accuracy, loss = learning_figures([Run(Path("a"), config, result)])
    assert ("a", "selection", 0, 87.5) in accuracy.rows and ("a", "selection", 0, 0.25) in loss.rows
