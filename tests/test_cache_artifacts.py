"""Artifacts: what is read is what was written, to the bit, or an error that says so."""

import json
import random
from pathlib import Path

import pytest
from artifact_examples import example, kinds

from conftest import refused
from onepass.cache.artifacts import DIGEST, Artifact
from onepass.cache.errors import CorruptFileError
from onepass.classify.leaderboard.board import Leaderboard, LeaderboardFile
from onepass.finetune.session.result import FinetuneResult

FLIPS = 200
KINDS = kinds()


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def test_all_kinds_are_known() -> None:
    assert {"LeaderboardFile", "HeadRecord", "RunConfig", "RowFilePlan", "FigureIndex"} <= {k.__name__ for k in KINDS}  # fmt: skip
    assert len(KINDS) >= 16


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path, kind: type[Artifact]) -> None:
    path, written = tmp_path / "a.json", example(kind)
    written.write(path)
    assert kind.read(path) == written
    content = path.read_bytes()
    errors, draw = 0, random.Random(kind.__name__)
    for place in draw.sample(range(8 * len(content)), FLIPS):
        path.write_bytes(flipped(content, place))
        try:
            assert kind.read(path) == written, f"bit {place} changed the value silently"
        except CorruptFileError as error:
            assert str(path) in str(error)
            errors += 1
    assert errors > FLIPS / 2


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_file_without_a_digest_still_opens(tmp_path: Path, kind: type[Artifact]) -> None:
    path, written = tmp_path / "a.json", example(kind)
    written.write(path)
    value = json.loads(path.read_text())
    assert list(value)[-1] == DIGEST
    del value[DIGEST]
    path.write_text(json.dumps(value))
    assert kind.read(path) == written


def test_the_layout_of_the_file_is_free_its_values_are_not(tmp_path: Path) -> None:
    path, written = tmp_path / "result.json", example(FinetuneResult)
    written.write(path)
    value = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(value.items()))))
    assert FinetuneResult.read(path) == written
    for field, wrong in (("val_top1", 0.9), ("format", 0), (DIGEST, None), (DIGEST, "0")):
        path.write_text(json.dumps({**value, field: wrong}))
        said = r"result\.json: its bytes are not those that were written: .*run again what made it"
        with pytest.raises(CorruptFileError, match=said):
            FinetuneResult.read(path)


def test_a_damaged_leaderboard_says_how_to_begin_anew(tmp_path: Path) -> None:
    example(LeaderboardFile).write(tmp_path / "leaderboard.json")
    text = (tmp_path / "leaderboard.json").read_text()
    (tmp_path / "leaderboard.json").write_text(text.replace("0.30000000000000004", "0.9", 1))
    with refused(CorruptFileError, r"not those that were written.* --fresh"):
        Leaderboard.load(tmp_path, "digits", "dataset_digest")
