"""Images in folders of classes: every layout that is promised, one clear error for every other."""

import io
import os
import unicodedata
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from onepass.cache.errors import InvalidInputError, UsageError
from onepass.data.sources import open_source
from onepass.data.sources.base import Request, Source
from onepass.data.splits import TEST, TRAIN, UNDRAWN, VAL


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


def load(path: Path, layout: str = "auto") -> Source:
    with open_source("folder", [Request(str(path), "", path, layout)]) as source:
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


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
@pytest.mark.parametrize("above", ["", "train/", "photos/", "a/b/train/"])
def test_without_val_the_training_images_are_yet_to_be_drawn(above, place, tmp_path):
    names = [*many(f"{above}cat", f"{above}dog"), f"{above}dog/deep/er/9.png"]
    source = load(write(tmp_path / place, names))
    assert source.class_ids == ["cat", "dog"] and len(source.items) == 17
    assert {item.split for item in source.items} == {UNDRAWN}


def test_hidden_and_other_files_are_left_out(tmp_path):
    path = write(tmp_path / "photos", [*many("cat", "dog"), ".git/x.png", "cat/.thumb.png"])
    (path / "cat" / "notes.txt").write_text("x")
    (path / "README").write_text("x")
    source = load(path)
    assert len(source.items) == 16
    assert source.left_out == {"in .git": 1, "hidden": 1, ".txt": 1, "without a suffix": 1}


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([*many("train/cat", "train/dog"), "train/emu/"], "class 'emu' has no image"),
        ([*many("cat", "dog"), "emu/", "fox/"], r"class 'emu' has no image .*\(2 are empty\)"),
        (many("train/cat"), "expected at least two classes, found cat"),
        ([*many("train/cat", "train/dog"), "train/x.png"], "found 1 image outside of them, such as train/x"),
        (["a.png", "b.png"], "expected one folder a class with its images, found 2 images outside"),
        ([*many("train/cat", "train/dog"), "val/emu/1.png"], "emu/1.png: expected val/<class>/ .*cat, dog"),
        ([*many("train/cat", "train/dog"), "val/1.png"], "val/1.png: .*the val split needs labels"),
        ([*many("train/cat", "train/dog"), "vl/cat/1.png"], "found vl/; rename it to val, or say --layout classes"),
        (many("val/cat", "val/dog"), "expected train/ beside val/, found none"),
        (many("Testing/cat", "Testing/dog", "eval/cat"), "expected train/ beside Testing/, eval/, found none"),
        (many("train/cat", "train/dog", "dev/cat", "valid/cat"), "one folder of the val split, found dev/ and valid/"),
        (many("Treino/cat", "Treino/dog", "Teste/cat", "Teste/dog"), "Teste/ and Treino/ both hold cat/ and dog/"),
        (many("2023/cat", "2023/dog", "2024/cat", "2024/dog"), "2023/ and 2024/ both hold .*, or say --layout classes"),
        (many("cat/train", "cat/test", "dog/train", "dog/test"), "cat/ and dog/ both hold test/ and train/"),
        (["Training/1.png", "Training/2.png", "Testing/3.png"], "expected one folder a class .* 2 images outside"),
        ([], "expected one folder a class with its images, found none"),
    ],
)  # fmt: skip
def test_any_other_layout_is_one_clear_error(names, why, place, tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(InvalidInputError, match=why) as caught:
        load(write(tmp_path / place, names))
    assert place in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_test_alone_holds_images_without_labels(tmp_path):
    source = load(write(tmp_path / "new", ["test/1.png", "test/2.png"]))
    source.check()
    assert source.class_ids == [] and [item.split for item in source.items] == [TEST, TEST]
    with pytest.raises(InvalidInputError, match="expected train/ beside test/"):
        load(write(tmp_path / "classes", many("test/cat", "test/dog")))


def test_a_source_has_to_be_named(tmp_path):
    with pytest.raises(UsageError, match="expected --source"):  # noqa: SIM117
        with open_source("folder", [Request(None, "", tmp_path)]):
            pass


SPELLINGS = [
    ("Training", "Validation", "Testing"), ("TRAIN", "VAL", "TEST"), ("train", "valid", "test"),
    ("train", "dev", "test"), ("train", "dev", "eval"), ("train_images", "val_images", "test_images"),
    ("01-train", "02-validation", "03-test"), ("trainSet", "valSet", "testSet"), ("trn", "eval", "tst"),
    ("training set", "development set", "hold-out"), ("seg_train", "seg_val", "seg_test"),
    ("Flowers Train", "Flowers Validate", "Flowers Tests"), ("traindata", "valdata", "testdata"),
]  # fmt: skip


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
@pytest.mark.parametrize("names", [s for s in SPELLINGS if s != ("train", "dev", "eval")])
def test_splits_are_understood_however_they_are_spelt(names, place, tmp_path):
    train, val, test = names
    files = many(*(f"{split}/{name}" for split in names for name in ("cat", "dog")), count=2)
    source = load(write(tmp_path / place, files))
    assert source.class_ids == ["cat", "dog"] and len(source.items) == 12
    for folder, split in ((train, TRAIN), (val, VAL), (test, TEST)):
        found = [item for item in source.items if item.name.startswith(folder + "/")]
        assert [(i.split, i.label, i.held_label) for i in found] == [
            (split, -1 if split == TEST else k, k if split == TEST else -1) for k in (0, 0, 1, 1)
        ]
    if train != "train":
        assert f"{train}/ was taken for the train split." in source.record.notes


def test_train_dev_eval_is_asked_about(tmp_path):
    """Either may be the validation split."""
    files = many("train/cat", "train/dog", "dev/cat", "eval/cat")
    with pytest.raises(InvalidInputError, match="found dev/ and eval/; rename or join them"):
        load(write(tmp_path / "photos", files))


@pytest.mark.parametrize(
    "names", [("Training", "Testing"), ("2023", "2024"), ("valid", "invalid"), ("train", "bus")]
)
def test_folders_that_only_look_like_splits_are_classes_where_it_is_said(names, tmp_path):
    path = write(tmp_path / "photos", many(*(f"{name}/{k}" for name in names for k in "ab")))
    if names != ("Training", "Testing"):
        with pytest.raises(InvalidInputError, match="--layout classes"):
            load(path)
    assert load(path, layout="classes").class_ids == sorted(names)


def test_sub_folders_of_one_common_name_are_no_splits(tmp_path):
    source = load(write(tmp_path / "photos", many("cat/images", "dog/images", "emu/images/deep")))
    assert source.class_ids == ["cat", "dog", "emu"] and len(source.items) == 24


def test_a_split_may_lie_in_a_folder_of_its_own(tmp_path):
    files = many("seg_train/seg_train/cat", "seg_train/seg_train/dog", "seg_test/seg_test/dog")
    source = load(write(tmp_path / "photos", files))
    assert source.class_ids == ["cat", "dog"]
    assert [item.held_label for item in source.items if item.split == TEST] == [1] * 8


def test_test_images_without_folders_of_classes_have_no_held_label(tmp_path):
    files = [*many("train/cat", "train/dog"), "test/1.png", "test/images/2.png", "test/cat/3.png"]
    source = load(write(tmp_path / "photos", files))
    held = {item.name: item.held_label for item in source.items if item.split == TEST}
    assert held == {"test/1.png": -1, "test/cat/3.png": 0, "test/images/2.png": -1}


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
def test_class_names_that_differ_only_in_unicode_form_are_one_class(place, tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Gänse") for form in ("NFC", "NFD"))
    assert composed != decomposed
    files = [f"{composed}/1.png", f"{decomposed}/2.png", *many("Enten")]
    source = load(write(tmp_path / place, files))
    assert source.class_ids == ["Enten", composed]
    assert sorted(item.name for item in source.items if item.label == 1) == [
        f"{composed}/1.png", f"{composed}/2.png",
    ]  # fmt: skip
    with open_source("folder", [Request(str(tmp_path / place), "", tmp_path)]) as opened:
        assert all(item.read() for item in opened.items)
    with pytest.raises(InvalidInputError, match=f"found {composed}/2.png twice .*rename one"):
        load(write(tmp_path / ("more" + place), [*files, f"{composed}/2.png"]))


@pytest.mark.parametrize("place", ["photos", "photos.zip"])
def test_folders_and_files_of_systems_are_left_out_and_counted(place, tmp_path):
    aside = {
        "in @eaDir": ["cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir/1.jpg"],
        "in $RECYCLE.BIN": ["$RECYCLE.BIN/cat.png"],
        "in __MACOSX": ["__MACOSX/cat/._0.png"],
        "in .Trash-1000": [".Trash-1000/files/0.png"],
        "in .thumbnails": ["dog/.thumbnails/0.png"],
        "in #recycle": ["#recycle/0.png"],
        "in lost+found": ["lost+found/0.png"],
        "Thumbs.db": ["cat/Thumbs.db", "dog/Thumbs.db"],
        ".DS_Store": [".DS_Store"],
        "desktop.ini": ["desktop.ini"],
        "hidden": ["dog/._0.png"],
        ".heic": ["dog/1.heic", "dog/2.HEIC"],
    }
    names = [name for some in aside.values() for name in some]
    source = load(write(tmp_path / place, [*many("cat", "dog"), *names]))
    assert source.class_ids == ["cat", "dog"] and len(source.items) == 16
    assert source.left_out == {kind: len(some) for kind, some in aside.items()}


def test_whatever_pillow_reads_is_read_and_the_content_decides_without_a_suffix(tmp_path):
    path = write(tmp_path / "photos", many("cat", "dog"))
    kinds = {"a.jfif": "JPEG", "b.jpe": "JPEG", "c.JP2": "JPEG2000", "d.tga": "TGA", "e.avif": "AVIF",
             "f": "PNG", "g.0001": "JPEG", "h": "TIFF", "i.ico": "ICO", "j.webp": "WEBP"}  # fmt: skip
    for name, kind in kinds.items():
        Image.new("RGB", (8, 8), "red").save(path / "cat" / name, kind)
    others = {"LICENSE": b"Python is free, and so is this text", "short": b"P", "k.0002": b"no image at all, only text",
              "l.eps": b"%!PS-Adobe-3.0 EPSF-3.0", "m.pdf": b"%PDF-1.7"}  # fmt: skip
    for name, content in others.items():
        (path / "dog" / name).write_bytes(content)
    source = load(path)
    assert {item.name for item in source.items} >= {f"cat/{name}" for name in kinds}
    assert len(source.items) == 16 + len(kinds)
    assert source.left_out == {"without a suffix": 3, ".eps": 1, ".pdf": 1}


def test_a_dangling_link_is_an_image_that_is_not_there(tmp_path):
    path = write(tmp_path / "photos", many("cat", "dog"))
    (path / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (path / "dog" / "loop").symlink_to(path / "dog" / "loop")
    os.mkfifo(path / "dog" / "pipe.png")
    source = load(path)
    assert {"cat/gone.jpg", "dog/loop"} <= {item.name for item in source.items}
    assert source.left_out == {"pipe or device": 1}
