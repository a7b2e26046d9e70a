"""A few hundred strange inputs for every reader, and all that one of them ever failed on."""

import warnings
from pathlib import Path

import pytest
from fuzz import INPUTS, READERS, attempt, cases

COUNT = 60
KNOWN = sorted(INPUTS.glob("*/*"))


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("name", READERS)
def test_what_is_not_changed_is_read(name: str, tmp_path: Path) -> None:
    if name in ("artifacts", "commands", "keys"):
        pytest.skip("each of its inputs is for one of several parsers")
    assert {attempt(READERS[name], seed, tmp_path) for seed in READERS[name].seeds()} == {"read"}


@pytest.mark.parametrize("name", READERS)
def test_what_is_changed_is_read_or_refused_in_one_line(name: str, tmp_path: Path) -> None:
    outcomes = [attempt(READERS[name], content, tmp_path) for content in cases(name, COUNT)]
    assert "refused" in outcomes or not READERS[name].named


@pytest.mark.parametrize("path", KNOWN, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_a_reader_once_failed_on(path: Path, tmp_path: Path) -> None:
    if path.parent.name not in READERS:
        pytest.skip(f"the library of {path.parent.name} is not installed")
    attempt(READERS[path.parent.name], path.read_bytes(), tmp_path)
