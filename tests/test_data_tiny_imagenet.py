"""Tiny ImageNet: labels, order and names from its own layout, wherever it lies; and the real one."""

import io
import json
import os
import resource
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from onepass.cache.errors import CorruptFileError, InvalidInputError, UsageError
from onepass.data.config import PrepareConfig
from onepass.data.dataset import ImageDataset, open_dataset, prepared_names
from onepass.data.prepare import prepare_dataset
from onepass.data.sources import open_source
from onepass.data.sources.base import Request

WNIDS = ["n03", "n01", "n02"]  # not sorted, as in the real wnids.txt
VAL = {"val_0.JPEG": "n02", "val_1.JPEG": "n03", "val_2.JPEG": "n01", "val_10.JPEG": "n01"}


def jpeg(value: int, mode: str = "RGB", size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (value, value, value)).convert(mode).save(
        buffer, "JPEG", quality=95
    )
    return buffer.getvalue()


def tiny_files() -> dict[str, bytes]:
    """A Tiny ImageNet of three classes; each image has a grey level of its own."""
    files = {
        "wnids.txt": "\n".join(WNIDS).encode(),
        "words.txt": b"n01\tgoldfish, Carassius auratus\nn02\tcrane\nn99\tunused\n",
        "val/val_annotations.txt": "".join(
            f"{name}\t{wnid}\t0\t32\t44\t62\n" for name, wnid in VAL.items()
        ).encode(),
    }
    for k, wnid in enumerate(WNIDS):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = b"0\t1\t2\t3\n"
        for i, number in enumerate((0, 2, 10)):
            mode = "L" if number == 2 else "RGB"
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = jpeg(20 * k + 5 * i, mode)
    files |= {f"val/images/{name}": jpeg(100 + 5 * i) for i, name in enumerate(VAL)}
    files |= {f"test/images/test_{number}.JPEG": jpeg(200 + number) for number in (0, 9, 11)}
    return files


def write_zip(path: Path, files: dict[str, bytes], top: str = "tiny-imagenet-200/") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(top + name, content)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def prepare(source: Path | str, tmp_path: Path, **flags) -> ImageDataset:
    flags = {"raw_dir": tmp_path / "raw", "cache_dir": tmp_path / "store", **flags}
    prepare_dataset(PrepareConfig(kind="tiny-imagenet", source=(str(source),), **flags))
    return open_dataset(flags["cache_dir"], "tiny-imagenet")


@pytest.mark.parametrize("form", ["zip", "zip without a top folder", "folder", "folder above"])
def test_classes_labels_names_and_order_wherever_it_lies(form, tmp_path):
    files = tiny_files()
    path = tmp_path / "source"
    if form.startswith("zip"):
        write_zip(path, files, "" if "without" in form else "tiny-imagenet-200/")
    else:
        write_folder(path / "tiny-imagenet-200", files)
        path = path / "tiny-imagenet-200" if form == "folder" else path
    dataset = prepare(path, tmp_path)
    assert dataset.class_ids == ["n01", "n02", "n03"]
    assert dataset.class_names == ["goldfish, Carassius auratus", "crane", "n03"]
    train = [f"{wnid}_{number}.JPEG" for wnid in ("n01", "n02", "n03") for number in (0, 2, 10)]
    val = ["val_0.JPEG", "val_1.JPEG", "val_2.JPEG", "val_10.JPEG"]
    assert dataset.names == [*train, *val, "test_0.JPEG", "test_9.JPEG", "test_11.JPEG"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 1, 2, 0, 0, -1, -1, -1]
    assert dataset.labels.dtype == np.int32 and dataset.split.dtype == np.int8
    assert dataset.rows("val").tolist() == [9, 10, 11, 12]
    assert dataset.pixels.shape == (16, 64, 64, 3)
    levels = [20, 25, 30, 40, 45, 50, 0, 5, 10, 100, 105, 110, 115, 200, 209, 211]
    assert np.abs(dataset.pixels.mean(axis=(1, 2, 3)) - levels).max() < 1.5


def test_any_number_of_images_a_class_and_no_test_split(tmp_path):
    files = {
        n: c for n, c in tiny_files().items() if not n.startswith("test/") and "n02_10" not in n
    }
    dataset = prepare(write_zip(tmp_path / "x.zip", files), tmp_path)
    assert np.bincount(dataset.labels[dataset.rows("train")]).tolist() == [3, 2, 3]
    assert dataset.rows("test").size == 0


