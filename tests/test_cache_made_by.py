"""What is said of a file's making: enough to make it again, and never a word that no reader knows."""

import shlex
import sys
import tomllib
from dataclasses import dataclass, replace

import numpy as np
import pytest

from conftest import ROOT
from onepass.__main__ import run as onepass
from onepass.cache.artifacts import from_json, to_json
from onepass.cache.commandline.command import Command, main
from onepass.cache.commandline.flags import flag
from onepass.cache.errors import CorruptFileError
from onepass.cache.made_by import How, MadeBy, versions


def test_the_recorded_command_can_be_pasted_into_a_shell(capsys) -> None:
    words = ["--source", "my images/a&b"]

    @dataclass(frozen=True, kw_only=True)
    class Config:
        source: str = flag()

    seen: list[str] = []
    record = lambda config: seen.append(MadeBy.now().command)  # noqa: E731
    assert main("demo", [Command("", "Records.", Config, record, str)], words) == 0
    assert shlex.split(seen[0]) == ["onepass", "demo", *words]


def test_a_program_that_calls_the_library_is_not_taken_for_a_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    assert MadeBy.now().command == ""


def test_versions_are_of_what_is_installed() -> None:
    found = versions()
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert "tensorflow" not in sys.modules or found["tensorflow"]
    made = MadeBy.now()
    assert made.versions == found and made.created.endswith("+00:00")


def test_a_file_holds_only_what_it_has_to_say() -> None:
    made_by = MadeBy.now(How(batch=64))
    assert list(to_json(made_by)) == ["command", "created", "machine", "versions", "batch"]
    migrated = replace(made_by, migrated=MadeBy.now())
    for one in (made_by, migrated, MadeBy.now(How(decoder="Pillow"))):
        assert from_json(MadeBy, to_json(one)) == one


def test_fields_that_are_unknown_or_missing_are_named() -> None:
    value = to_json(MadeBy.now())
    del value["machine"]
    with pytest.raises(CorruptFileError, match=r"MadeBy; received machine: missing; bath: unknown"):
        from_json(MadeBy, {**value, "bath": 64})


@pytest.mark.parametrize("flag", ["--version", "-V"])
def test_the_command_says_its_version(flag: str, capsys) -> None:
    assert onepass([flag]) == 0
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert capsys.readouterr().out == f"onepass {project['version']}\n"
