"""What TensorFlow Datasets has made on this machine, where it is installed (it is not among our requirements)."""

from pathlib import Path

import numpy as np
import pytest

from conftest import refused
from onepass.cache.errors import MissingFileError
from onepass.data.config import PrepareConfig
from onepass.data.dataset import open_dataset
from onepass.data.prepare import prepare_dataset
from onepass.data.sources import kind_of

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
pytestmark = pytest.mark.filterwarnings("ignore")


def test_what_was_not_made_here_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    for name in ("birds", "../birds"):
        with refused(MissingFileError, r"not in .*t.builder\(.*\).download_and_prepare"):
            prepare_dataset(PrepareConfig(kind=f"tfds://{name}", cache_dir=tmp_path / "store"))


def test_splits_labels_and_images(tmp_path: Path, monkeypatch):
    tfds = pytest.importorskip("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=["crow", "emu"]),
            "id": tfds.features.Text(),
        }
    )
    rows = [(n, {"image": PIXELS[n], "label": n % 2, "id": str(n)}) for n in range(12)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="birds", version="1.0.0", features=features, data_dir=tmp_path,
        split_datasets={"train": rows[:8], "test": rows[8:]}, disable_shuffling=True,
    )  # fmt: skip
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    folder = next(tmp_path.rglob("features.json")).parent
    assert kind_of(str(folder)) == "tensorflow-datasets"
    for kind in ("tfds://birds", folder):
        done = prepare_dataset(PrepareConfig(kind=str(kind), cache_dir=tmp_path / "store"))
        dataset = open_dataset(tmp_path / "store", done.name)
        order = [int(text) for text in dataset.extra["id"]]
        assert sorted(order) == list(range(12)) and np.array_equal(dataset.pixels, PIXELS[order])
        assert dataset.class_ids == ["crow", "emu"] and len(dataset.rows("test")) == 4
        labels = np.where(dataset.labels >= 0, dataset.labels, dataset.held_labels)
        assert labels.tolist() == [n % 2 for n in order]
