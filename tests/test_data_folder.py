"""Images in folders of classes: every layout that is promised, one clear error for every other."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.data.sources import open_source
from onepass.data.sources.base import Request, Source
from onepass.data.splits import TEST, TRAIN, VAL


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, names: list[str]) -> Path:
    """Write images (and empty folders, where a name ends with /) into a folder, or a zip of that name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"" if name.endswith("/") else png())
        return path
    for name in names:
        target = path / name
        (target if name.endswith("/") else target.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            target.write_bytes(png())
    return path


def load(path: Path, seed: int = 0) -> Source:
    with open_source("folder", Request(str(path), "", path, seed)) as source:
        return source


def many(*folders: str, count: int = 8) -> list[str]:
    return [f"{folder}/{number}.png" for folder in folders for number in range(count)]


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
def test_train_val_and_test(place, tmp_path):
    names = ["train/dog/b.png", "train/cat/a.jpg", "val/cat/c.PNG", "val/dog/d.png", "test/e.png"]
    source = load(write(tmp_path / place, names))
    assert source.class_ids == source.class_names == ["cat", "dog"]
    assert [(item.name, item.label, item.split) for item in source.items] == [
        ("train/cat/a.jpg", 0, TRAIN),
        ("train/dog/b.png", 1, TRAIN),
        ("val/cat/c.PNG", 0, VAL),
        ("val/dog/d.png", 1, VAL),
        ("test/e.png", -1, TEST),
    ]
    assert "seed" not in source.identity


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
@pytest.mark.parametrize("above", ["", "train/", "photos/", "a/b/train/"])
def test_without_val_a_quarter_of_each_class_is_held_out(above, place, tmp_path):
    names = [*many(f"{above}cat", f"{above}dog"), f"{above}dog/deep/er/9.png"]
    source = load(write(tmp_path / place, names))
    assert source.class_ids == ["cat", "dog"] and len(source.items) == 17
    split = np.array([item.split for item in source.items])
    labels = np.array([item.label for item in source.items])
    assert [int(np.sum(split[labels == k] == VAL)) for k in (0, 1)] == [2, 2]
    assert source.identity["seed"] == 0 and "25%" in source.record.notes[0]
    splits = {tuple(i.split for i in load(tmp_path / place, seed).items) for seed in range(6)}
    assert len(splits) > 1


def test_hidden_and_other_files_are_left_out(tmp_path):
    path = write(tmp_path / "photos", [*many("cat", "dog"), ".git/x.png", "cat/.thumb.png"])
    (path / "cat" / "notes.txt").write_text("x")
    (path / "README").write_text("x")
    assert len(load(path).items) == 16


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([*many("train/cat", "train/dog"), "train/emu/"], "class 'emu' has no image"),
        ([*many("cat", "dog"), "emu/", "fox/"], r"class 'emu' has no image .*\(2 are empty\)"),
        (many("train/cat"), "expected at least two classes, found cat"),
        ([*many("train/cat", "train/dog"), "train/x.png"], "found 1 images outside of them, such as train/x"),
        (["a.png", "b.png"], "expected one folder a class with its images, found 2 images outside"),
        ([*many("train/cat", "train/dog"), "val/emu/1.png"], "emu/1.png: expected val/<class>/ .*cat, dog"),
        ([*many("train/cat", "train/dog"), "val/1.png"], "val/1.png: .*the val split needs labels"),
        ([*many("train/cat", "train/dog"), "valid/cat/1.png"], "found valid/; rename it to val"),
        (many("val/cat", "val/dog"), "expected train/ beside val, found none"),
        ([], "expected one folder a class with its images, found none"),
    ],
)  # fmt: skip
def test_any_other_layout_is_one_clear_error(names, why, place, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InvalidInputError, match=why) as caught:
        load(write(tmp_path / place, names))
    assert place in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_with_one_image_keeps_it_for_training(tmp_path):
    source = load(write(tmp_path / "photos", [*many("cat"), "dog/only.png"]))
    assert [item.split for item in source.items if item.label == 1] == [TRAIN]


def test_a_source_has_to_be_named(tmp_path):
    with pytest.raises(UsageError, match="expected --source"):  # noqa: SIM117
        with open_source("folder", Request(None, "", tmp_path, 0)):
            pass
