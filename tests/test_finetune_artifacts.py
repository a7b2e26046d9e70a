"""What a run leaves on disk: typed, read by its writer's class, and readable as it was before it had a format.

`format0/finetune` holds the files of three runs and an ablation on digits, made by running the commit
before the files had a number of their format.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import ROOT, fields_of
from onepass.cache.artifacts import DIGEST
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError
from onepass.cache.provenance import digest_json
from onepass.finetune.ablation import Ablation
from onepass.finetune.errors import RunErrors
from onepass.finetune.recipes import RECIPES
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.session.run_identity import RunConfig, record_run, refuse_other
from onepass.finetune.session.runs import finished_runs, load_logits, read_run

BEFORE = Path(__file__).with_name("format0") / "finetune"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE, tmp_path / "finetune"))


def test_runs_made_before_the_format_had_a_number_still_open(place: Path) -> None:
    runs = {run.name: run for run in finished_runs(place)}
    assert list(runs) == ["auto", "old-recipe", "whole"]
    whole = runs["whole"]
    assert whole.result is not None and whole.folder == whole.result.folder == place / "whole"
    said = json.loads((place / "whole" / "result.json").read_text())
    assert whole.result.val_top1 == said["val_top1"]
    assert [row.loss for row in whole.result.history] == [row["loss"] for row in said["history"]]
    assert whole.result.settings == whole.identity.recipe == replace(RECIPES["default"], epochs=3)
    assert str(whole.identity.key) == "efficientnet_lite0@32"
    assert load_logits(place / "whole" / "val_logits.npz", 10, 1797)[0].shape == (449, 10)


def test_recipes_have_the_names_of_today(place: Path) -> None:
    found = read_run(place / "old-recipe")
    assert json.loads((place / "old-recipe" / "result.json").read_text())["recipe"] == "report"
    assert found.result is not None and found.result.recipe == "de2020"
    assert found.identity.recipe == replace(RECIPES["de2020"], epochs=2, batch=64)


def test_the_search_for_the_rate_is_part_of_the_run(place: Path) -> None:
    found = read_run(place / "auto").config
    assert found.found is not None and found.identity.recipe.learning_rate == found.found.suggested
    assert len(found.found.rates) == len(found.found.losses)


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (FinetuneResult, "whole/result.json"),
        (RunConfig, "whole/config.json"),
        (RunConfig, "auto/config.json"),
        (RunErrors, "whole/errors.json"),
        (Ablation, "ablation.json"),
    ],
)
def test_what_is_written_is_what_is_read(place: Path, kind: type, path: str) -> None:
    before = kind.read(place / path)
    before.write(place / path)
    assert json.loads((place / path).read_text())["format"] == kind.FORMAT
    assert kind.read(place / path) == before


def test_a_wrong_file_is_named_with_its_field(place: Path) -> None:
    path = place / "whole" / "result.json"
    FinetuneResult.read(path).write(path)
    value = fields_of(path)
    value["history"][1]["loss"] = "low"
    path.write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match=r"whole/result\.json.*history\.1\.loss"):
        finished_runs(place)
    path.write_text(json.dumps({**value, "history": [], "colour": 1}))
    with pytest.raises(CorruptFileError, match=r"result\.json.*colour: unknown"):
        read_run(path.parent)
    path.unlink()
    assert read_run(path.parent).result is None
    path.with_name("config.json").unlink()
    with pytest.raises(MissingFileError, match=r"config\.json"):
        read_run(path.parent)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"val_top1": float("nan")}, "val_top1"),
        ({"probe_top1": float("inf")}, "probe_top1"),
        ({"format": True}, "format: expected a number"),
        ({"format": 1.0}, "format: expected a number"),
        ({"format": -1}, "format: expected a number"),
        ({"format": 99}, "format 99 of a later Onepass"),
    ],
)
def test_what_no_result_holds_is_named(place: Path, change: dict, named: str) -> None:
    path = place / "whole" / "result.json"
    FinetuneResult.read(path).write(path)
    value = json.loads(path.read_text())
    value.pop(DIGEST, None)
    path.write_text(json.dumps({**value, **change}))
    with pytest.raises(CorruptFileError, match=named):
        read_run(path.parent)


def test_a_number_beyond_all_bounds_is_an_error_of_the_file(place: Path) -> None:
    path = place / "whole" / "config.json"
    RunConfig.read(path).write(path)
    value = json.loads(path.read_text())
    value.pop(DIGEST, None)
    value["identity"]["recipe"]["augmentation"]["randaugment"] = 10**400
    path.write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match=r"config\.json.*more than they hold"):
        RunConfig.read(path)


@pytest.mark.parametrize("change", [{"colour": 1}, {"layer": 3}, {"size": "big"}])
def test_features_that_are_no_key_are_an_error_of_the_file(place: Path, change: dict) -> None:
    identity = RunConfig.read(place / "whole" / "config.json").identity
    assert identity.key.backbone
    wrong = replace(identity, features={**identity.features, **change})
    with pytest.raises(CorruptFileError, match=r"config\.json.*features.*--run"):
        _ = wrong.key


def test_short_runs_of_an_ablation_are_found_by_the_same_digest(place: Path) -> None:
    from onepass.finetune.ablate import ShortRun

    (path,) = place.glob("ablation/*/done.json")
    identity = json.loads(path.read_text())["identity"]
    assert path.parent.name == digest_json(identity)[:12]
    found = ShortRun.read(path).identity
    assert found.digest == digest_json(identity)
    assert replace(found, metric="auroc").digest != found.digest


def test_a_folder_is_one_runs(place: Path) -> None:
    folder = place / "whole"
    ours = RunConfig.read(folder / "config.json").identity
    refuse_other(folder, ours, {})
    dataset = SimpleNamespace(contents="c", class_ids=["a", "b"])
    record_run(folder, replace(ours, seed=9), None, dataset)
    assert RunConfig.read(folder / "config.json").identity == ours  # what is there stays
    other = replace(ours, recipe=replace(ours.recipe, epochs=4))
    with pytest.raises(InvalidInputError, match=r"\(epochs: 3, now 4\); .*--run NAME"):
        refuse_other(folder, other, {})
    with pytest.raises(InvalidInputError, match=r"learning_rate: 0.00015, now auto"):
        refuse_other(folder, ours, {"learning_rate": "auto"})
    refuse_other(place / "free", ours, {})
    record_run(place / "free", ours, None, dataset)
    config = RunConfig.read(place / "free" / "config.json")
    assert (config.identity, config.contents, config.class_ids) == (ours, "c", ("a", "b"))


def test_reading_runs_loads_nothing_heavy() -> None:
    code = (
        "import sys, onepass.finetune.session.runs, onepass.finetune.ablation, onepass.finetune.errors;"
        "print([m for m in ('keras', 'tensorflow', 'jax') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
