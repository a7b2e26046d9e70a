"""What the library `datasets` keeps on a disk: its images, classes and splits, without its code and without a network."""

import gc
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import refused
from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError, UsageError
from onepass.data.config import PrepareConfig
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.prepare import prepare_dataset
from onepass.data.sources import kind_of, open_source
from onepass.data.sources.base import Request
from onepass.data.summary import Prepared

COUNT = 12
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 3), np.uint8)
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Folders as save_to_disk leaves them: one split in two files, and three splits."""
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("saved")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["crow", "emu", "auk", "never"]),
            "note": datasets.Value("string"),
            "boxes": datasets.List(datasets.Value("float32")),
        }
    )
    rows = {
        "image": [Image.fromarray(pixels) for pixels in PIXELS],
        "label": [n % 3 for n in range(COUNT)],
        "note": [f"n{n}" for n in range(COUNT)],
        "boxes": [[0.5]] * COUNT,
    }
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(folder / "birds", num_shards=2)
    splits = {"train": range(6), "validation": range(6, 9), "test": range(9, COUNT)}
    parts = {name: whole.select(numbers) for name, numbers in splits.items()}
    datasets.DatasetDict(parts).save_to_disk(folder / "parted")
    gc.collect()
    return folder


def prepare(place: Path, kind: object) -> tuple[Prepared, ImageDataset]:
    done = prepare_dataset(PrepareConfig(kind=str(kind), cache_dir=place / "store"))
    return done, open_dataset(place / "store", done.name)


def check(dataset: ImageDataset) -> None:
    """Compare every row with what was saved."""
    order = [int(note[1:]) for note in dataset.extra["note"]]
    assert sorted(order) == list(range(COUNT))
    assert np.array_equal(dataset.pixels, PIXELS[order])
    assert dataset.class_ids == ["crow", "emu", "auk"]
    labels = np.where(dataset.labels >= 0, dataset.labels, dataset.held_labels)
    assert labels.tolist() == [n % 3 for n in order]


def test_one_split_in_several_files(saved, tmp_path):
    assert kind_of(str(saved / "birds")) == "hugging-face"
    done, dataset = prepare(tmp_path, saved / "birds")
    check(dataset)
    assert done.name == "birds" and dataset.record.kind == "hugging-face"
    assert dataset.names[0] == "data-00000-of-00002/0000000"
    assert len(dataset.rows("val")) == 3  # drawn, one of each class
    assert "columns of neither text nor numbers are left out: boxes" in done.said
    assert prepare(tmp_path, saved / "birds")[0].state == "cached"
    assert not list((tmp_path / "store").glob("tmp*"))


def test_three_splits(saved, tmp_path):
    _, dataset = prepare(tmp_path, saved / "parted")
    check(dataset)
    assert [len(dataset.rows(split)) for split in ("train", "val", "test")] == [6, 3, 3]
    assert dataset.names[6] == "validation/0000000"


def cached(home: Path, saved: Path, name: str, configuration: str) -> Path:
    """Lay a data set where the library keeps one that it has downloaded."""
    folder = home / "datasets" / name / configuration / "0.0.0" / "ab12"
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        file = saved / "parted" / split / "data-00000-of-00001.arrow"
        shutil.copy(file, folder / f"birds-{split}.arrow")
    shutil.copy(folder / "birds-train.arrow", folder / "cache-0123.arrow")
    (folder / "dataset_info.json").write_text(json.dumps({"splits": {"train": {}, "test": {}}}))
    return folder


def test_what_was_downloaded_before_is_found_and_nothing_else(saved, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with refused(MissingFileError, r"hf://someone/MyBirds: not in .*load_dataset\('someone/MyBirds'\)"):  # fmt: skip
        prepare(tmp_path, "hf://someone/MyBirds")
    cached(tmp_path, saved, "someone___my_birds", "default")
    done, dataset = prepare(tmp_path, "hf://someone/MyBirds")
    assert done.name == "MyBirds" and [len(dataset.rows(s)) for s in ("train", "val", "test")] == [3, 3, 3]  # fmt: skip
    cached(tmp_path, saved, "someone___my_birds", "large")
    with refused(UsageError, "expected one configuration, found default, large; name it, as in hf://someone/MyBirds/default"):  # fmt: skip
        prepare(tmp_path, "hf://someone/MyBirds")
    assert prepare(tmp_path, "hf://someone/MyBirds/default")[1].record.kind == "hugging-face"
    with refused(MissingFileError, "not in"):
        prepare(tmp_path, "hf://../someone___my_birds")


def test_the_library_finds_the_same_place(saved, tmp_path):
    """Where it looks for what it has downloaded is not a promise of the library, so it is compared."""
    datasets = pytest.importorskip("datasets")
    from datasets.load import CachedDatasetModuleFactory

    cached(tmp_path, saved, "someone___my_birds", "default")
    factory = CachedDatasetModuleFactory("someone/MyBirds", cache_dir=str(tmp_path / "datasets"))
    assert factory.get_module().builder_kwargs["repo_id"] == "someone/MyBirds"
    assert datasets.naming.filename_prefix_for_split("birds", "train") == "birds-train"


def test_what_is_damaged_or_leads_elsewhere_is_refused(saved, tmp_path):
    folder = tmp_path / "birds"
    shutil.copytree(saved / "birds", folder)
    state = json.loads((folder / "state.json").read_text())
    for name in ("../x.arrow", "/etc/passwd", ""):
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
        with refused(InvalidInputError, "leads out of it"):
            prepare(tmp_path, folder)
    for wrong in ([], {"_data_files": 3}, {"_data_files": [1]}):
        (folder / "state.json").write_text(json.dumps(wrong))
        with refused(CorruptFileError, "state.json: expected a list of files"):
            prepare(tmp_path, folder)
    (folder / "state.json").write_text(json.dumps(state))
    file = next(folder.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[: -file.stat().st_size // 2])
    with refused(InvalidInputError, "expected a whole Arrow file"):
        prepare(tmp_path, folder)
    file.unlink()
    with refused(MissingFileError, "no such file"):
        prepare(tmp_path, folder)
    with refused(UsageError, "one folder or hf://NAME"), open_source("hugging-face", [Request(None, "", tmp_path)]):  # fmt: skip
        pass
