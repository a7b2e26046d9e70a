"""Digests tell apart what differs, and what made a file is said so that it can be made again."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from onepass.cache import provenance
from onepass.cache.provenance import (
    differences,
    digest_array,
    digest_bytes,
    digest_file,
    digest_json,
)


def test_digest_of_parts_knows_where_they_end() -> None:
    assert digest_bytes(b"ab", b"c") != digest_bytes(b"a", b"bc")
    assert digest_bytes(b"") != digest_bytes()
    expected = hashlib.sha256((2).to_bytes(8, "little") + b"ab").hexdigest()
    assert digest_bytes(b"ab") == digest_bytes(memoryview(b"ab")) == expected


def test_digest_of_an_array_is_of_its_type_shape_and_values() -> None:
    array = np.arange(6, dtype="float32").reshape(2, 3)
    same = [array.copy(), np.asfortranarray(array), np.repeat(array, 2, axis=0)[::2]]
    assert {digest_array(one) for one in same} == {digest_array(array)}
    others = [array.astype("float64"), array.reshape(3, 2), array.T, array + 1, array.astype(">f4")]
    assert len({digest_array(one) for one in [array, *others]}) == 6
    assert digest_array(np.zeros((0, 3), "f4")) != digest_array(np.zeros((0, 4), "f4"))
    assert digest_array(np.float16([1, np.nan])) == digest_array(np.float16([1, np.nan]))


def test_digests_are_the_same_in_every_version_of_this_program() -> None:
    """Stored files carry them: a change here makes every file of every user stale."""
    assert digest_array(np.arange(3, dtype="int16")) == (
        "d76e1862d445068963a47dd3a5c56c217a8ed0f58943b7eb87702d7bc477a201"
    )
    assert digest_json({"b": [1, "ä"], "a": None}) == (
        "ff429507e94e586451deccbe5fd3701c259d36e5b5d2f902d6dc2b27d7ae2b54"
    )


def test_digest_of_json_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_json({"a": 1, "b": 2}) == digest_json({"b": 2, "a": 1})
    assert digest_json([1, 2]) != digest_json([2, 1])
    assert digest_json({"a": 1}) != digest_json({"a": "1"})


def test_digest_of_a_file_is_what_sha256sum_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "BLOCK", 1000)  # several blocks, the last one short
    content = bytes(range(256)) * 17
    (tmp_path / "a").write_bytes(content)
    assert digest_file(tmp_path / "a") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("recorded", "wanted", "said"),
    [
        ({"size": 96}, {"size": 128}, "size: 96, now 128"),
        ({"size": 96, "a": 1}, {"size": 96}, "a: 1, now None"),
        ({"a": 1}, {"a": 1}, ""),
        ({"d": "7" * 64}, {"d": "3" * 64}, f"d: {'7' * 20}…, now {'3' * 20}…"),
        ({"a": 1, "b": 2}, {"a": 2, "b": 3}, "a: 1, now 2; b: 2, now 3"),
    ],
)
def test_differences_in_words(recorded: dict, wanted: dict, said: str) -> None:
    assert differences(recorded, wanted) == said
