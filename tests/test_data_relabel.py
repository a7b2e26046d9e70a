"""The loop of correction: labels as a table, and what a later prepare makes of them."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_data_identity import Place, files, png, write

from conftest import ROOT
from onepass.cache.commandline.command import main
from onepass.cache.errors import (
    InvalidInputError,
    MissingFileError,
    OnepassError,
    UnreadableFileError,
    UsageError,
)
from onepass.data.__main__ import COMMANDS
from onepass.data.config import ExportConfig, RelabelConfig
from onepass.data.dataset import EXCLUDED, dataset_path
from onepass.data.manifest import Manifest, manifest_path
from onepass.data.relabel import Relabelled, _read_table, export_labels, relabel

HEADER = "file,label\n"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    place = Place(tmp_path, monkeypatch)
    write(place.photos, files(8) | {"emu/1.png": png(50), "emu/2.png": png(51)})
    place.prepare()
    return place


def table(place: Place, text: str | bytes, name: str = "labels.csv") -> Relabelled:
    path = place.folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return relabel(RelabelConfig(name="photos", labels=path, cache_dir=place.store))


def label_of(place: Place, name: str) -> str:
    data = place.dataset
    return data.class_ids[data.labels[data.names.index(name)]]


def test_labels_change_and_nothing_else(place):
    before, pixels = place.dataset, place.pixel_file
    done = table(place, HEADER + "cat/1.png,dog\ndog/2.png,dog\ncat/3.png,excluded\n")
    after = place.dataset
    assert done.rows == 3 and done.changed == [
        "labels changed: 1 (cat/1.png: cat → dog)",
        f"splits changed: 1 (cat/3.png: {'train' if before.split[3] == 0 else 'val'} → excluded)",
    ]
    assert label_of(place, "cat/1.png") == "dog" and place.pixel_file == pixels
    assert np.flatnonzero(after.split == EXCLUDED).tolist() == [after.names.index("cat/3.png")]
    for part in ("train", "val", "test"):
        assert after.names.index("cat/3.png") not in after.rows(part)
    kept = after.split != EXCLUDED
    assert np.array_equal(after.split[kept], before.split[kept])
    assert done.digest == after.digest != before.digest


def test_a_table_that_says_what_is_so_changes_nothing(place):
    before = manifest_path(place.store, "photos").stat()
    done = table(place, HEADER + "cat/1.png,cat\n")
    after = manifest_path(place.store, "photos").stat()
    assert not done.changed and (before.st_ino, before.st_mtime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
    )


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbffile,label\ncat/1.png,dog\n",
        b"file;label\r\ncat/1.png;dog\r\n",
        b"file\tlabel\ncat/1.png\tdog\n",
        b"row,File , LABEL,suggested,why\n7, cat/1.png , dog ,x,\"a, b\"\n\n,,,\n",
        b'"file","label"\n"cat/1.png","dog"',
    ],
    ids=["bom", "semicolons", "tabs", "more columns", "quoted"],
)  # fmt: skip
def test_tables_as_spreadsheets_write_them(text, place):
    assert table(place, text).rows == 1 and label_of(place, "cat/1.png") == "dog"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "first line names the columns file and label, found ''"),
        ("name,label\ncat/1.png,dog\n", "first line names the columns"),
        (HEADER + "cat/1.png,dog\ncat/99.png,dog\n", r"line 3: no image is called 'cat/99.png'"),
        (HEADER + "cat/1.png,wolf\n", r"line 2: cat/1.png: expected a class \(cat, dog, emu …\) or excluded, received 'wolf'"),
        (HEADER + "cat/1.png,\n", "line 2: .* received nothing"),
        (HEADER + "cat/1.png,dog\ncat/1.png,emu\n", "line 3: cat/1.png is emu, but dog in line 2"),
        (HEADER + "emu/1.png,dog\nemu/2.png,excluded\n", "a training image of every class, found none of emu"),
        (HEADER + "".join(f"x{n},dog\n" for n in range(9)), "; and 4 more. Nothing was changed"),
        (b"file,label\n\xff\xfe,dog\n", "expected text in UTF-8"),
    ],
)  # fmt: skip
def test_a_wrong_table_changes_nothing(text, why, place):
    before = place.dataset.digest
    with pytest.raises(InvalidInputError, match=why):
        table(place, text)
    assert place.dataset.digest == before
    with pytest.raises(MissingFileError):
        relabel(RelabelConfig(name="photos", labels=Path("nowhere.csv"), cache_dir=place.store))


@pytest.mark.parametrize("name", ["../up", "a/b", "birds"])
def test_a_name_that_is_none_leaves_nothing_behind(name, tmp_path):
    (tmp_path / "labels.csv").write_text(HEADER)
    with pytest.raises(OnepassError):
        relabel(RelabelConfig(name=name, labels=tmp_path / "labels.csv", cache_dir=tmp_path / "s"))
    assert [path.name for path in tmp_path.iterdir()] == ["labels.csv"]


class TestAfterwards:
    def test_prepare_keeps_a_correction_as_long_as_the_source_says_the_same(self, place):
        table(place, HEADER + "cat/1.png,dog\ncat/3.png,excluded\n")
        digest = place.dataset.digest
        done = place.prepare()
        assert done.state == "cached" and place.dataset.digest == digest
        assert "corrected labels kept: 1; the source says what it said then" in done.said
        # a class that comes between the others shifts the numbers, not the corrections
        write(place.photos, {"cow/1.png": png(70), "cow/2.png": png(71), "cow/3.png": png(72)})
        place.prepare()
        assert label_of(place, "cat/1.png") == "dog"
        data = place.dataset
        assert data.split[data.names.index("cat/3.png")] == EXCLUDED

    def test_a_source_that_says_something_new_counts(self, place):
        table(place, HEADER + "cat/1.png,dog\n")
        (place.photos / "cat" / "1.png").rename(place.photos / "emu" / "3.png")
        done = place.prepare()
        assert label_of(place, "emu/3.png") == "emu"
        assert any(line.startswith("corrected labels given up: 1; ") for line in done.said)
        assert not place.decoded

    def test_corrections_that_go_with_their_images_are_said(self, place):
        table(place, HEADER + "cat/1.png,dog\ncat/3.png,excluded\n")
        for name in ("1.png", "3.png", "4.png"):
            (place.photos / "cat" / name).unlink()
        done = place.prepare()
        assert done.said == [
            "gone with their images: 2 corrected labels or exclusions, such as cat/1.png; "
            "relabel again if the images return"
        ]
        assert not place.prepare().said

    def test_a_damaged_manifest_is_kept_and_what_it_held_is_said_to_be_lost(self, place, said):
        table(place, HEADER + "cat/1.png,dog\n")
        path = manifest_path(place.store, "photos")
        damaged = bytearray(path.read_bytes())
        damaged[damaged.index(b"cat/1.png")] ^= 1
        path.write_bytes(damaged)
        place.prepare(dry_run=True)
        assert path.read_bytes() == damaged
        assert place.prepare().state == "prepared" and not place.decoded
        assert path.with_name("manifest.h5.damaged").read_bytes() == damaged
        assert "without the corrections, the split drawn before and the history" in said.text
        assert label_of(place, "cat/1.png") == "cat"

    def test_a_source_that_was_corrected_too_needs_no_correction(self, place):
        table(place, HEADER + "cat/1.png,dog\n")
        (place.photos / "cat" / "1.png").rename(place.photos / "dog" / "fixed.png")
        done = place.prepare()
        assert label_of(place, "dog/fixed.png") == "dog" and not done.said
        assert "source_labels" not in Manifest.open(manifest_path(place.store, "photos")).columns

    def test_the_label_moved_and_the_label_corrected_are_the_same_but_for_the_name(self, place):
        table(place, HEADER + "cat/1.png,dog\n")
        corrected = place.dataset
        (place.photos / "cat" / "1.png").rename(place.photos / "dog" / "fixed.png")
        place.prepare()
        moved = place.dataset
        for name in ("labels", "split", "content"):
            assert np.array_equal(getattr(corrected, name), getattr(moved, name)), name

    def test_an_image_comes_back(self, place):
        before = place.dataset
        table(place, HEADER + "cat/3.png,excluded\n")
        done = table(place, HEADER + "cat/3.png,cat\n")
        assert done.digest == place.dataset.digest == before.digest
        assert "source_split" not in Manifest.open(manifest_path(place.store, "photos")).columns

    def test_a_new_draw_leaves_out_what_was_taken_out(self, place):
        table(place, HEADER + "cat/3.png,excluded\ncat/1.png,dog\n")
        place.prepare(resplit=True, seed=4)
        data = place.dataset
        assert data.split[data.names.index("cat/3.png")] == EXCLUDED
        assert label_of(place, "cat/1.png") == "dog"

    def test_equal_images_under_another_label_are_said(self, place):
        write(place.photos, {"cat/copy.png": files(8)["cat/1.png"]})
        place.prepare()
        assert table(place, HEADER + "cat/1.png,dog\n").said == [
            "equal images that keep another label: 1"
        ]


class TestTestImages:
    def test_labels_of_test_images_stay_apart(self, tmp_path, monkeypatch):
        place = Place(tmp_path, monkeypatch)
        images = {f"train/{k}": v for k, v in files(8).items()}
        write(place.photos, images | {"test/cat/t.png": png(80), "test/u.png": png(81)})
        place.prepare()
        table(place, HEADER + "test/cat/t.png,dog\ntest/u.png,cat\n")
        data = place.dataset
        rows = [data.names.index(name) for name in ("test/cat/t.png", "test/u.png")]
        assert data.labels[rows].tolist() == [-1, -1] and data.held_labels[rows].tolist() == [1, 0]
        assert place.prepare().state == "cached"
        assert place.dataset.held_labels[rows].tolist() == [1, 0]


def test_the_table_written_says_what_is_so_and_the_history_lists_it(place, capsys):
    table(place, HEADER + "cat/1.png,dog\ncat/3.png,excluded\n")
    out = place.folder / "labels out.csv"
    exported = export_labels(
        ExportConfig(name="photos", labels=True, out=out, cache_dir=place.store)
    )
    assert exported.rows == 18
    with out.open(encoding="utf-8-sig", newline="") as file:
        rows = {row["file"]: (row["label"], row["split"]) for row in csv.DictReader(file)}
    assert rows["cat/1.png"][0] == "dog" and rows["cat/3.png"] == ("excluded", "excluded")
    assert not table(place, out.read_bytes(), "again.csv").changed
    with pytest.raises(UsageError, match="expected --labels"):
        export_labels(ExportConfig(name="photos", cache_dir=place.store))
    code = main("data", COMMANDS, ["show", "photos", "--history", "--cache-dir", str(place.store)])
    text = capsys.readouterr().out
    assert code == 0 and "18 images of 3 classes" in text and "cat/1.png: cat → dog" in text


def test_names_that_look_like_formulas_come_back_as_they_were(tmp_path, monkeypatch):
    place = Place(tmp_path, monkeypatch)
    images = files(8) | {"=1+1/ x.png ": png(60), "=1+1/-2.png": png(61), "@cat/;a.png": png(62)}
    write(place.photos, {name.replace("x.png ", "x.png"): data for name, data in images.items()})
    place.prepare()
    out = place.folder / "labels.csv"
    export_labels(ExportConfig(name="photos", labels=True, out=out, cache_dir=place.store))
    text = out.read_text("utf-8-sig")
    assert "'=1+1/-2.png,'=1+1" in text and "'@cat/;a.png" in text
    assert not table(place, out.read_bytes()).changed
    done = table(place, text.replace("'=1+1/-2.png,'=1+1", "'=1+1/-2.png,'@cat"))
    assert done.changed == ["labels changed: 1 (=1+1/-2.png: =1+1 → @cat)"]


def test_neither_pillow_nor_tensorflow_nor_the_pixels_are_needed(place):
    (place.folder / "labels.csv").write_text(HEADER + "cat/1.png,dog\n")
    dataset_path(place.store, "photos").rename(place.folder / "elsewhere.h5")
    code = (
        "import sys; from onepass.cache.commandline.command import main; from onepass.data.__main__ import COMMANDS\n"
        "code = main('data', COMMANDS, sys.argv[1:])\n"
        "print(sorted({'tensorflow', 'keras', 'PIL', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)), file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "relabel", "photos", "--labels", place.folder / "labels.csv",
         "--cache-dir", place.store],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr.strip() == "[]", done.stderr
    assert "no image decoded, no vector computed" in done.stdout
    assert "Next: onepass classify --dataset photos" in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [("x" * 200_000 + ",file,label\n", "field larger"), ('file,label\n"' + "x" * 200_000, "line")],
)
def test_a_table_with_a_field_without_end_is_one_clear_error(
    tmp_path: Path, content: str, words: str
) -> None:
    (tmp_path / "labels.csv").write_text(content)
    with pytest.raises(InvalidInputError, match=rf"labels\.csv: .*{words}"):
        _read_table(tmp_path / "labels.csv")


def test_a_device_is_no_table() -> None:
    with pytest.raises(UnreadableFileError, match="a pipe or a device"):
        _read_table(Path("/dev/zero"))
