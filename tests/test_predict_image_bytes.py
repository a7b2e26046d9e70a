"""Files decoded by TensorFlow, inside an exported network, against Pillow's pixels."""

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onepass.predict.pixel_classifier import PictureGeometry

pytestmark = pytest.mark.slow
SIDE = 26
RANDOM = np.random.default_rng(0)


def texture(height: int, width: int) -> Image.Image:
    wave = np.sin(np.arange(width) * 0.2)[None, :, None] * np.array([1, 0.5, 0.2])
    pixels = 120 + 70 * wave + RANDOM.normal(0, 30, (height, width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(order: str, value: int) -> bytes:
    """EXIF data of two tags, the second of them the orientation, in either order of bytes."""
    entries = struct.pack(order + "HHHIHHHHIHHI", 2, 0x0100, 3, 1, 5, 0, 0x0112, 3, 1, value, 0, 0)
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    return b"Exif\0\0" + head + entries


def png(depth: int, kind: int, height: int, width: int, **chunks: bytes) -> bytes:
    """A PNG file of random bytes, of any bit depth and colour type; Pillow writes only some of them."""

    def chunk(name: bytes, content: bytes) -> bytes:
        whole = name + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    lines = b"".join(b"\0" + RANDOM.bytes((width * bits + 7) // 8) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = {"IHDR": header, **chunks, "IDAT": zlib.compress(lines), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(k.encode(), v) for k, v in parts.items())


@cache
def files() -> dict[str, bytes]:
    found = {
        "progressive": encoded(texture(123, 77), progressive=True),
        "grey": encoded(texture(40, 50).convert("L")),
        "cmyk": encoded(texture(40, 50).convert("CMYK")),
        "one pixel": encoded(texture(1, 1)),
        "a line": encoded(texture(3, 999)),
        "a column": encoded(texture(999, 2), "PNG"),
        "its own size": encoded(texture(SIDE, SIDE), "PNG"),
        "enlarged": encoded(texture(9, 14), "PNG"),
        "interlaced": encoded(texture(300, 200).quantize(64), "PNG", interlace=True),
        "large": encoded(texture(1200, 1700)),
        "at an eighth": encoded(texture(840, 1696), subsampling="4:2:0"),
        "at a quarter, turned": encoded(texture(836, 1696), exif=exif("<", 6)),
        "at half, grey": encoded(texture(416, 230).convert("L")),
        "at half, cmyk": encoded(texture(416, 230).convert("CMYK"), progressive=True),
        "behind a profile": encoded(texture(31, 45), exif=exif("<", 6), icc_profile=b"x" * 70_000),
    }
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        for quality in (30, 95):
            name = f"{sampling} of quality {quality}"
            found[name] = encoded(texture(301, 457), subsampling=sampling, quality=quality)
    for order in "<>":
        for turn in range(10):  # 0 and 9 mean nothing
            found[f"exif {order}{turn}"] = encoded(texture(31, 45), exif=exif(order, turn))
        found[f"png exif {order}"] = encoded(texture(45, 31), "PNG", exif=exif(order, 8))
    for depth in (1, 2, 4, 8, 16):
        found[f"png grey {depth}"] = png(depth, 0, 9, 13)
        found[f"png grey {depth}, one clear"] = png(depth, 0, 9, 13, tRNS=b"\0\1")
    for depth in (1, 2, 4, 8):
        colours, alphas = RANDOM.bytes(3 << depth), RANDOM.bytes(1 << depth)
        found[f"png palette {depth}"] = png(depth, 3, 9, 13, PLTE=colours)
        found[f"png palette {depth}, clear"] = png(depth, 3, 9, 13, PLTE=colours, tRNS=alphas)
    for depth in (8, 16):
        for kind in (2, 4, 6):
            found[f"png kind {kind} depth {depth}"] = png(depth, kind, 9, 13)
    return found


def decoder(geometry: PictureGeometry) -> Callable[[list[bytes]], np.ndarray]:
    import tensorflow as tf

    from onepass.predict.image_bytes import file_decoder

    step = tf.function(file_decoder(geometry), [tf.TensorSpec([None], tf.string)])
    return lambda contents: step(tf.constant(contents)).numpy()


@pytest.mark.parametrize(
    ("channels", "fit"),
    [(3, "stretch"), (1, "crop"), (3, "pad"), (1, "pad mean"), (3, "pad reflect")],
)
def test_the_pixels_are_those_of_prepare(channels: int, fit: str) -> None:
    geometry = PictureGeometry(SIDE, channels, fit)
    found = decoder(geometry)(list(files().values()))
    for (name, content), pixels in zip(files().items(), found, strict=True):
        np.testing.assert_array_equal(pixels, geometry.pixels(content, "x"), err_msg=name)


def test_what_is_no_picture_is_refused() -> None:
    import tensorflow as tf

    decode = decoder(PictureGeometry(SIDE, 3, "stretch"))
    whole = files()["progressive"]
    strange = {
        "expected a JPEG or PNG file": [b"", b"GIF89a" + b"\0" * 40, b"\x89PNG"],
        "Invalid JPEG data": [whole[:3], whole[: len(whole) // 2]],
        "Invalid PNG": [files()["enlarged"][:60], b"\x89PNG\r\n\x1a\n"],
        "too many pixels": [png(8, 0, 1, 1).replace(struct.pack(">II", 1, 1), b"\0\0\xff\xff" * 2)],
    }
    for said, contents in strange.items():
        for content in contents:
            with pytest.raises(tf.errors.InvalidArgumentError, match=said):
                decode([whole, content])


def test_damaged_exif_is_read_past() -> None:
    """Whatever a few bytes of EXIF say, the picture is decoded, or both decoders refuse it."""
    decode, whole = decoder(PictureGeometry(SIDE, 3, "stretch")), files()["exif >6"]
    start = whole.index(b"Exif")
    for seed in range(150):
        random, damaged = np.random.default_rng(seed), bytearray(whole)
        for place in random.integers(start, start + 44, 1 + seed % 3):
            damaged[place] = random.integers(256)
        assert decode([bytes(damaged)]).shape == (1, SIDE, SIDE, 3)