def without(*parts: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {n: c for n, c in files.items() if not any(part in n for part in parts)}


def with_file(name: str, content: bytes) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda files: {**files, name: content}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (without("wnids.txt"), "expected Tiny ImageNet"),
        (without("val_annotations"), "expected Tiny ImageNet"),
        (without("train/n02/images"), "a training image of every class, found none of n02"),
        (without("train/"), "found none of n01, n02, n03"),
        (without("val/images"), "expected validation images in val/images"),
        (without("val_1.JPEG"), "names 1 image not there, such as val_1.JPEG"),
        (with_file("val/images/val_7.JPEG", b"x"), "gives no label for val/images/val_7.JPEG"),
        (with_file("train/n55/images/n55_0.JPEG", b"x"), "n55_0.JPEG: its class is not in wnids.txt"),
        (with_file("val/val_annotations.txt", b"val_0.JPEG\tn77\t0\n"), "names n77, which is not in wnids"),
        (with_file("train/n01/images/n01_3.JPEG", jpeg(0)[:400]), r"1 of 17 images cannot be used: n01_3\.JPEG"),
        (with_file("train/n01/images/n01_3.JPEG", jpeg(0, size=32)), r"n01_3\.JPEG: expected 64 x 64 px, found 32"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(change, why, tmp_path):
    path = write_zip(tmp_path / "x.zip", change(tiny_files()))
    with pytest.raises(InvalidInputError, match=why) as caught:
        prepare(path, tmp_path)
    assert "x.zip" in str(caught.value) and "\n" not in str(caught.value)
    assert not prepared_names(tmp_path / "store")


@pytest.fixture
def served(tmp_path):
    """A folder that a server on this machine gives out, and its address."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the test's output clean."""


def test_from_an_address_once(served, tmp_path):
    folder, url = served
    path = write_zip(folder / "tiny.zip", tiny_files())
    local = prepare(path, tmp_path, cache_dir=tmp_path / "other")
    assert prepare(url + "/tiny.zip", tmp_path).digest == local.digest
    path.unlink()
    assert prepare(url + "/tiny.zip", tmp_path).digest == local.digest
    assert [p.suffix for p in (tmp_path / "raw").iterdir()] == [".zip"]


def test_two_addresses_with_one_file_name_are_two_downloads(served, tmp_path):
    folder, url = served
    (folder / "a").mkdir()
    (folder / "b").mkdir()
    write_zip(folder / "a" / "tiny.zip", tiny_files())
    write_zip(folder / "b" / "tiny.zip", without("test/")(tiny_files()))
    assert prepare(url + "/a/tiny.zip", tmp_path).rows("test").size == 3
    with pytest.raises(InvalidInputError, match=r"tiny-imagenet is made from .*--name"):
        prepare(url + "/b/tiny.zip", tmp_path)
    other = tmp_path / "other"
    assert prepare(url + "/b/tiny.zip", tmp_path, cache_dir=other).rows("test").size == 0


def test_a_download_with_a_wrong_digest_is_refused(served, tmp_path):
    folder, url = served
    write_zip(folder / "tiny.zip", tiny_files())
    with pytest.raises(CorruptFileError, match=r"expected sha256:0000.*was deleted"):
        prepare(url + "/tiny.zip", tmp_path, digest="sha256:" + "0" * 64)
    assert not list((tmp_path / "raw").iterdir())


def test_an_address_that_is_no_zip_and_a_digest_for_a_file(tmp_path):
    with pytest.raises(InvalidInputError, match=r"expected the address of a \.zip file"):
        prepare("http://127.0.0.1:9/tiny.tar", tmp_path)
    with pytest.raises(UsageError, match="--digest is for downloads"):
        prepare(tmp_path / "x.zip", tmp_path, digest="md5:" + "0" * 32)


def test_a_truncated_zip_is_one_clear_error(tmp_path):
    path = write_zip(tmp_path / "x.zip", tiny_files())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CorruptFileError, match=r"x\.zip: .*cut short: get it again"):
        prepare(path, tmp_path)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "data", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def seconds_of_children() -> float:
    """Return what the processes started here have taken of the processor."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_the_real_archive(tiny_imagenet_zip, tmp_path):
    store = ("--cache-dir", str(tmp_path))
    command = ("prepare", "tiny-imagenet", "--source", str(tiny_imagenet_zip), *store)
    before = seconds_of_children()
    first = run(*command, "--json")
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert result["state"] == "prepared" and seconds_of_children() - before < 60
    assert result["summary"]["classes"] == 200
    assert result["summary"]["splits"]["val"] == result["summary"]["splits"]["test"] == 10_000
    again = run(*command)
    assert (
        again.returncode == 0 and "nothing to do" in again.stdout and "packing" not in again.stderr
    )

    dataset = open_dataset(tmp_path, "tiny-imagenet")
    assert dataset.pixels.shape[1:] == (64, 64, 3)
    assert dataset.names[dataset.rows("val")[9999]] == "val_9999.JPEG"
    with open_source("tiny-imagenet", [Request(str(tiny_imagenet_zip), "", tmp_path)]) as source:
        for row in np.random.default_rng(0).choice(len(dataset.names), 50, replace=False):
            item = source.items[row]
            expected = np.asarray(Image.open(io.BytesIO(item.read())).convert("RGB"))
            assert np.array_equal(dataset.pixels[row], expected)
            assert (item.name, item.label, item.split) == (
                dataset.names[row],
                dataset.labels[row],
                dataset.split[row],
            )

    assert run("verify", "tiny-imagenet", *store).returncode == 0
    offset = dataset.pixels.offset + 31_234 * 64 * 64 * 3 + 5
    with dataset.path.open("r+b") as file:
        byte = os.pread(file.fileno(), 1, offset)
        os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), offset)
    bad = run("verify", *store)
    assert bad.returncode == 1
    start, stop = (
        int(word) for word in bad.stderr.split("rows ")[1].split(" differ")[0].split(" to ")
    )
    assert start <= 31_234 <= stop and stop - start < 1500
