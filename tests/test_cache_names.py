"""Names that become paths: whatever passes names one file or folder in its own place."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from artifact_examples import example as example_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onepass.__main__ import run
from onepass.cache.artifacts import DIGEST
from onepass.cache.errors import CorruptFileError, InvalidInputError, OnepassError, UsageError
from onepass.cache.features import FeatureKey
from onepass.cache.names import check_name, check_new_dataset, check_run
from onepass.classify.leaderboard.board import Leaderboard, LeaderboardFile, ProbeResult
from onepass.data.dataset import open_dataset
from onepass.finetune.config import ErrorsConfig, FinetuneConfig
from onepass.finetune.session.runs import open_run
from onepass.predict.models import open_models

GOOD = ["digits", "a", "_", "é", "tiny@16!float32-default", "vgg16@64#x:block1/../b".replace("/", "_"), "v1.2 b"]  # fmt: skip
BAD = [
    "", ".", "..", "/", "a/b", "../../escaped", "/etc", "~", "~root", "a\\b", "..\\b", "a\0b", "a\nb", "-rf",
    ".hidden", ".tmp-x", "a.lock", "a.parts", "a ", " a", "\x1b[2J", "a\u2028b", "\udcff", "x" * 241, "é" * 121,
]  # fmt: skip
PARTS = st.sampled_from(["..", ".", "/", "\\", "\0", "\n", "a", "~", "-", " ", "é", "\udc80", "con", ".lock", "@", "x" * 90])  # fmt: skip
HOSTILE = st.one_of(st.text(max_size=12), st.lists(PARTS, max_size=5).map("".join))


@pytest.mark.parametrize("name", GOOD)
def test_names_of_today_pass(name: str) -> None:
    check_name("--run", name)
    assert check_run("--run", f"digits/{name}") == ("digits", name)


@pytest.mark.parametrize("name", BAD)
def test_bad_names_are_refused_with_what_was_received(name: str) -> None:
    with pytest.raises(
        UsageError, match=r"^--run .*: expected a name of at most 240 bytes"
    ) as found:
        check_name("--run", name)
    assert repr(name) in str(found.value) and str(found.value).isprintable()


@settings(max_examples=400, deadline=None)
@given(HOSTILE)
@example("a/b")
def test_what_passes_is_one_entry_of_its_own_folder(tmp_path_factory, name: str) -> None:
    try:
        check_name("--run", name)
    except UsageError:
        return
    folder = tmp_path_factory.getbasetemp() / "names"
    folder.mkdir(exist_ok=True)
    path = folder / name
    assert path.parent == folder and Path(os.path.normpath(path)) == path
    path.write_bytes(b"")
    assert [found.name for found in folder.iterdir()] == [name]
    path.unlink()


@settings(max_examples=200, deadline=None)
@given(HOSTILE)
@example("a/b/c")
@example("../up")
def test_every_door_refuses_what_the_one_check_refuses(tmp_path_factory, name: str) -> None:
    try:
        check_name("", name)
        return
    except UsageError:
        pass
    place = tmp_path_factory.getbasetemp() / "nowhere"
    doors = [
        lambda: FinetuneConfig(dataset="d", run=name),
        lambda: ErrorsConfig(run=f"d/{name}"),
        lambda: ErrorsConfig(run=f"{name}/r"),
        lambda: open_models(place, place, (f"d/{name}/",)),
        lambda: open_models(place, place, (f"{name}/{name}",)),
        lambda: open_run(place, place, f"{name}/r"),
        lambda: open_dataset(place, name),
        lambda: check_new_dataset("--name", name),
    ]
    for door in doors:
        with pytest.raises((UsageError, InvalidInputError)):
            door()
    assert not place.exists()


@pytest.mark.parametrize("layer", ["a\0b", "a\nb", "x" * 240])
def test_a_feature_key_is_the_name_of_a_file(layer: str) -> None:
    assert FeatureKey("b", "w", 8, layer="block1/add").file_name == "b@8:block1_add"
    with pytest.raises(OnepassError):
        FeatureKey("b", "w", 8, layer=layer)


def test_a_probe_of_a_leaderboard_lies_in_its_own_folder(tmp_path: Path) -> None:
    probe = example_of(ProbeResult)
    LeaderboardFile("d", probe.dataset_digest, 0, (probe,)).write(tmp_path / "leaderboard.json")
    assert Leaderboard.load(tmp_path, "d", probe.dataset_digest).results == (probe,)
    with pytest.raises(InvalidInputError, match=r"probe id '../../escaped': expected a name"):
        replace(probe, id="../../escaped")
    value = json.loads((tmp_path / "leaderboard.json").read_text())
    del value[DIGEST]
    value["results"][0]["id"] = "../../escaped"
    (tmp_path / "leaderboard.json").write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match=r"leaderboard\.json: .*'../../escaped': expected"):
        Leaderboard.load(tmp_path, "d", probe.dataset_digest)


@pytest.mark.parametrize("name", ["a/b", "../../escaped", "", "a\nb"])
@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("finetune", "--dataset", "d", "--run"), "--run"),
        (("data", "prepare", "digits", "--name"), "--name"),
        (("finetune", "--dataset"), "data set"),
        (("classify", "--dataset"), "data set"),
        (("classify", "ensemble", "--dataset"), "data set"),
    ],
)
def test_a_command_says_so_at_once(
    tmp_path: Path, monkeypatch, capsys, words: tuple[str, ...], flag: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run([*words, name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert flag in line and repr(name) in line
    assert list(tmp_path.iterdir()) == []
