"""Arrays of images and labels: the usual names and shapes, and one clear line for every other."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import datasets

from conftest import refused
from onepass.cache.errors import InvalidInputError, MissingFileError, OnepassError, UsageError
from onepass.data.config import PrepareConfig
from onepass.data.dataset import open_dataset
from onepass.data.prepare import prepare_dataset
from onepass.data.sources import kind_of, open_source
from onepass.data.sources.base import Request, Source
from onepass.data.splits import TEST, TRAIN, UNDRAWN, VAL

COLOUR = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
GREY, LABELS = COLOUR[..., 0], np.arange(12) % 3


def load(place: Path | str) -> Source:
    with open_source("arrays", [Request(str(place), "", Path())]) as source:
        return source


def save(place: Path, packed: bool = False, **arrays: object) -> Path:
    path = place / "birds.npz"
    (np.savez_compressed if packed else np.savez)(path, **arrays)  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y"), ("X", "target"), ("arr_0", "arr_1")])  # fmt: skip
def test_images_and_labels_of_every_usual_name(tmp_path, images, labels, packed):
    path = save(tmp_path, packed, **{images: COLOUR, labels: LABELS, "note": np.zeros(3)})
    done = prepare_dataset(PrepareConfig(kind=str(path), cache_dir=tmp_path / "store"))
    dataset = open_dataset(tmp_path / "store", "birds")
    assert kind_of(str(path)) == "arrays" and done.new == 12
    assert np.array_equal(dataset.pixels, COLOUR) and dataset.labels.tolist() == LABELS.tolist()
    again = prepare_dataset(PrepareConfig(kind=str(path), cache_dir=tmp_path / "store"))
    assert (again.state, again.new) == ("cached", 0)


def test_splits_by_the_names_of_the_arrays(tmp_path):
    medmnist = {f"{split}_{kind}": array[low : low + 4] for low, split in ((0, "train"), (4, "val"), (8, "test")) for kind, array in (("images", COLOUR), ("labels", LABELS[:, None]))}  # fmt: skip
    source = load(save(tmp_path, True, **medmnist))
    assert [item.split for item in source.items] == [TRAIN] * 4 + [VAL] * 4 + [TEST] * 4
    assert [item.name for item in source.items[4:6]] == ["val/0000000", "val/0000001"]
    assert source.items[-1].label == -1 and source.items[-1].held_label == 2
    keras = {"x_train": GREY[:8], "y_train": LABELS[:8], "x_test": GREY[8:], "y_test": LABELS[8:]}
    source = load(save(tmp_path, **keras))
    assert [item.split for item in source.items] == [UNDRAWN] * 8 + [TEST] * 4


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (COLOUR.transpose(0, 3, 1, 2), COLOUR),
        (COLOUR.astype(np.float32) / 255, COLOUR),
        (COLOUR.astype(np.int64), COLOUR),
    ],
)
def test_shapes_and_numbers(tmp_path, images, expected):
    source = load(save(tmp_path, images=images, labels=LABELS))
    assert np.array_equal(np.stack([item.read() for item in source.items]), expected)


def test_names_of_classes(tmp_path):
    path = save(tmp_path, images=GREY, labels=LABELS, class_names=np.array(["emu", "auk", "owl"]))
    assert load(path).class_ids == ["emu", "auk", "owl"]
    path = save(tmp_path, images=GREY, labels=np.array([b"emu", b"auk"] * 6))
    assert load(path).class_ids == ["auk", "emu"]


ODD = [
    ({"a": GREY, "b": LABELS}, r"expected arrays images and labels .* found a \(12, 8, 8\), b \(12,\)"),
    ({"images": GREY, "labels": LABELS[:5]}, r"expected one label each, 12, found an array \(5,\)"),
    ({"images": GREY, "labels": np.eye(12)}, r"found an array \(12, 12\)"),
    ({"images": GREY.reshape(12, 64), "labels": LABELS}, r"expected \(N, height, width\) .* found \(12, 64\)"),
    ({"images": GREY[:0], "labels": LABELS[:0]}, r"found \(0, 8, 8\)"),
    ({"images": GREY.astype(float) - 1000, "labels": LABELS}, "expected numbers 0 to 255"),
    ({"images": GREY * np.nan, "labels": LABELS}, "expected numbers 0 to 255"),
    ({"images": GREY, "labels": LABELS * 0}, "at least two classes, found 0"),
    ({"images": GREY, "labels": LABELS / 2}, "row 1: expected a class, found the fraction 0.5"),
    ({"images": GREY, "labels": LABELS, "class_names": np.array(["a", "b"])}, "row 2: expected a class 0 to 1"),
    ({"images": np.array([GREY, None], object), "labels": LABELS}, "objects are never read"),
    ({"images": np.zeros((12, 2000, 2000), np.uint8), "labels": LABELS}, "larger than is allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("arrays", "why"), ODD, ids=[why for _, why in ODD])
def test_what_is_no_array_of_images_is_one_clear_line(tmp_path, arrays, why):
    with refused(InvalidInputError, rf"birds\.npz.*{why}"):
        load(save(tmp_path, "larger" in why, **arrays))


def test_what_has_to_be_downloaded_first_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    with refused(MissingFileError, r"keras.datasets.mnist.load_data\(\)"):
        load("keras://mnist")
    with refused(MissingFileError, r"sklearn.datasets.fetch_olivetti_faces\(\)"):
        load("sklearn://olivetti_faces")
    with refused(InvalidInputError, "expected a data set of images"):
        load("sklearn://iris")
    with refused(UsageError, "data prepare digits"):
        load("sklearn://digits")
    with refused(InvalidInputError, "expected a data set of images"):
        load("sklearn://openml")
    with refused(OnepassError, "no such file"):
        load(tmp_path / "no.npz")
    (tmp_path / "datasets").mkdir()
    np.savez(tmp_path / "datasets" / "mnist.npz", x_train=GREY, y_train=LABELS)
    assert len(load("keras://mnist").items) == 12
    faces = SimpleNamespace(images=GREY / np.float32(255), target=LABELS)
    monkeypatch.setattr(datasets, "fetch_olivetti_faces", lambda download_if_missing: faces)
    source = load("sklearn://olivetti_faces")
    assert np.array_equal(source.items[3].read(), GREY[3]) and source.name == "olivetti_faces"
