"""Feature keys and files: written as text, found by name, joined only where they are of the same images."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_cache_rows import contents

from onepass.cache.content import contents_digest
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
    ExtractionRecord,
    FeatureKey,
    FeatureSet,
    check_fresh,
    extract_flags,
    key_of_format_1,
    list_features,
    open_features,
    parse_key_text,
    resolve_features,
    same_recipe,
)
from onepass.cache.files import TEMPORARY
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.rows import Column, RowWriter, ShardKind, inputs_of, parts_folder
from onepass.cache.stores import Store

KEY = FeatureKey("vgg16", "keras:imagenet", 64)
IMAGES = range(10)


def vectors(key: FeatureKey, images: Any = IMAGES) -> np.ndarray:
    """Return vectors that tell which key and which image they are of."""
    width = 1000 if key.pooling == LOGITS else 4
    return (np.array(images)[:, None] + np.arange(width) / 8 + key.size).astype(key.dtype)


def make(
    store: Path,
    key: FeatureKey = KEY,
    images: Any = IMAGES,
    dataset: str = "digits",
    inputs: dict | None = None,
    attributes: dict | None = None,
) -> Path:
    """Write a real feature file; return its path."""
    arrays = {"features": vectors(key, images), "content": contents(images)}
    inputs = inputs_of(key.recipe(), arrays["content"]) if inputs is None else inputs
    path = key.file(store, dataset)
    return write_rows(path, arrays, inputs=inputs, attributes=attributes, block_rows=4).path


def begin(store: Path, key: FeatureKey = KEY, images: Any = IMAGES, dataset: str = "digits") -> RowWriter:  # fmt: skip
    """Leave an unfinished feature file: all shards but the last."""
    X = vectors(key, images)
    columns = {"features": Column(X.shape[1:], key.dtype), "content": Column((16,), "uint8")}
    kind = ShardKind(columns, "content", key.recipe())
    with RowWriter(key.file(store, dataset), kind, contents(images), shard_rows=4) as writer:
        for positions in writer.missing[:-1]:
            writer.write(
                positions,
                {"features": X[positions], "content": contents(np.array(images)[positions])},
            )
    return writer


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


def test_every_part_of_a_key_changes_its_recipe_and_so_its_vectors() -> None:
    others = [replace(KEY, **{field.name: 7 if field.name == "size" else "other"}) for field in fields(KEY)]  # fmt: skip
    assert all(other.recipe() != KEY.recipe() for other in others)


def test_no_label_split_name_or_data_set_is_part_of_a_key() -> None:
    """Or a corrected label would mean that every vector is computed again."""
    assert {field.name for field in fields(KEY)} == {
        "backbone", "weights", "size", "variant", "layer", "view", "pooling", "precision", "dtype",
    }  # fmt: skip
    before = {**KEY.recipe(), "dataset": "digits", "dataset_digest": "d1" * 32}
    assert key_of_format_1(before) == KEY.recipe()


def test_keys_of_different_vectors_lie_in_different_files(tmp_path: Path) -> None:
    keys = [replace(KEY, **changes) for changes, _ in CHANGES]
    assert len({key.file(tmp_path, "digits") for key in keys}) == len(keys)
    assert KEY.file(tmp_path, "digits") == tmp_path / "digits" / "features" / "vgg16@64.h5"
    slashed = replace(KEY, layer="../../a/b").file(tmp_path, "digits")
    assert slashed.parent == KEY.file(tmp_path, "digits").parent  # a layer cannot leave the folder


@pytest.mark.parametrize("text", ["", "vgg16", "vgg16@", "@64", "vgg16@big", "vgg16@64~Max", "a/b@64"])  # fmt: skip
def test_what_is_no_key(text: str) -> None:
    with pytest.raises(InvalidInputError, match="expected BACKBONE@SIZE"):
        parse_key_text(text)


@pytest.mark.parametrize("changes", [{"layer": "a+b"}, {"layer": "a~b"}, {"view": "x=y"}, {"pooling": ""}, {"backbone": "a@b"}])  # fmt: skip
def test_a_part_that_would_be_read_as_another_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="feature key"):
        replace(KEY, **changes)


def test_an_opened_file_gives_vectors_and_of_which_images(tmp_path: Path) -> None:
    features = open_features(make(tmp_path))
    assert isinstance(features.X, np.memmap) and features.X.dtype == np.float16
    np.testing.assert_array_equal(features.X, vectors(KEY))
    assert features.keys == (KEY,) and features.text == "vgg16@64"
    assert (features.dataset, features.contents) == ("digits", contents_digest(contents(IMAGES)))
    assert features.logits is None
    with pytest.raises(ValueError, match="read-only"):
        features.X[0] = 0


def test_the_digest_is_of_vectors_and_images(tmp_path: Path) -> None:
    digests = {
        open_features(make(tmp_path / "a")).digest,
        open_features(make(tmp_path / "b", replace(KEY, size=65))).digest,
        open_features(make(tmp_path / "c", images=range(9, -1, -1))).digest,
    }
    assert len(digests) == 3
    again = open_features(make(tmp_path / "d", dataset="birds"))
    assert again.digest in digests  # whatever the data set is called


def test_a_migrated_file_keeps_the_digest_that_heads_know(tmp_path: Path) -> None:
    features = open_features(make(tmp_path, attributes={"digest": "d1" * 32}))
    assert features.digest == "d1" * 32


def test_the_record_of_an_extraction_is_read_back(tmp_path: Path) -> None:
    record = ExtractionRecord(12.5, 4, ["gpu:0"], "read", None, 6)
    path = make(tmp_path, attributes={"extraction": record})
    assert ExtractionRecord.of(RowFile.open(path)) == record
    assert ExtractionRecord.of(RowFile.open(make(tmp_path))) is None
    with pytest.raises(CorruptFileError, match="carried_row: unknown"):
        odd = {"rows_per_second": 1.0, "computed_rows": 1, "devices": [], "bound": "", "carried_row": 1}  # fmt: skip
        ExtractionRecord.of(RowFile.open(make(tmp_path, attributes={"extraction": odd})))


def test_the_backbones_own_logits_are_found_beside_it(tmp_path: Path) -> None:
    own = replace(KEY, pooling=LOGITS)
    make(tmp_path, own)
    for key in (KEY, replace(KEY, layer="block1"), replace(KEY, pooling="max")):
        logits = open_features(make(tmp_path, key)).logits
        assert logits is not None and logits.shape == (10, 1000)
        np.testing.assert_array_equal(logits, vectors(own))
    flipped = open_features(make(tmp_path, replace(KEY, view="flip")))
    assert flipped.logits is None  # those are of the images as they are
    make(tmp_path, replace(own, dtype="float32"), range(1, 11))
    assert open_features(make(tmp_path, replace(KEY, dtype="float32"))).logits is None
    assert open_features(own.file(tmp_path, "digits")).logits is None


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        KEY.recipe(),  # of which images?
        {**KEY.recipe(), "contents": "c1", "colour": "red"},
        {"kind": "features", "contents": "c1", "backbone": "vgg16"},
        {**KEY.recipe(), "contents": "c1", "kind": "pixels"},
        {"made": "elsewhere"},
    ],
)
def test_a_row_file_that_is_no_feature_file_is_one_clear_error(
    tmp_path: Path, inputs: dict
) -> None:
    path = make(tmp_path, inputs=inputs)
    with pytest.raises(CorruptFileError, match=r"vgg16@64\.h5: expected a feature file"):
        open_features(path)


def test_a_row_file_with_other_columns_is_no_feature_file(tmp_path: Path) -> None:
    path = KEY.file(tmp_path, "digits")
    write_rows(path, {"features": vectors(KEY)}, inputs=inputs_of(KEY.recipe(), contents(IMAGES)))
    with pytest.raises(CorruptFileError, match="expected a feature file"):
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


@pytest.mark.parametrize("images", [range(1, 11), range(9, -1, -1)])
def test_sets_of_other_images_or_another_order_are_not_joined(tmp_path: Path, images: Any) -> None:
    for same in (KEY, replace(KEY, size=80)):
        sets = [
            open_features(make(tmp_path / "a")),
            open_features(make(tmp_path / "b", same, images, "cells")),
        ]
        with pytest.raises(InvalidInputError, match=r"of the same images, received vgg16@64 of digits .* of cells"):  # fmt: skip
            FeatureSet.join(sets)


def test_sets_of_the_same_images_are_joined_whatever_their_data_set(tmp_path: Path) -> None:
    sets = [open_features(make(tmp_path)), open_features(make(tmp_path, dataset="relabelled"))]
    assert FeatureSet.join(sets).X.shape == (10, 8)


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
    begin(tmp_path)
    assert not half.exists()  # the next writer of the same file clears it away


@pytest.mark.parametrize("logits_only", [False, True])
def test_no_features_yet_tells_the_command(tmp_path: Path, logits_only: bool) -> None:
    if logits_only:
        make(tmp_path, replace(KEY, pooling=LOGITS))
    with pytest.raises(MissingFileError, match="no feature file yet") as error:
        resolve_features(tmp_path, "digits")
    assert error.value.remedy == Remedy("extract", "digits")


def test_vectors_of_other_images_are_stale(tmp_path: Path) -> None:
    key = replace(KEY, layer="block1", view="flip", pooling="max")
    features = open_features(make(tmp_path, key))
    check_fresh(features, contents_digest(contents(IMAGES)))
    with pytest.raises(StaleError) as error:
        check_fresh(features, contents_digest(contents(range(1, 11))))
    now = contents_digest(contents(range(1, 11)))[:8]
    assert str(error.value) == (
        f"{key.file(tmp_path, 'digits')}: its 10 vectors are of other images than digits has now, or in "
        f"another order (digest {features.contents[:8]}, now {now}); "
        "extract computes those that are new and copies the others"
    )
    flags = ("--backbone", "vgg16", "--size", "64", "--layer", "block1", "--view", "flip", "--pooling", "max")  # fmt: skip
    assert error.value.remedy == Remedy("extract", "digits", flags) and extract_flags(key) == flags


def test_vectors_of_a_recipe_are_found_in_every_data_set(tmp_path: Path, said) -> None:
    """Finished files and unfinished ones; not those of other weights, though their names are the same."""
    finished, begun = make(tmp_path), parts_folder(begin(tmp_path, dataset="cells").path)
    make(tmp_path, replace(KEY, weights="keras:other"), dataset="others")
    begin(tmp_path, replace(KEY, weights="keras:other"), dataset="begun-by-others")
    make(tmp_path, replace(KEY, size=80))
    make(tmp_path, replace(KEY, layer="a"), dataset="x")
    broken = make(tmp_path, dataset="broken")
    broken.write_bytes(broken.read_bytes()[:3000])
    donors, folders = same_recipe(tmp_path, KEY)
    assert [rows.path for rows in donors] == [finished] and folders == [begun]
    assert "broken/features/vgg16@64.h5" in said.text and "nothing is copied from it" in said.text
    elsewhere = Store(tmp_path / "new", (tmp_path,))
    donors, folders = same_recipe(elsewhere, KEY)
    assert [rows.path for rows in donors] == [finished] and folders == [begun]


def test_a_key_with_marks_of_globs_finds_its_own_files_only(tmp_path: Path) -> None:
    odd = replace(KEY, layer="conv[12]*")
    path = make(tmp_path, odd)
    make(tmp_path, replace(KEY, layer="conv1x"))
    donors, _ = same_recipe(tmp_path, odd)
    assert [rows.path for rows in donors] == [path]


def test_any_program_reads_the_file(tmp_path: Path) -> None:
    with h5py.File(make(tmp_path)) as file:
        np.testing.assert_array_equal(file["features"][()], vectors(KEY))
        np.testing.assert_array_equal(file["content"][()], contents(IMAGES))
