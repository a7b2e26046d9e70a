"""Every reader of bytes or text from elsewhere, and changed, cut and made-up inputs for each.

What a reader may do with any input: read it, or raise an `OnepassError` in one line that names the file.
`tests/test_fuzz.py` tries a few inputs of each, `benchmarks/fuzz.py` thousands. An input that a reader
once failed on lies in `tests/fuzz_inputs/<reader>/` and is tried every time.
"""

import io
import json
import multiprocessing
import random
import shutil
import struct
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import h5py
import numpy as np
from artifact_examples import example, kinds
from PIL import Image

from onepass.__main__ import run
from onepass.cache import format1
from onepass.cache.arrays import pack_arrays, unpack_arrays
from onepass.cache.artifacts import DIGEST, to_json
from onepass.cache.commandline.advice import LONGEST, with_advice
from onepass.cache.commandline.flags import parse_duration
from onepass.cache.commandline.terminal import one_line, printable
from onepass.cache.csv_text import csv_text
from onepass.cache.errors import CorruptFileError, OnepassError, UsageError
from onepass.cache.features import parse_key_text
from onepass.cache.names import check_name, check_run
from onepass.cache.provenance import digest_bytes, digest_json
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.shards import Column, ShardKind, read_shard, shard_digest, write_shard
from onepass.cache.stderr import suppress_stderr
from onepass.classify.heads.linear.ridge import Ridge
from onepass.classify.heads.storage import load_head, save_head
from onepass.classify.leaderboard.records import load_probabilities
from onepass.classify.leaderboard.result import RowCounts
from onepass.classify.protocol.scorings import Scoring, read_scorings, record_scoring
from onepass.data.archive import open_tree
from onepass.data.images import COMMON, decode_image, decode_row, inspect_image, may_be_image
from onepass.data.manifest import Change, Manifest
from onepass.data.record import DatasetRecord
from onepass.data.relabel import _read_table as read_labels
from onepass.data.sources import open_source, tiny_imagenet
from onepass.data.sources.base import Request
from onepass.data.tables import read_table, texts
from onepass.extract.backbones import preset_formats
from onepass.extract.backbones.torch_file import read_state_dict
from onepass.extract.backbones.weights_files import check_safetensors, count_numbers
from onepass.finetune.session.runs import load_logits
from onepass.predict.config import MODEL_FILE
from onepass.predict.facts import About
from onepass.predict.model_folder import (
    CARD,
    NOVELTY,
    BackbonePart,
    ModelRecord,
    ProbePart,
    load_folder,
)
from onepass.predict.pictures.sources import find_pictures
from onepass.predict.pixel_models import VectorSpec

FORMAT_1 = Path(__file__).with_name("fixtures") / "before_the_package.zip"
INPUTS = Path(__file__).with_name("fuzz_inputs")
SECONDS = 10.0  # that no reader may take for one small input
NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)
SECTOR = 512


@dataclass(frozen=True, slots=True)
class Reader:
    """One reader.

    Attributes:
        seeds: Returns inputs that it reads as they are.
        read: Reads an input: its bytes, written to the file of that path where it reads files.
        change: Draws a changed input from the seeds.
        named: Whether its errors name the file.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], Any]
    change: Callable[[random.Random, list[bytes]], bytes]
    named: bool = True


def attempt(reader: Reader, content: bytes, folder: Path) -> str:
    """Give a reader an input; return "read" or "refused".

    Raises:
        AssertionError: It raised another error, one without its file's name or in several lines, or took long.
    """
    path, begin = folder / "input", time.monotonic()
    path.unlink(missing_ok=True)  # the one before may still be mapped into memory
    path.write_bytes(content)
    try:
        reader.read(content, path)
        outcome = "read"
    except OnepassError as error:
        line = with_advice(str(error), error.remedy)
        assert not reader.named or "input" in line or str(folder) in line, f"no file in: {line}"
        assert len(line) <= LONGEST + 200, f"{len(line)} characters: {line[:200]}"
        outcome = "refused"
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:300]}") from error
    seconds = time.monotonic() - begin
    assert seconds < SECONDS, f"took {seconds:.1f} s"
    return outcome


def changed_bytes(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Change one input in one to four places, or put two together."""
    content = bytearray(draw.choice(seeds))
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        place = draw.randrange(len(content) + 1)
        length = draw.choice((1, 2, 4, 8, 64, draw.randrange(len(content) + 1)))
        way = draw.randrange(9)
        if way == 0 and content:  # a flipped bit
            content[place % len(content)] ^= 1 << draw.randrange(8)
        elif way == 1:  # another number
            number = draw.choice(NUMBERS).to_bytes(8, draw.choice(("little", "big")))
            width = draw.choice((1, 2, 4, 8))
            content[place : place + width] = number[:width]
        elif way == 2:  # cut
            del content[place:]
        elif way == 3:  # a part missing
            del content[place : place + length]
        elif way == 4:  # a part twice
            content[place:place] = content[place : place + length]
        elif way == 5:  # an empty sector
            start = place // SECTOR * SECTOR
            content[start : start + SECTOR] = bytes(len(content[start : start + SECTOR]))
        elif way == 6:  # noise
            content[place : place + length % 64] = draw.randbytes(draw.randrange(64))
        elif way == 7:  # the end of another
            other = draw.choice(seeds)
            content[place:] = other[draw.randrange(len(other) + 1) :]
        else:  # one byte, many times
            content[place:place] = bytes([draw.randrange(256)]) * draw.choice((3, 300, 30_000))
    return bytes(content)


