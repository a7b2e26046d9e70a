"""`onepass completion`: the scripts are of today's commands and flags, and their shells take them."""

import shutil
import subprocess
from pathlib import Path

import pytest

from onepass.__main__ import ROOMS, commands_of, run
from onepass.completion import SHELLS


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_knows_every_command_and_its_shell_takes_it(
    shell: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ROOMS:
        assert word in script
        for command in commands_of(word):
            assert command.name in script
    for flag in ("--list-backbones", "--time-limit", "--config", "--quiet"):
        assert flag.removeprefix("--") in script
    if program := shutil.which(shell):
        (tmp_path / "script").write_text(script, encoding="utf-8")
        done = subprocess.run([program, "-n", tmp_path / "script"], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not here")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("onepass ex", {"extract"}),
        ("onepass classify cu", {"curve"}),
        ("onepass extract --list", {"--list-backbones"}),
        ("onepass extract --dtype ", {"float16", "float32"}),
    ],
)
def test_bash_completes_words_flags_and_choices(
    line: str, expected: set[str], capsys: pytest.CaptureFixture
) -> None:
    assert run(["completion", "bash"]) == 0
    words = line.split(" ")
    script = f"""{capsys.readouterr().out}
COMP_WORDS=({" ".join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}
_shtab_onepass onepass {words[-1]!r} {words[-2]!r}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == expected, done.stderr


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert run(["completion", "bash"]) == 1
    assert 'pip install "onepass[completion]"' in capsys.readouterr().err
