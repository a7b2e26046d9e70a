"""Feature keys and files: written as text, found by name, joined only where they are of the same images."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    StaleError,
    UnknownNameError,
)
from onepass.cache.features import (
    LOGITS,
    FeatureKey,
    FeatureSet,
    check_fresh,
    list_features,
    open_features,
    parse_key_text,
    resolve_features,
)
from onepass.cache.files import TEMPORARY
from onepass.cache.rows import Column, RowLayout, RowWriter

KEY = FeatureKey("digits", "d1" * 32, "vgg16", "keras:imagenet", 64)
ATTRIBUTES = {"class_ids": ["n1", "n2"], "class_names": ["cat", "dog"], "record": {"licence": "x"}}


def vectors(key: FeatureKey, rows: int = 10) -> np.ndarray:
    """Return vectors that tell which key and which row they are of."""
    width = 1000 if key.pooling == LOGITS else 4
    return (np.arange(rows)[:, None] + np.arange(width) / 8 + key.size).astype(key.dtype)


def make(store: Path, key: FeatureKey = KEY, inputs: dict | None = None, **changes: Any) -> Path:
    """Write a real feature file of 10 rows; return its path."""
    X = vectors(key)
    layout = RowLayout({"features": Column(X.shape[1:], key.dtype)}, len(X), 4)
    side = {
        "labels": np.arange(10, dtype="int32") % 2,
        "split": np.array([0] * 6 + [1] * 3 + [2], dtype="int8"),
        "names": [f"{i}.png" for i in range(10)],
    }
    side |= {name: value for name, value in changes.items() if name in side}
    with RowWriter(key.file(store), layout, inputs or key.inputs()) as writer:
        for index in writer.missing:
            start, stop = writer.shard_range(index)
            writer.write(index, {"features": X[start:stop]})
        kept = {name: value for name, value in side.items() if value is not None}
        return writer.finish(kept, changes.get("attributes", ATTRIBUTES)).path


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({}, "vgg16@64"),
    ({"variant": "3fa91c02"}, "vgg16@64#3fa91c02"),
    ({"layer": "block13_sepconv2_act"}, "vgg16@64:block13_sepconv2_act"),
    ({"view": "flip"}, "vgg16@64+flip"),
    ({"view": "scale:1.15"}, "vgg16@64+scale:1.15"),
    ({"view": "crop:tl"}, "vgg16@64+crop:tl"),
    ({"pooling": "avg+max"}, "vgg16@64~avg+max"),
    ({"precision": "mixed_bfloat16"}, "vgg16@64=mixed_bfloat16"),
    ({"dtype": "float32"}, "vgg16@64!float32"),
    ({"layer": "a/b"}, "vgg16@64:a/b"),
    (
        {"variant": "none0", "layer": "x", "view": "flip", "pooling": "max", "precision": "mixed_float16", "dtype": "float32"},
        "vgg16@64#none0:x+flip~max=mixed_float16!float32",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), CHANGES)
def test_the_text_of_a_key_can_be_read_back(changes: dict[str, Any], text: str) -> None:
    key = replace(KEY, **changes)
    assert str(key) == text
    assert parse_key_text(text) == {"backbone": "vgg16", "size": "64", **changes}


def test_every_part_of_a_key_changes_its_inputs_and_so_its_vectors() -> None:
    others = [replace(KEY, **{field.name: 7 if field.name == "size" else "other"}) for field in fields(KEY)]  # fmt: skip
    assert all(other.inputs() != KEY.inputs() for other in others)


def test_keys_of_different_vectors_lie_in_different_files(tmp_path: Path) -> None:
    keys = [replace(KEY, **changes) for changes, _ in CHANGES]
    assert len({key.file(tmp_path) for key in keys}) == len(keys)
    assert KEY.file(tmp_path) == tmp_path / "digits" / "features" / "vgg16@64.h5"
    slashed = replace(KEY, layer="../../a/b").file(tmp_path)
    assert slashed.parent == KEY.file(tmp_path).parent  # a layer's name cannot leave the folder


@pytest.mark.parametrize("text", ["", "vgg16", "vgg16@", "@64", "vgg16@big", "vgg16@64~Max", "a/b@64"])  # fmt: skip
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected BACKBONE@SIZE"):
        parse_key_text(text)


@pytest.mark.parametrize("changes", [{"layer": "a+b"}, {"layer": "a~b"}, {"view": "x=y"}, {"pooling": ""}, {"backbone": "a@b"}])  # fmt: skip
def test_a_part_that_would_be_read_as_another_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="feature key"):
        replace(KEY, **changes)


def test_an_opened_file_gives_vectors_labels_splits_and_names(tmp_path: Path) -> None:
    features = open_features(make(tmp_path))
    assert isinstance(features.X, np.memmap) and features.X.dtype == np.float16
    np.testing.assert_array_equal(features.X, vectors(KEY))
    assert features.keys == (KEY,) and features.text == "vgg16@64"
    assert features.names[9] == "9.png" and features.class_names == ["cat", "dog"]
    assert features.labels.dtype == np.int32 and features.split.dtype == np.int8
    assert features.rows("val").tolist() == [6, 7, 8]
    assert features.rows("train").dtype == np.int64
    assert features.logits is None
    with pytest.raises(ValueError, match="read-only"):
        features.X[0] = 0
    with pytest.raises(UnknownNameError, match="did you mean val"):
        features.rows("vall")


def test_the_digest_is_of_vectors_and_labels(tmp_path: Path) -> None:
    digests = {
        open_features(make(tmp_path / "a")).digest,
        open_features(make(tmp_path / "b", replace(KEY, size=65))).digest,
        open_features(make(tmp_path / "c", labels=np.zeros(10, dtype="int32"))).digest,
    }
    assert len(digests) == 3
    assert open_features(make(tmp_path / "d")).digest in digests


def test_the_backbones_own_logits_are_found_beside_it(tmp_path: Path) -> None:
    own = replace(KEY, pooling=LOGITS)
    make(tmp_path, own)
    for key in (KEY, replace(KEY, layer="block1"), replace(KEY, pooling="max")):
        logits = open_features(make(tmp_path, key)).logits
        assert logits is not None and logits.shape == (10, 1000)
        np.testing.assert_array_equal(logits, vectors(own))
    flipped = open_features(make(tmp_path, replace(KEY, view="flip")))
    assert flipped.logits is None  # those are of the images as they are
    later = replace(KEY, dataset_digest="d2" * 32, dtype="float32")
    make(tmp_path, replace(own, dtype="float32"))
    assert open_features(make(tmp_path, later)).logits is None  # of another state of the data set
    assert open_features(own.file(tmp_path)).logits is None


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": None},
        {"names": None},
        {"attributes": {"class_ids": []}},
        {"inputs": {**KEY.inputs(), "colour": "red"}},
        {"inputs": {"kind": "features", "dataset": "digits"}},
        {"inputs": {"kind": "pixels"}},
        {"inputs": {"made": "elsewhere"}},
    ],
)
def test_a_row_file_that_is_no_feature_file_is_one_clear_error(
    tmp_path: Path, changes: Any
) -> None:
    path = make(tmp_path, **changes)
    with pytest.raises(CorruptFileError, match=r"vgg16@64\.h5: expected a feature file"):
        open_features(path)


def test_joined_sets_stand_side_by_side(tmp_path: Path) -> None:
    other = replace(KEY, backbone="xception", size=80, dtype="float32")
    sets = [open_features(make(tmp_path, key)) for key in (KEY, other)]
    joined = FeatureSet.join(sets)
    assert joined.X.shape == (10, 8) and joined.X.dtype == np.float32
    np.testing.assert_array_equal(joined.X[:, :4], vectors(KEY))
    np.testing.assert_array_equal(joined.X[:, 4:], vectors(other))
    assert joined.text == "vgg16@64 & xception@80!float32"
    assert joined.digest not in (sets[0].digest, sets[1].digest, FeatureSet.join(sets[::-1]).digest)
    assert FeatureSet.join(sets[:1]) is sets[0]


@pytest.mark.parametrize("changes", [{"dataset": "cells"}, {"dataset_digest": "d2" * 32}])
def test_sets_of_other_images_are_not_joined(tmp_path: Path, changes: Any) -> None:
    """Also where their keys read the same: `vgg16@64` of one data set and of another."""
    for same in (KEY, replace(KEY, size=80)):
        sets = [
            open_features(make(tmp_path / "a")),
            open_features(make(tmp_path / "b", replace(same, **changes))),
        ]
        with pytest.raises(InvalidInputError, match="of one data set, received vgg16@64 of digits"):
            FeatureSet.join(sets)


def test_key_texts_are_resolved_to_files(tmp_path: Path) -> None:
    for key in (
        KEY,
        replace(KEY, size=80),
        replace(KEY, layer="a/b"),
        replace(KEY, pooling=LOGITS),
    ):
        make(tmp_path, key)
    make(tmp_path, replace(KEY, pooling=LOGITS, dtype="float32"))
    found = resolve_features(tmp_path, "digits", ["vgg16@80", "vgg16@64:a/b"])
    assert [one.text for one in found] == ["vgg16@80", "vgg16@64:a/b"]
    everything = resolve_features(tmp_path, "digits")  # logits are no features unless asked for
    assert sorted(one.text for one in everything) == ["vgg16@64", "vgg16@64:a/b", "vgg16@80"]
    (logits,) = resolve_features(tmp_path, "digits", ["vgg16@64~logits"])
    assert logits.X.shape == (10, 1000)
    with pytest.raises(UnknownNameError, match="'vgg19@64' is unknown; did you mean vgg16@64"):
        resolve_features(tmp_path, "digits", ["vgg19@64"])


def test_a_kill_while_a_file_was_joined_hides_nothing_and_shows_nothing(tmp_path: Path) -> None:
    path = make(tmp_path)
    half = path.with_name(f"{TEMPORARY}abcdefgh-{path.name}")
    half.write_bytes(b"half a file")
    assert list_features(tmp_path, "digits") == [path]
    assert len(resolve_features(tmp_path, "digits")) == 1
    path.unlink()
    make(tmp_path)
    assert not half.exists()  # the next writer of the same file clears it away


@pytest.mark.parametrize("logits_only", [False, True])
def test_no_features_yet_tells_the_command(tmp_path: Path, logits_only: bool) -> None:
    if logits_only:
        make(tmp_path, replace(KEY, pooling=LOGITS))
    with pytest.raises(MissingFileError, match="no feature file yet") as error:
        resolve_features(tmp_path, "digits")
    assert error.value.remedy == Remedy("extract", "digits")


def test_vectors_of_a_changed_data_set_are_stale(tmp_path: Path) -> None:
    features = open_features(make(tmp_path))
    check_fresh(tmp_path, features, KEY.dataset_digest)
    with pytest.raises(StaleError) as error:
        check_fresh(tmp_path, features, "3fa91c02" * 8)
    assert str(error.value) == (
        f"{KEY.file(tmp_path)}: made from data set d1d1d1d1, but digits is now 3fa91c02; extract it again"
    )
    assert error.value.remedy == Remedy("delete", "digits/vgg16@64")


def test_any_program_reads_the_file(tmp_path: Path) -> None:
    with h5py.File(make(tmp_path)) as file:
        np.testing.assert_array_equal(file["features"][()], vectors(KEY))
        assert file["names"].asstr()[3] == "3.png"