def changed_json(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Change values and names of a JSON object, with a right digest or without one; or its bytes."""
    if draw.random() < 0.2:
        return changed_bytes(draw, seeds)
    value = json.loads(draw.choice(seeds))
    value.pop(DIGEST, None)
    for _ in range(draw.choice((1, 1, 2, 3))):
        value = _changed_value(draw, value)
    if draw.random() < 0.5 and isinstance(value, dict):
        with suppress(ValueError, RecursionError):
            value[DIGEST] = digest_json(value)
    try:
        text = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    except (ValueError, RecursionError):
        text = "{" + '"a": {' * 5000
    return text.encode(errors="surrogatepass")


def _changed_value(draw: random.Random, value: Any) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key, changed = draw.choice(list(value)), dict(value)
        way = draw.randrange(8)
        if way == 0:
            del changed[key]
        elif way == 1:
            changed[draw.choice((key + "x", "", "format", "\ud800", "a" * 1000))] = changed.pop(key)
        else:
            changed[key] = _changed_value(draw, changed[key])
        return changed
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], _changed_value(draw, value[place]), *value[place + 1 :]]
    return _strange_value(draw)


def _strange_value(draw: random.Random) -> Any:
    deep: Any = 0
    for _ in range(draw.choice((10, 300, 900))):
        deep = [deep] if draw.random() < 0.5 else {"a": deep}
    return draw.choice(
        (
            None, True, False, 0, -1, 1.5, 10**30, 1 << 63, -(10**400), 1e308, float("nan"), float("inf"), "",
            "text", "\ud800", "\x00", "\x1b[2J", "a" * 100_000, [], {}, [[]], [None], {"": ""}, {"format": {}}, deep,
        )
    )  # fmt: skip


def changed_arrays(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Change the header or the numbers of a member, the directory around it right; or any bytes."""
    if draw.random() < 0.4:
        return changed_bytes(draw, seeds)
    with zipfile.ZipFile(io.BytesIO(draw.choice(seeds))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    content = members[name]
    way = draw.randrange(5)
    if way == 0:
        content = changed_bytes(draw, [content])
    elif way == 1:  # another header of the right length
        shape = draw.choice(
            ("()", "(1,)", f"({1 << 40},)", "(-1,)", "(2.5,)", "(0, 9)", "x", "(" * 50)
        )
        kind = draw.choice(("<f4", "<f8", "|O", "<U1", "|V3", "<M8[s]", "<c16", "|S0", "zz", "|b1"))
        text = f"{{'descr': '{kind}', 'fortran_order': {draw.choice((False, 3))}, 'shape': {shape}, }}\n"
        content = (
            b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content[128:]
        )
    elif way == 2:
        array = np.frombuffer(
            draw.randbytes(draw.choice((0, 8, 64))), draw.choice(("<f4", "<i8", "u1"))
        )
        buffer = io.BytesIO()
        np.save(buffer, array)
        content = buffer.getvalue()
    elif way == 3:
        del members[name]
        name = draw.choice(("other.npy", "a", "../a.npy", "é.npy"))
    elif content[:6] == b"\x93NUMPY":  # other numbers, such as NaN
        start = 10 + int.from_bytes(content[8:10], "little")
        content = content[:start] + changed_bytes(draw, [content[start:] or b"0"])[: len(content) - start].ljust(len(content) - start, b"\xff")  # fmt: skip
    members[name] = content
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw.choice((0, 0, 0, 8))) as archive:
        for member, inside in members.items():
            archive.writestr(member, inside)
    return buffer.getvalue()


def changed_text(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Put words together, with marks that mean something between them, and changed."""
    marks = ("", " ", "@", "/", "#", ":", "+", "~", "=", "!", "..", "\\", "\x00", "\x1b[2J", "\n", "٣", "\u202e", "=1+1")  # fmt: skip
    words = [draw.choice(seeds).decode(errors="replace") for _ in range(draw.randrange(1, 4))]
    text = "".join(word + draw.choice(marks) for word in words)
    changed = changed_bytes(draw, [text.encode(errors="replace")]) if draw.random() < 0.5 else text.encode()  # fmt: skip
    return changed[:5000]


@cache
def image_seeds() -> list[bytes]:
    """Return small images in every format and mode that Pillow writes."""
    random_pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 4)).astype(np.uint8)
    found = []
    for form in (
        *COMMON,
        "TGA",
        "ICO",
        "JPEG2000",
        "DDS",
        "SGI",
        "PCX",
        "AVIF",
        "ICNS",
        "MPO",
        "QOI",
    ):
        for mode in ("L", "RGB", "RGBA", "P", "1", "CMYK", "I;16", "LA"):
            buffer = io.BytesIO()
            try:
                if mode == "I;16":
                    image = Image.fromarray(random_pixels[:, :, 0].astype(np.uint16) * 257)
                else:
                    image = Image.fromarray(random_pixels).convert(mode)
                image.save(buffer, form)
            except (OSError, ValueError, KeyError):  # not in this mode, or not in this Pillow
                continue
            found.append(buffer.getvalue())
    return found


def _read_image(content: bytes, path: Path) -> None:
    may_be_image(content[:16])
    image = decode_image(content, "input.tga")
    assert image.mode in ("L", "RGB")
    inspect_image(content, "input.tga")
    assert decode_row(content, "input.tga", 8, 3, "pad").shape == (8, 8, 3)


def _tiny_files() -> dict[str, bytes]:
    image = io.BytesIO()
    Image.new("RGB", (64, 64)).save(image, "JPEG")
    return {
        "t/wnids.txt": b"n1\nn2\n",
        "t/words.txt": "n1\tone\nn2\ttwo, zwö\n".encode(),
        "t/train/n1/images/n1_0.JPEG": image.getvalue(),
        "t/train/n2/images/n2_0.JPEG": image.getvalue(),
        "t/val/images/val_0.JPEG": image.getvalue(),
        "t/val/val_annotations.txt": b"val_0.JPEG\tn1\t0\t0\t63\t63\n",
        "t/test/images/test_0.JPEG": image.getvalue(),
    }


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _read_zip(content: bytes, path: Path) -> None:
    with open_tree(path) as tree:
        for name in tree.files:
            try:
                tree.read(name)
            except CorruptFileError:
                continue


def _image_array_seeds() -> list[bytes]:
    images, labels = np.zeros((8, 4, 4), np.uint8), np.arange(8) % 2
    packed = io.BytesIO()
    np.savez_compressed(packed, x_train=images[..., None], y_train=labels[:, None], class_names=["cat", "dog"])  # fmt: skip
    return [pack_arrays({"images": images, "labels": labels}), packed.getvalue()]


def _read_image_arrays(content: bytes, path: Path) -> None:
    named = path.with_name("input.npz")
    named.write_bytes(content)
    _read_source("arrays", named)


def _tar(files: dict[str, bytes], way: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{way}", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _sample_files() -> dict[str, bytes]:
    picture = _tiny_files()["t/test/images/test_0.JPEG"]
    labels = {f"{n}.cls": b"%d" % (n % 2) for n in range(4)}
    more = {f"{n}.json": b'{"group": "a", "box": [1]}' for n in range(4)}
    return {**{f"{n}.jpg": picture for n in range(4)}, **labels, **more}


def _read_tar(content: bytes, path: Path) -> None:
    named = path.with_name("input.tar.gz" if content[:2] == b"\x1f\x8b" else "input.tar")
    named.write_bytes(content)
    _read_zip(content, named)


def _read_shards(content: bytes, path: Path) -> None:
    named = path.with_name("input.tar")
    named.write_bytes(content)
    _read_source("webdataset", named)


def _read_source(kind: str, path: Path) -> None:
    with open_source(kind, [_request(path)]) as source:
        for item in source.items:
            with suppress(OnepassError):
                item.read()


@cache
def parquet_seeds() -> list[bytes]:
    """Return Parquet files of image bytes, as pandas and Hugging Face write them, and one of paths."""
    import pyarrow
    from pyarrow import parquet

    picture = _tiny_files()["t/test/images/test_0.JPEG"]
    held = [{"bytes": picture, "path": f"{n}.jpg"} for n in range(4)]
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    metadata = {"huggingface": json.dumps(features)}
    tables = [
        pyarrow.table({"image": [picture] * 4, "label": ["a", "b"] * 2}),
        pyarrow.table({"image": held, "label": [0, 1] * 2}).replace_schema_metadata(metadata),
        pyarrow.table({"image": ["x.jpg", "y.jpg"] * 2, "label": [1.0, 2.0] * 2, "x": [[1]] * 4}),
    ]
    found = []
    for table in tables:
        buffer = io.BytesIO()
        parquet.write_table(table, buffer, row_group_size=3)
        found.append(buffer.getvalue())
    return found


def arrow_seeds() -> list[bytes]:
    """Return the tables of `parquet_seeds` as Arrow streams, and one as an Arrow file."""
    import pyarrow
    from pyarrow import parquet

    found = []
    for content in parquet_seeds():
        table = parquet.read_table(io.BytesIO(content))
        for new in (pyarrow.ipc.new_stream, pyarrow.ipc.new_file)[: 1 if found else 2]:
            buffer = io.BytesIO()
            with new(buffer, table.schema) as writer:
                writer.write_table(table)
            found.append(buffer.getvalue())
    return found


def _read_arrow(content: bytes, path: Path) -> None:
    _read_binary_table(content, path.with_name("input.arrow"))


def _read_parquet(content: bytes, path: Path) -> None:
    _read_binary_table(content, path.with_name("input.parquet"))


def _read_binary_table(content: bytes, named: Path) -> None:
    named.unlink(missing_ok=True)  # the one before may still be mapped into memory
    named.write_bytes(content)
    for picture in ("x.jpg", "y.jpg"):
        named.with_name(picture).write_bytes(_tiny_files()["t/test/images/test_0.JPEG"])
    with suppress(UsageError):  # the columns have other names now
        _read_source("table", named)


def _read_json_lines(content: bytes, path: Path) -> None:
    named = path.with_name("input.jsonl")
    named.write_bytes(content)
    table = read_table(named)
    for name in table.names:
        texts(table.cells(name))


def _read_tiny_imagenet(content: bytes, path: Path) -> None:
    with tiny_imagenet.open_source(_request(path)) as source:
        for item in source.items:
            item.read()


def _request(path: Path) -> Request:
    known = {"source": str(path), "digest": "", "raw": path.parent, "seed": 0}
    return Request(**{name: known[name] for name in known if name in Request.__dataclass_fields__})


def changed_tiny_imagenet(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Change a file inside the zip, its lists most of all."""
    files = _tiny_files()
    name = draw.choice([*files, *(n for n in files if n.endswith(".txt"))])
    files[name] = changed_bytes(draw, [files[name]])[:100_000]
    return _zip(files)


@cache
def torch_seeds() -> list[bytes]:
    """Return the pieces of a weights file as PyTorch wrote it before 1.6: two tensors of one storage."""
    import pickletools

    def text(word: str) -> bytes:
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    def tensor(name: str, shape: bytes, strides: bytes) -> bytes:
        storage = (
            b"("
            + text("storage")
            + b"ctorch\nFloatStorage\n"
            + text("0")
            + text("cpu")
            + b"K\x06Nt"
        )
        hooks = b"ccollections\nOrderedDict\n)R"
        return text(name) + b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"QK\x00" + shape + strides + b"\x89" + hooks + b"tR"  # fmt: skip

    magic = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
    system = b"\x80\x02}(" + text("little_endian") + b"\x88u."
    state = b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(" + tensor("a", b"K\x02K\x03\x86", b"K\x03K\x01\x86") + tensor("b", b"K\x06\x85", b"K\x01\x85") + b"u."  # fmt: skip
    for part in (magic, system, state):
        list(pickletools.genops(part))
    keys = b"\x80\x02](" + text("0") + b"e."
    numbers = struct.pack("<q6f", 6, *range(6))
    content = magic + b"\x80\x02M\xe9\x03." + system + state + keys + numbers
    assert len(read_state_dict(content, "input")) == 2
    return [content]


@cache
def head_folder() -> tuple[bytes, bytes]:
    """Return `head.json` and `arrays.npz` of a fitted head."""
    X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        save_head(Ridge().fit(X, np.arange(40) % 3), Path(name))
        return (Path(name) / "head.json").read_bytes(), (Path(name) / "arrays.npz").read_bytes()


def _read_head(content: bytes, path: Path) -> None:
    """Load a head whose arrays are these bytes, or whose record is: both with digests that are right."""
    record, arrays = head_folder()
    folder = path.parent / "head"
    folder.mkdir(exist_ok=True)
    if content[:2] != b"PK":
        record = content
    else:
        record = _sealed({**json.loads(record), "digest": digest_bytes(content)})
        arrays = content
    (folder / "head.json").write_bytes(record)
    (folder / "arrays.npz").write_bytes(arrays)
    head = load_head(folder)
    head.predict_proba(np.zeros((2, head.n_features_in_), np.float32))


def _change_head(draw: random.Random, seeds: list[bytes]) -> bytes:
    record, arrays = head_folder()
    return changed_json(draw, [record]) if draw.random() < 0.5 else changed_arrays(draw, [arrays])


SPEC = VectorSpec("tiny", "imagenet", 16, dtype="float32")
PROBE = ProbePart("probe", ((SPEC,),), "heads/0", 1.0)


@cache
def model_folder() -> dict[str, bytes]:
    """Return the files of a model folder of a probe, whose network has one variable, by name."""
    with suppress_stderr():
        from onepass.finetune.session.checkpoint import packed_variables  # TensorFlow

    record, arrays = head_folder()
    known = {
        "reference": np.ones((6, 5), np.float16),
        "distances": np.linspace(0, 1, 4, dtype="f4"),
    }
    known |= {"probabilities": np.full((4, 3), 0.3, np.float16), "truth": np.arange(4) % 3}
    files = {
        "heads/0/head.json": record, "heads/0/arrays.npz": arrays, NOVELTY: pack_arrays(known), CARD: b"# birds\n",
        "weights/a.npz": packed_variables({"model": {"kernel": np.ones((2, 3), "f4")}}, {}),
    }  # fmt: skip
    digests = {name: digest_bytes(content) for name, content in files.items()}
    classes = {"class_ids": ("a", "b", "c"), "class_names": ("A", "B", "C"), "name": "birds/ridge"}
    about = replace(example(About), **classes, prior=None)
    made = ModelRecord(about, PROBE, (BackbonePart((SPEC,), "weights/a.npz", 4),), digests)
    return {MODEL_FILE: json.dumps(made.sealed()).encode(), **files}


def _change_model_folder(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Change a file of the folder; the digests are right in half of the cases."""
    files = dict(model_folder())
    name = draw.choice([MODEL_FILE, *files])
    change = changed_arrays if name.endswith(".npz") else changed_json if name.endswith(".json") else changed_bytes  # fmt: skip
    files[name] = change(draw, [files[name]])
    if name != MODEL_FILE and draw.random() < 0.5:
        if name.startswith("heads/") and name.endswith(".npz"):
            head = {**json.loads(files["heads/0/head.json"]), "digest": digest_bytes(files[name])}
            files["heads/0/head.json"] = _sealed(head)
        made = json.loads(files[MODEL_FILE])
        made["files"] = {n: digest_bytes(files[n]) for n in made["files"]}
        files[MODEL_FILE] = _sealed(made)
    return _zip(files)


def _sealed(value: dict[str, Any]) -> bytes:
    value.pop(DIGEST)
    return json.dumps({**value, DIGEST: digest_json(value)}).encode()


def _unpacked(content: bytes, path: Path) -> Path:
    """Return a folder with the files of a zip; nothing of an earlier one is left in it."""
    folder = path.with_name("input-folder")
    shutil.rmtree(folder, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    return folder


class _Variable:
    shape, dtype = (2, 3), "float32"

    def assign(self, value: np.ndarray) -> None:
        assert value.shape == self.shape


def _read_model_folder(content: bytes, path: Path) -> None:
    from onepass.finetune.session.checkpoint import load_variables

    folder = _unpacked(content, path)
    pictures = load_folder(folder, abstain=0.1).pictures
    arrays = {spec: np.zeros((2, 5), np.float32) for spec in pictures.model.wanted}
    judged = pictures.judge(arrays)
    pictures.open_because(judged.distances, judged.probabilities, None)
    load_variables(folder / "weights/a.npz", {"model": {"kernel": _Variable()}})


@cache
def manifest_seeds() -> list[bytes]:
    """Return a manifest of six images."""
    return _made_by_hdf5(lambda folder: _manifest(folder / "manifest.h5").write().path)


def _manifest(path: Path) -> Manifest:
    return Manifest(
        path=path, content=np.arange(96, dtype=np.uint8).reshape(6, 16),
        labels=np.arange(6, dtype=np.int32) % 2, split=np.array([0, 0, 0, 0, 1, 1], np.int8),
        names=[f"ä{row}.png" for row in range(6)], class_ids=["a", "b"], class_names=["A", "é"],
        record=example(DatasetRecord), columns={"group": ["x"] * 6}, history=[example(Change)],
    )  # fmt: skip


def _read_manifest(content: bytes, path: Path) -> None:
    read, written = Manifest.open(path), _manifest(path)
    assert read.digest == written.digest and read.names == written.names
    assert (read.record, read.history) == (written.record, written.history)


@cache
def format_1_seeds() -> list[bytes]:
    """Return pixels and vectors of format 1."""
    names = ("store/colours/pixels.h5", "store/colours/features/tiny@16.h5")
    with zipfile.ZipFile(FORMAT_1) as archive:
        return [archive.read(name) for name in names]


def _read_format_1(content: bytes, path: Path) -> None:
    """Read in a forked process, which begins at once, with a second where HDF5 finds no end."""
    fork = multiprocessing.get_context("fork")
    with (
        patch.object(multiprocessing, "get_context", lambda _: fork),
        patch.object(format1, "LEAST_SECONDS", 1),
        patch.object(format1, "WAITING", 1),
    ):
        read = format1.read_rows(path)
    columns = read.checked_columns()
    digests = {name: shard_digest({name: column}) for name, column in columns.items()}
    assert digests in _format_1_digests(), "rows changed silently"


@cache
def _format_1_digests() -> list[dict[str, str]]:
    found = []
    for seed in format_1_seeds():
        with h5py.File(io.BytesIO(seed)) as file:
            names = [name for name in ("pixels", "features") if name in file]
            found.append({name: shard_digest({name: file[name][()]}) for name in names})
    return found


@cache
def tensorflow_datasets_files() -> dict[str, bytes]:
    """Return the files of a small data set, as the library writes them."""
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=(4, 4, 3), encoding_format="png")
    label, name = tfds.features.ClassLabel(names=["crow", "emu"]), tfds.features.Text()
    features = tfds.features.FeaturesDict({"image": image, "label": label, "id": name})
    row = {"image": np.zeros((4, 4, 3), np.uint8), "id": "é"}
    with tempfile.TemporaryDirectory() as place:
        tfds.dataset_builders.store_as_tfds_dataset(
            name="birds", version="1.0.0", features=features, data_dir=place,
            split_datasets={"train": [(n, {**row, "label": n % 2}) for n in range(4)]}, disable_shuffling=True,
        )  # fmt: skip
        folder = next(Path(place).rglob("features.json")).parent
        return {file.name: file.read_bytes() for file in folder.iterdir()}


def _change_tensorflow_dataset(draw: random.Random, seeds: list[bytes]) -> bytes:
    files = dict(tensorflow_datasets_files())
    name = draw.choice(list(files))
    change = changed_json if name.endswith(".json") else changed_bytes
    files[name] = change(draw, [files[name]])
    return _zip(files)


def _read_tensorflow_dataset(content: bytes, path: Path) -> None:
    _read_source("tensorflow-datasets", _unpacked(content, path))


def _scoring_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        for _ in range(3):
            record_scoring(Path(name), example(Scoring))
        return [(Path(name) / "scorings.jsonl").read_bytes()]


def _read_scorings(content: bytes, path: Path) -> None:
    folder = path.parent / "input-runs"
    folder.mkdir(exist_ok=True)
    (folder / "scorings.jsonl").write_bytes(content)
    read_scorings(folder, "dataset_digest")


def _change_lines(draw: random.Random, seeds: list[bytes]) -> bytes:
    if draw.random() < 0.5:
        return changed_bytes(draw, seeds)
    lines = draw.choice(seeds).splitlines()
    place = draw.randrange(len(lines))
    lines[place] = changed_json(draw, [lines[place]])
    return b"\n".join(lines) + draw.choice((b"", b"\n"))


def _artifact_seeds() -> list[bytes]:
    return [json.dumps(example(kind).sealed()).encode() for kind in kinds()]


def _read_artifacts(content: bytes, path: Path) -> None:
    """Read the file as every kind of artifact: it is one of them, but any might be put in any place."""
    errors = []
    for kind in kinds():
        try:
            to_json(kind.read(path))
        except OnepassError as error:
            errors.append(error)
    if len(errors) == len(kinds()):
        raise max(errors, key=lambda error: len(str(error)))


def _logits_seeds() -> list[bytes]:
    return [pack_arrays({"logits": np.zeros((4, 3), np.float32), "rows": np.arange(4)})]


ARRAYS = {
    "features": np.arange(240, dtype="<f4").reshape(40, 6),
    "content": np.ones((40, 16), "u1"),
}
SIDE = {"labels": np.arange(40, dtype="i4"), "names": [f"ä{row}.png" for row in range(40)]}
KIND = ShardKind({name: Column(a.shape[1:], a.dtype.name) for name, a in ARRAYS.items()}, "content", {"x": 1})  # fmt: skip


def _made_by_hdf5(write: Callable[[Path], Path]) -> list[bytes]:
    with tempfile.TemporaryDirectory() as name:
        return [write(Path(name)).read_bytes()]


@cache
def row_seeds() -> list[bytes]:
    """Return a row file of two blocks."""
    more = {"inputs": {"kind": "test"}, "attributes": {"class_ids": ["x", "y"]}, "block_rows": 30}
    return _made_by_hdf5(lambda folder: write_rows(folder / "a.h5", ARRAYS, SIDE, **more).path)


def _read_rows(content: bytes, path: Path) -> None:
    rows = RowFile.open(path)
    rows.verify()
    for name, array in ARRAYS.items():
        assert np.array_equal(rows.columns[name], array), f"{name} changed silently"
    assert (
        np.array_equal(rows.side["labels"], SIDE["labels"]) and rows.side["names"] == SIDE["names"]
    )
    assert (rows.inputs, rows.attributes) == ({"kind": "test"}, {"class_ids": ["x", "y"]})


def _read_shard(content: bytes, path: Path) -> None:
    found = read_shard(path, KIND)
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())


@cache
def weights_seeds() -> list[bytes]:
    """Return a weights file as Keras writes it, and one with compressed weights."""

    def write(path: Path, **how: Any) -> Path:
        with h5py.File(path, "w") as file:
            for layer in ("conv", "norm", "top"):
                group = file.create_group(f"layers/{layer}/vars")
                group.create_dataset("0", data=np.ones((8, 8), "f4"), **how)
                group.attrs["name"] = layer
        return path

    plain = _made_by_hdf5(lambda folder: write(folder / "a.h5"))
    return plain + _made_by_hdf5(lambda folder: write(folder / "a.h5", compression="gzip"))


def _read_weights(content: bytes, path: Path) -> None:
    named = path.with_name("input.weights.h5")
    named.unlink(missing_ok=True)
    named.write_bytes(content)
    count_numbers(named)


@cache
def safetensors_seeds() -> list[bytes]:
    """Return weights as Transformers and timm save them."""
    from safetensors.numpy import save

    return [save({"norm": np.ones(8, "f4"), "conv": np.ones((8, 3), "f2")}, {"format": "pt"})]


def _read_safetensors(content: bytes, path: Path) -> None:
    path.write_bytes(content)
    check_safetensors(path)


def _image_processor_seeds() -> list[bytes]:
    scaled = {"rescale_factor": 1 / 255, "image_mean": [0.5] * 3, "image_std": [0.2, 0.3, 0.4]}
    whole = {"model_type": "vit", "hidden_act": "gelu", "do_normalize": True, **scaled}
    return [json.dumps(one).encode() for one in (whole, {"architecture": "vgg11", **scaled})]


def _read_image_processor(content: bytes, path: Path) -> None:
    """Both files of a folder: settings, and what the pixels need."""
    for name in (preset_formats.CONFIG, preset_formats.IMAGE_PROCESSOR):
        (path.parent / name).write_bytes(content)
    found, _ = preset_formats.format_in(path.parent)
    if found in (preset_formats.TRANSFORMERS, preset_formats.TIMM):
        preset_formats.check_convertible(path.parent)
    preset_formats.image_processing(path.parent)


ROWS = RowCounts(fit=3, selection=2, train=5, val=3, test=1)


def _probabilities_seeds() -> list[bytes]:
    counts = {"selection": ROWS.selection, "val": ROWS.val, "test": ROWS.test}
    arrays = {name: np.full((count, 2), 0.5, np.float16) for name, count in counts.items()}
    predicted = {f"{name}_predicted": np.ones(counts[name], np.int32) for name in ("val", "test")}
    return [pack_arrays({**arrays, **predicted})]


def _read_probabilities(content: bytes, path: Path) -> None:
    (path.parent / "probabilities.npz").write_bytes(content)
    found = load_probabilities(path.parent, ROWS)
    assert (
        found.selection.shape == (2, 2) and found.val[np.arange(3), found.val_predicted].ndim == 1
    )


def _read_arrays(content: bytes, path: Path) -> None:
    logits, rows = load_logits(path, 3, 9)
    assert logits[:, 0].shape == np.zeros(9)[rows].shape
    try:
        arrays = unpack_arrays(content)
    except ValueError:
        return
    assert sum(array.nbytes for array in arrays.values()) <= len(content)


def _read_key(content: bytes, path: Path) -> None:
    text = content.decode(errors="surrogateescape")
    for parse in (
        parse_key_text,
        lambda t: check_run("--run", t),
        lambda t: check_name("--run", t),
    ):
        try:
            parse(text)
        except OnepassError:
            continue
    with suppress(ValueError):
        assert parse_duration(text) > 0
    shown = one_line(text)
    assert not set(shown) & {"\n", "\r", "\x1b"} and shown.encode().decode() == shown
    assert printable(shown) == shown
    csv_text(["a"], [[shown]])


def _command_seeds() -> list[bytes]:
    with suppress_stderr():
        import onepass.predict.runs  # noqa: F401  TensorFlow, whose import takes its time
    return COMMAND_SEEDS


def _run_command(content: bytes, path: Path) -> None:
    """Run a command that only reads, with these words; what ends it is its exit code, in a few lines."""
    words = [word for word in content.decode(errors="surrogateescape").split(" ") if word]
    out, err = io.StringIO(), io.StringIO()
    place = ["--cache-dir", str(path.parent / "store"), "--runs-dir", str(path.parent / "runs")]
    places = place if words[:1] and words[0] in ("classify", "predict", "report") else place[:2]
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = run([*words, *places])
        except SystemExit as end:
            code = end.code
    assert code in (0, 1, 2, 75, 130), code
    assert "Traceback" not in err.getvalue()


def _read_tables(content: bytes, path: Path) -> None:
    """Read a table of labels, and a list of pictures."""
    named = path.with_name("input.csv")
    named.write_bytes(content)
    with suppress(OnepassError), ExitStack() as stack:
        for picture in find_pictures([str(named)], "", stack).found:
            with suppress(OnepassError):
                picture.read()
    for place, file, label in read_labels(named):
        assert place.startswith("line ") and isinstance(file + label, str)


TABLE_SEEDS = [
    b"file,label\na.png,cat\nb.png,dog\n", "\ufefffile;label;why\nä.png;'=x;\"a\nb\"\n".encode(),
    b"label\tfile\r\ncat\ta.png\r\n", b"file,label\n\"a,b.png\",\"say \"\"x\"\"\"\n",
]  # fmt: skip
COMMAND_SEEDS = [
    b"data list", b"data show digits", b"data verify digits", b"cache list", b"cache show digits/pixels",
    b"cache verify digits/lite@64", b"cache delete digits/lite@64", b"report --dataset digits", b"--json",
    b"classify --dataset digits --features lite@64", b"predict digits/ridge --split val", b"--help", b"cache doctor",
    b"predict digits#1", b"classify inspect --dataset digits", b"--seed 1", b"--cache-dir x", b"\xff", b"a\x00b",
]  # fmt: skip
KEY_SEEDS = [
    b"efficientnet_lite0@128", b"xception@150:block13_sepconv2_act+flip", b"vgg16@64#imagenet~avg+max=float32!float16",
    b"digits/ridge-0123", b"8h45m", b"90s", b"1.5h", b"digits", "naïve".encode(), b"a" * 300,
]  # fmt: skip

READERS: dict[str, Reader] = {
    "artifacts": Reader(_artifact_seeds, _read_artifacts, changed_json),
    "scorings": Reader(_scoring_seeds, _read_scorings, _change_lines),
    "arrays": Reader(_logits_seeds, _read_arrays, changed_arrays),
    "probabilities": Reader(_probabilities_seeds, _read_probabilities, changed_arrays),
    "heads": Reader(lambda: list(head_folder()), _read_head, _change_head, named=False),
    "model-folders": Reader(lambda: [_zip(model_folder())], _read_model_folder, _change_model_folder),
    "manifests": Reader(manifest_seeds, _read_manifest, changed_bytes),
    "format-1": Reader(format_1_seeds, _read_format_1, changed_bytes),
    "rows": Reader(row_seeds, _read_rows, changed_bytes),
    "shards": Reader(lambda: _made_by_hdf5(lambda folder: write_shard(folder, KIND, ARRAYS)), _read_shard, changed_bytes),
    "weights": Reader(weights_seeds, _read_weights, changed_bytes),
    "safetensors": Reader(safetensors_seeds, _read_safetensors, changed_bytes),
    "image-processors": Reader(_image_processor_seeds, _read_image_processor, changed_json),
    "torch": Reader(torch_seeds, lambda content, path: read_state_dict(content, "input"), changed_bytes),
    "images": Reader(image_seeds, _read_image, changed_bytes),
    "zips": Reader(lambda: [_zip(_tiny_files())], _read_zip, changed_bytes),
    "tiny-imagenet": Reader(lambda: [_zip(_tiny_files())], _read_tiny_imagenet, changed_tiny_imagenet),
    "npz": Reader(_image_array_seeds, _read_image_arrays, changed_arrays),
    "tars": Reader(lambda: [_tar(_tiny_files()), _tar(_tiny_files(), "gz"), _tar({"ä" * 200: b"x"})], _read_tar, changed_bytes),
    "webdataset": Reader(lambda: [_tar(_sample_files())], _read_shards, changed_bytes),
    "parquet": Reader(parquet_seeds, _read_parquet, changed_bytes),
    "arrow": Reader(arrow_seeds, _read_arrow, changed_bytes),
    "json-lines": Reader(lambda: [b'{"file_name": "a.png", "label": 1}\n{"label": null, "x": [{}]}\n'], _read_json_lines, _change_lines),
    "tables": Reader(lambda: TABLE_SEEDS, _read_tables, changed_bytes),
    "keys": Reader(lambda: KEY_SEEDS, _read_key, changed_text, named=False),
    "commands": Reader(_command_seeds, _run_command, changed_text, named=False),
}  # fmt: skip
if find_spec("tensorflow_datasets"):
    READERS["tensorflow-datasets"] = Reader(
        lambda: [_zip(tensorflow_datasets_files())],
        _read_tensorflow_dataset,
        _change_tensorflow_dataset,
    )


def cases(name: str, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield inputs for a reader, the same for the same seed."""
    reader = READERS[name]
    seeds = reader.seeds()
    for number in range(count):
        yield reader.change(random.Random(f"{name} {seed} {number}"), seeds)
