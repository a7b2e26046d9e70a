"""What Keras is set to: said before it is imported, in one line, by every command that needs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT
from onepass.cache.errors import InvalidInputError
from onepass.cache.keras_settings import check_keras


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of settings for a process that has not imported Keras."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"floatx": "float16"}', "floatx 'float16': expected 'float32'"),
        ('{"floatx": ["x"]}', "floatx"),
        ('{"image_data_format": "channels_first"}', "expected 'channels_last'"),
        ('{"backend": "theano"}', "backend=theano: expected tensorflow or jax"),
        ('{"backend": 3}', "backend=3: expected"),
        ("[1]", "a JSON object"),
        ("null", "a JSON object"),
        ('{"epsilon": "x"}', "epsilon is a number"),
        ("[" * 100_000, "a JSON object"),
    ],
)
def test_foreign_settings_are_refused(home: Path, content: str, words: str) -> None:
    (home / "keras.json").write_text(content)
    with pytest.raises(InvalidInputError, match=words) as caught:
        check_keras()
    assert str(home / "keras.json") in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "{}", '{"floatx": "float32"}'])
def test_what_keras_leaves_out_is_left_out(home: Path, content: str) -> None:
    (home / "keras.json").write_text(content)
    check_keras()


def test_no_file_is_no_error(home: Path) -> None:
    check_keras()


def test_a_backend_without_its_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"KERAS_BACKEND=jax.*run: pip install jax"):
        check_keras()


@pytest.mark.parametrize("words", [["extract"], ["finetune"], ["finetune", "find-lr"]])
def test_the_commands_say_it_in_one_line(words: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "onepass", *words, "--dataset", "d"]
    command += ["--backbone", "efficientnet_lite0"] if words == ["extract"] else []
    environment = {**os.environ, "KERAS_BACKEND": "theano", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 1 and found.stderr.count("\n") == 1
    assert "KERAS_BACKEND=theano: expected tensorflow or jax" in found.stderr


def test_a_program_that_set_keras_is_told(tmp_path: Path) -> None:
    code = (
        "import keras, onepass; keras.config.set_floatx('float16')\n"
        "try: onepass.extract_features('d', 'efficientnet_lite0')\n"
        "except onepass.cache.errors.InvalidInputError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.stdout.startswith("Keras is set to floatx 'float16'"), found.stderr[-500:]


def test_the_file_that_keras_wrote_itself_is_accepted(home: Path) -> None:
    written = {"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow"}
    (home / "keras.json").write_text(json.dumps({**written, "image_data_format": "channels_last"}))
    check_keras()
