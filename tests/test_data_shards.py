"""Tars of folders, and WebDataset shards: the same images and labels, and nothing hostile."""

import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import refused
from onepass.cache.errors import CorruptFileError, InvalidInputError, OnepassError, UsageError
from onepass.data.archive import Limits, open_tree
from onepass.data.config import PrepareConfig
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.prepare import prepare_dataset
from onepass.data.sources import kind_of, open_source
from onepass.data.sources.base import Request, Source
from onepass.data.splits import TEST, TRAIN, UNDRAWN, VAL
from onepass.data.summary import Prepared

PACKED = ["x.tar", "x.tar.gz", "x.tgz", "x.tar.bz2", "x.tar.xz"]
OLD = 10**18  # ns; what changed just now is not trusted to be as it was


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, files: dict[str, bytes], **header: object) -> Path:
    """Write a tar, packed as its name says; `header` changes its last member."""
    way = {"tgz": "gz", "tar": ""}.get(path.suffix[1:], path.suffix[1:])
    with tarfile.open(path, f"w:{way}") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            if name == list(files)[-1]:
                for key, value in header.items():
                    setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return path


FOLDERS = {
    f"./birds/{split}/{name}/{n}.png": png(10 * k + n)
    for split in ("train", "val")
    for k, name in enumerate(("auk", "emu"))
    for n in range(4)
}


def prepare(place: Path, kind: str | Path, **flags: object) -> tuple[Prepared, ImageDataset]:
    done = prepare_dataset(PrepareConfig(kind=str(kind), cache_dir=place / "store", **flags))  # type: ignore[arg-type]
    return done, open_dataset(place / "store", done.name)


@pytest.mark.parametrize("name", PACKED)
def test_a_tar_of_folders_is_a_folder(tmp_path, name):
    path = write(tmp_path / name, {**FOLDERS, "./birds/.x": b"", "./birds/note.txt": b"x"})
    assert kind_of(str(path)) == "folder"
    os.utime(path, ns=(OLD, OLD))
    done, dataset = prepare(tmp_path, path)
    assert done.name == "x" and dataset.class_ids == ["auk", "emu"]
    assert [len(dataset.rows(split)) for split in ("train", "val", "test")] == [8, 8, 0]
    assert done.left_out == {"hidden": 1, ".txt": 1}
    first = dataset.names.index("train/emu/2.png")
    assert np.array_equal(dataset.pixels[first], np.asarray(Image.open(io.BytesIO(png(12)))))
    assert prepare(tmp_path, path)[0].state == "cached"
    assert not list((tmp_path / "store").glob("tmp*"))


def test_a_compressed_tar_says_its_copy_and_leaves_none(tmp_path, said):
    path = write(tmp_path / "x.tar.gz", FOLDERS)
    with open_tree(path, scratch=tmp_path / "scratch") as tree:
        assert tree.read("birds/val/auk/1.png") == png(1)
        assert not list((tmp_path / "scratch").iterdir())
    assert "x.tar.gz: unpacked once (" in said.text


HOSTILE = [
    ({"../x.png": b""}, {}, "leaves its folder"),
    ({"/etc/x.png": b""}, {}, "absolute name"),
    ({"a\\b.png": b""}, {}, "absolute name"),
    ({"a" * 600: b""}, {}, "600 characters"),
    ({"x.png": b""}, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}, "is a link, a device"),
    ({"y.png": b"1", "x.png": b""}, {"type": tarfile.LNKTYPE, "linkname": "y.png"}, "is a link"),
    ({"x.png": b""}, {"type": tarfile.CHRTYPE}, "is a link, a device"),
    ({"x.png": b""}, {"type": tarfile.FIFOTYPE}, "is a link, a device"),
    ({"a.png": b"1", "./a.png": b"2"}, {}, "'a.png' is in it twice"),
]  # fmt: skip


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
@pytest.mark.parametrize(("files", "header", "why"), HOSTILE, ids=[why for *_, why in HOSTILE])
def test_what_an_attack_needs_is_refused(tmp_path, name, files, header, why):
    path = write(tmp_path / name, files, **header)
    with refused(InvalidInputError, rf"{name}: refused as unsafe: .*{why}"), open_tree(path):
        pass


def test_limits_hold_before_anything_is_made_of_a_member(tmp_path):
    path = write(tmp_path / "x.tar.gz", {"a.png": bytes(1 << 20), "b.png": b""})
    for limits, why in (
        (Limits(members=1), "more than 1 members"),
        (Limits(member_bytes=1000), "'a.png' has 1.0 MB, more than 1.0 kB"),
        (Limits(growth=1000, ratio=2), "it unpacks to more than"),
    ):
        with refused(InvalidInputError, why), open_tree(path, limits):
            pass
    huge = tarfile.TarInfo("x.png")
    huge.size = 10**9
    (tmp_path / "h.tar").write_bytes(huge.tobuf() + bytes(10_000))
    with refused(CorruptFileError, "'x.png' is cut short"), open_tree(tmp_path / "h.tar"):
        pass
    huge.type = tarfile.XHDTYPE
    (tmp_path / "h.tar").write_bytes(huge.tobuf() + bytes(10_000))
    with refused(CorruptFileError, "a header of 1,000,0"), open_tree(tmp_path / "h.tar"):
        pass


