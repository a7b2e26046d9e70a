"""A prepared data set: what it promises, and that it notices what was changed."""

import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from onepass.cache.content import contents_digest
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    UnknownNameError,
)
from onepass.cache.names import NEXT_PIXELS
from onepass.cache.rowfile import RowFile, write_rows
from onepass.data.config import PrepareConfig
from onepass.data.dataset import dataset_path, open_dataset
from onepass.data.manifest import Manifest, manifest_path
from onepass.data.prepare import prepare_dataset


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    prepare_dataset(PrepareConfig(kind="digits", cache_dir=folder))
    return folder


def test_types_and_shapes(store):
    digits = open_dataset(store, "digits")
    assert digits.pixels.shape == (1797, 8, 8, 1) and digits.pixels.dtype == np.uint8
    assert isinstance(digits.pixels, np.memmap) and not digits.pixels.flags.writeable
    assert digits.labels.dtype == np.int32 and digits.split.dtype == np.int8
    assert len(digits.names) == 1797 and digits.class_names[3] == "three"
    rows = np.concatenate([digits.rows("train"), digits.rows("val"), digits.rows("test")])
    assert rows.dtype == np.int64 and np.array_equal(np.sort(rows), np.arange(1797))


def test_an_unknown_split_names_the_nearest(store):
    with pytest.raises(UnknownNameError, match="did you mean val"):
        open_dataset(store, "digits").rows("vall")


def test_an_unknown_data_set_names_the_nearest_and_the_command(store, tmp_path):
    with pytest.raises(UnknownNameError, match=r"did you mean digits\?") as unknown:
        open_dataset(store, "digit")
    assert unknown.value.remedy == Remedy("list data sets")
    with pytest.raises(MissingFileError, match="not prepared yet") as missing:
        open_dataset(tmp_path, "solar-cells")
    assert missing.value.remedy == Remedy("prepare", "solar-cells")


def test_it_travels_between_processes_as_a_path(store):
    digits = open_dataset(store, "digits")
    packed = pickle.dumps(digits)
    assert len(packed) < 1000
    again = pickle.loads(packed)
    assert again.digest == digits.digest and np.array_equal(again.pixels, digits.pixels)


def test_the_digest_covers_pixels_labels_splits_names_groups_and_classes(store):
    manifest = Manifest.open(manifest_path(store, "digits"))
    changed = [
        {"pixels": "0" * 64},
        {"content": manifest.content[::-1], "pixels": ""},
        {"labels": (manifest.labels + 1) % 10},
        {"split": 1 - manifest.split},
        {"names": manifest.names[::-1]},
        {"class_ids": manifest.class_ids[::-1]},
        {"class_ids": manifest.class_ids[:-1]},
        {"columns": {**manifest.columns, "group": ["a"] * 1797}},
    ]
    digests = {replace(manifest, **change).digest for change in changed}
    assert len(digests - {manifest.digest}) == 8
    assert replace(manifest, columns={}).digest == manifest.digest == open_dataset(store, "digits").digest  # fmt: skip


@pytest.mark.parametrize("field", ["labels", "split", "names", "source", "stamp"])
def test_a_changed_label_split_or_name_is_noticed_on_opening(field, tmp_path):
    prepare_dataset(PrepareConfig(kind="digits", cache_dir=tmp_path))
    with h5py.File(manifest_path(tmp_path, "digits"), "r+") as file:
        if field == "names":
            file["names/utf8"][3] = ord("x")
        else:
            file[field][5] += 1
    with pytest.raises(CorruptFileError, match=r"prepare digits again|run the command"):
        open_dataset(tmp_path, "digits")


def test_a_reader_finds_the_pixels_that_the_manifest_describes(tmp_path):
    """The manifest is the moment at which new pixels count, whatever their name then."""
    prepare_dataset(PrepareConfig(kind="digits", cache_dir=tmp_path))
    manifest, path = (
        Manifest.open(manifest_path(tmp_path, "digits")),
        dataset_path(tmp_path, "digits"),
    )
    rows = RowFile.open(path)
    half = {name: np.asarray(column[:900]) for name, column in rows.columns.items()}
    inputs = {**rows.inputs, "contents": contents_digest(half["content"])}
    write_rows(path.with_name(NEXT_PIXELS), half, {}, inputs)
    assert open_dataset(tmp_path, "digits").path == path, "the manifest is that of before"
    columns = {name: column[:900] for name, column in manifest.columns.items()}
    replace(
        manifest, content=half["content"], labels=manifest.labels[:900], split=manifest.split[:900],
        names=manifest.names[:900], columns=columns, pixels="",
    ).write()  # fmt: skip
    assert len(open_dataset(tmp_path, "digits").names) == 900
    path.with_name(NEXT_PIXELS).replace(path)
    assert len(open_dataset(tmp_path, "digits").pixels) == 900


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pixels": np.zeros((1797, 8, 8, 2), np.uint8)}, "expected pixels"),
        ({"pixels": np.zeros((1797, 8, 8, 1), np.float32)}, "expected pixels"),
        ({"labels": np.full(1797, 10, np.int32)}, "expected labels -1 to 9, found 10 to 10"),
        ({"labels": np.zeros(5, np.int32)}, "one label, split and name a row"),
        ({"split": np.full(1797, 4, np.int8)}, "expected splits 0 to 3"),
        ({"content": np.zeros((5, 16), np.uint8)}, "one label, split and name a row"),
        ({"class_names": ["one"]}, "one name a class"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, why, store):
    with pytest.raises(InvalidInputError, match=why):
        replace(open_dataset(store, "digits"), **change)


def test_a_flipped_content_is_a_damaged_manifest_not_a_missing_file(tmp_path: Path) -> None:
    """Else the pixels that it names would be looked for in vain."""
    store = tmp_path / "store"
    prepare_dataset(PrepareConfig(kind="digits", cache_dir=store))
    path = store / "digits" / "manifest.h5"
    with h5py.File(path) as file:
        place = file["content"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[place + 100] ^= 4
    path.write_bytes(content)
    with pytest.raises(CorruptFileError, match=r"manifest\.h5: rows 0 to "):
        open_dataset(store, "digits")
