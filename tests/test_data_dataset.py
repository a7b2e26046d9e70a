"""A prepared data set: what it promises, and that it notices what was changed."""

import pickle
from dataclasses import replace

import h5py
import numpy as np
import pytest

from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    Remedy,
    UnknownNameError,
)
from onepass.cache.rows import RowFile
from onepass.data.config import PrepareConfig
from onepass.data.dataset import dataset_digest, dataset_path, open_dataset
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


def test_the_digest_covers_pixels_labels_splits_names_and_classes(store):
    rows = RowFile.open(dataset_path(store, "digits"))
    digits = open_dataset(store, "digits")

    def digest(
        pixels: str = rows.digest, ids=digits.class_ids, names=digits.class_names, **side
    ) -> str:
        return dataset_digest(pixels, {**rows.side, **side}, ids, names)

    changed = {
        digest("0" * 64),
        digest(labels=(digits.labels + 1) % 10),
        digest(split=1 - digits.split),
        digest(names=digits.names[::-1]),
        digest(ids=digits.class_ids[::-1]),
        digest(names=digits.names, ids=digits.class_ids[:-1]),
    }
    assert digest() == digits.digest and digits.digest not in changed and len(changed) == 6


@pytest.mark.parametrize("field", ["labels", "split", "names"])
def test_a_changed_label_split_or_name_is_noticed_on_opening(field, tmp_path):
    prepare_dataset(PrepareConfig(kind="digits", cache_dir=tmp_path))
    with h5py.File(dataset_path(tmp_path, "digits"), "r+") as file:
        file[field][5] = (
            file[field][6] if field == "labels" else {"split": 2, "names": "other"}.get(field)
        )
    with pytest.raises(CorruptFileError, match="prepare digits again"):
        open_dataset(tmp_path, "digits")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"pixels": np.zeros((1797, 8, 8, 2), np.uint8)}, "expected pixels"),
        ({"pixels": np.zeros((1797, 8, 8, 1), np.float32)}, "expected pixels"),
        ({"labels": np.full(1797, 10, np.int32)}, "expected labels -1 to 9, found 10 to 10"),
        ({"labels": np.zeros(5, np.int32)}, "one label, split and name a row"),
        ({"split": np.full(1797, 3, np.int8)}, "expected splits 0 to 2"),
        ({"class_names": ["one"]}, "one name a class"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, why, store):
    with pytest.raises(InvalidInputError, match=why):
        replace(open_dataset(store, "digits"), **change)