@pytest.mark.parametrize("name", PACKED)
def test_a_tar_that_is_cut_or_none(tmp_path, name):
    content = write(tmp_path / name, FOLDERS).read_bytes()
    for changed in (content[: len(content) // 2], b"", b"no tar at all" * 100):
        (tmp_path / name).write_bytes(changed)
        with refused(OnepassError, f"{name}: .*(cannot be read as a tar|cut short)"):  # noqa: SIM117
            with open_tree(tmp_path / name):
                pass


def load(*places: Path | str, **columns: str) -> Source:
    with open_source("webdataset", [Request(str(p), "", Path(), columns=columns) for p in places]) as source:  # fmt: skip
        return source


def write_shards(place: Path, split: str, numbers: range, each: int = 4) -> None:
    """Write samples with the library `webdataset`."""
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(place / f"birds-{split}-%06d.tar"), maxcount=each, verbose=0) as sink:  # fmt: skip
        for n in numbers:
            sink.write({"__key__": f"{n:05}", "png": png(n), "cls": n % 3, "json": {"patient": f"p{n // 2}", "box": [n]}})  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_shards_as_webdataset_writes_them(tmp_path):
    write_shards(tmp_path, "train", range(12))
    write_shards(tmp_path, "val", range(12, 18))
    pattern = f"{tmp_path}/birds-{{train-{{000000..000002}},val-{{000000..000001}}}}.tar"
    assert kind_of(pattern) == kind_of(str(tmp_path)) == "webdataset"
    done, dataset = prepare(tmp_path, pattern, columns=("group=patient",))
    assert done.name == "birds" and dataset.class_ids == ["0", "1", "2"]
    assert [len(dataset.rows(split)) for split in ("train", "val", "test")] == [12, 6, 0]
    assert dataset.names[5] == "birds-train-000001/00005.png"
    assert dataset.groups[4:6] == ["p2", "p2"] and dataset.extra["box"][3] == "[3]"
    assert "columns: label = cls; group = patient; kept: box (--columns changes it)" in done.said
    for n, row in enumerate(dataset.pixels):
        assert np.array_equal(row, np.asarray(Image.open(io.BytesIO(png(n)))))
        assert dataset.class_ids[dataset.labels[n]] == str(n % 3)
    for path in tmp_path.glob("*.tar"):
        os.utime(path, ns=(OLD, OLD))
    prepare(tmp_path, pattern)
    done, _ = prepare(tmp_path, pattern)
    assert done.state == "cached"


def sample(n: int, **more: bytes) -> dict[str, bytes]:
    return {f"{n}.png": png(n), **{f"{n}.{ending}": content for ending, content in more.items()}}


def shard(place: Path, *samples: dict[str, bytes], name: str = "s.tar") -> Path:
    return write(place / name, {k: v for one in samples for k, v in one.items()})


def test_labels_from_json_and_captions_as_columns(tmp_path):
    samples = [sample(n, json=json.dumps({"label": "ab"[n % 2], "age": n}).encode(), txt=b"a bird") for n in range(6)]  # fmt: skip
    path = shard(tmp_path, *samples, {"readme.txt": b"x"})
    with open_source("webdataset", [Request(str(path), "", Path())]) as source:
        assert source.class_ids == ["a", "b"] and {item.split for item in source.items} == {UNDRAWN}
        assert source.side == {"txt": ["a bird"] * 6, "age": [str(n) for n in range(6)]}
        assert source.items[0].name == "0.png" and source.items[3].read() == png(3)


def test_several_shards_named_one_by_one_are_one_data_set(tmp_path):
    for split, first in (("train", 0), ("validation", 4), ("test", 8)):
        shard(tmp_path, *[sample(n, cls=b"%d" % (n % 2)) for n in range(first, first + 4)], name=f"{split}-0.tar")  # fmt: skip
    source = load(*(tmp_path / f"{split}-0.tar" for split in ("train", "validation", "test")))
    assert [item.split for item in source.items] == [TRAIN] * 4 + [VAL] * 4 + [TEST] * 4
    assert source.items[-1].label == -1 and source.items[-1].held_label == 1


ODD = [
    ([sample(0, cls=b"0"), sample(1)], InvalidInputError, "1.png: 1.png has no label"),
    ([sample(0, cls=b"0"), sample(1, jpg=b"")], InvalidInputError, "1: expected one image, found 1.jpg and 1.png"),
    ([sample(0, cls=b"\xff")], InvalidInputError, "0.cls: 'utf-8' codec"),
    ([sample(0, json=b"[1]")], InvalidInputError, r"0.json: expected an object, found \[1\]"),
    ([sample(0, json=b'{"a":' * 100_000)], InvalidInputError, "0.json: it is nested too deep"),
    ([sample(0, json=b" " * (1 << 21))], InvalidInputError, "0.json: more than 1,048,576 bytes"),
    ([sample(0, txt=b"x")], UsageError, "expected a column for the label"),
]  # fmt: skip


@pytest.mark.parametrize(("samples", "kind", "why"), ODD, ids=[why for *_, why in ODD])
def test_a_sample_that_is_none_is_one_clear_line(tmp_path, samples, kind, why):
    with refused(kind, rf"s\.tar: .*{why}"):
        load(shard(tmp_path, *samples))
