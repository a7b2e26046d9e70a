"""Every format that a file ever had: today's reader takes it, or the version is said not to be read any more."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from artifact_examples import example, kinds

from conftest import ROOT, fields_of
from onepass.cache.artifacts import Artifact
from onepass.cache.errors import CorruptFileError

KINDS = {kind.__name__: kind for kind in kinds()}
Value = dict[str, Any]


def without(*paths: str) -> Callable[[Value], Value]:
    """Return what takes fields that came later out of a file."""

    def drop(value: Value) -> Value:
        for path in paths:
            *parents, name = path.split(".")
            place = value
            for parent in parents:
                place = place[parent]
            place.pop(name, None)
        return value

    return drop


def apart(value: Value) -> Value:
    """The calibration of format 0, with its errors apart."""
    error = {when: value[when]["error"] for when in ("before", "after")}
    bins = {when: value[when]["bins"] for when in ("before", "after")}
    return {"temperature": value["temperature"], "error": error, **bins}


# How a file of today becomes one of an earlier format; a text names the test that reads real files of it.
EARLIER: dict[tuple[str, int], Callable[[Value], Value] | str] = {
    ("Ablation", 0): "test_finetune_artifacts.py: test_runs_made_before_the_format_had_a_number_still_open",
    ("Calibration", 0): apart,
    ("FigureIndex", 0): lambda value: value["figures"],
    ("FinetuneResult", 0): "test_finetune_artifacts.py: test_runs_made_before_the_format_had_a_number_still_open",
    ("FinetuneResult", 1): "test_finetune_text.py: test_a_result_of_format_1_opens",
    ("FinetuneResult", 2): without("from_run"),
    ("Inspection", 1): lambda value: {**value, "path": "inspection.json"},
    ("Labels", 0): lambda value: value,
    **{
        ("LeaderboardFile", n): "test_classify_leaderboard.py: test_leaderboards_of_earlier_formats_are_still_read"
        for n in range(1, 5)
    },
    ("ModelRecord", 1): without("about.prior", "about.point"),
    ("ModelRecord", 2): without("about.prior"),
    ("OperatingPoint", 1): without("prior_odds"),
    ("PredictionRecord", 0): "test_predict_average.py: test_a_record_of_the_format_before_is_read",
    ("PredictionRecord", 1): without("point", "prior", "selection_top1", "selection_interval"),
    ("PredictionRecord", 2): without("prior", "selection_top1", "selection_interval"),
    ("PredictionRecord", 3): lambda value: {**value, "members": [without("temperature")(m) for m in value["members"]]},
    ("RunConfig", 0): "test_finetune_artifacts.py: test_runs_made_before_the_format_had_a_number_still_open",
    ("RunConfig", 1): without("contents", "class_ids", "found"),
    ("RunConfig", 2): without("contents", "class_ids"),
    ("RunConfig", 3): "test_finetune_class_weight.py: test_it_belongs_to_what_a_run_is_and_runs_from_before_stay_what_they_are",
    ("RunConfig", 4): without("identity.from_run", "identity.from_weights"),
    ("RunErrors", 0): lambda value: value,
    ("ShortRun", 0): lambda value: value,
    ("SweepRecord", 1): without("views"),
    ("Transferability", 1): lambda value: {**value, "path": "transferability.json", "ran": 4},
}  # fmt: skip
# Files of work that was not finished: of an earlier format they are begun anew.
BEGUN_ANEW = {"RowFilePlan", "SweepState"}
BEFORE_ITS_NUMBER = {
    "EarlierPlan"
}  # the reader of the store of format 1, which `cache migrate` uses
FIRST = {  # the first format of a kind that did not begin with 1
    kind for kind, number in EARLIER if number == 0
}


def test_every_earlier_format_of_every_kind_has_a_reader_test() -> None:
    expected = {
        (name, number)
        for name, kind in KINDS.items()
        if name not in BEGUN_ANEW | BEFORE_ITS_NUMBER
        for number in range(0 if name in FIRST else 1, kind.FORMAT)
    }
    assert expected == set(EARLIER)
    says_how = {
        name for name, kind in KINDS.items() if {"upgrade", "SAME_SINCE"} & vars(kind).keys()
    }
    assert says_how == {name for name, _ in EARLIER} | BEFORE_ITS_NUMBER


@pytest.mark.parametrize(("name", "number"), EARLIER, ids=str)
def test_an_earlier_format_is_read(tmp_path: Path, name: str, number: int) -> None:
    how, kind = EARLIER[name, number], KINDS[name]
    if isinstance(how, str):
        file, test = how.split(": ")
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")
        return
    path = tmp_path / "file.json"
    kind_example: Artifact = example(kind)
    kind_example.write(path)
    today = fields_of(path)
    today.pop("format")
    earlier = how(json.loads(json.dumps(today)))
    path.write_text(json.dumps(earlier if number == 0 else {**earlier, "format": number}))
    found = kind.read(path)
    # what it had is what it is; what came later is as if it had not been said
    same = earlier if earlier.keys() <= today.keys() and name != "Calibration" else today
    path.write_text(json.dumps({**same, "format": kind.FORMAT}))
    assert found == kind.read(path)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.__name__)
def test_a_later_format_is_refused_with_its_number(tmp_path: Path, kind: type[Artifact]) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps({"format": kind.FORMAT + 1}))
    with pytest.raises(CorruptFileError, match=f"format {kind.FORMAT + 1} of a later Onepass"):
        kind.read(path)


def test_the_page_of_formats_names_every_kind_with_its_number() -> None:
    page = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8").split("\n## Versions\n")[1]
    listed = {row[0]: int(row[1]) for row in re.findall(r"^\| `(\w+)` \| (\d+) \|", page, re.M)}
    expected = {n: k.FORMAT for n, k in KINDS.items() if n not in BEFORE_ITS_NUMBER}
    assert {name: listed.get(name) for name in expected} == expected
    assert listed.keys() - expected.keys() <= {"Decision"}  # of `onepass run`, on the floor above
