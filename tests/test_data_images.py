"""Decoding: every kind of image becomes the right 8-bit pixels, damaged ones are named."""

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from onepass.cache.errors import InvalidInputError
from onepass.data import images, look, pack
from onepass.data.images import decode_image, decode_row, fit_image, inspect_image
from onepass.data.sources.base import Item


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> Image.Image:
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(decode_image(content, "x.png")).astype(int)


@pytest.mark.parametrize(
    ("mode", "kind", "decoded"),
    [
        ("RGB", "JPEG", "RGB"),
        ("L", "JPEG", "L"),
        ("CMYK", "JPEG", "RGB"),
        ("P", "PNG", "RGB"),
        ("P", "GIF", "RGB"),
        ("1", "PNG", "L"),
        ("LA", "PNG", "L"),
        ("RGBA", "PNG", "RGB"),
        ("RGB", "WEBP", "RGB"),
        ("CMYK", "TIFF", "RGB"),
        ("RGB", "BMP", "RGB"),
        ("L", "PPM", "L"),
    ],
)
def test_every_kind_shows_the_same_picture(mode, kind, decoded):
    original = gradient("RGB" if decoded == "RGB" else "L")
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    image = decode_image(encode(gradient(mode), kind, **options), "x")
    assert image.mode == decoded and image.size == (32, 32)
    allowed = {"1": 120, "P": 20}.get(mode, 6)  # dithering and palettes are coarse
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(original).astype(int))
    assert difference.mean() < allowed


def test_sixteen_bits_are_scaled_not_clipped():
    values = np.array([[0, 128, 129, 256, 257, 30000, 65534, 65535]], dtype=np.uint16)
    content = encode(Image.fromarray(values))
    assert inspect_image(content, "x") == (8, 1, True)
    assert pixels(content).tolist() == [[0, 0, 1, 1, 1, 117, 255, 255]]
    tiff = encode(Image.fromarray(values), "TIFF")
    assert pixels(tiff).tolist() == pixels(content).tolist()


def test_values_without_a_known_range_are_refused():
    content = encode(Image.fromarray(np.array([[0.0, 0.5]], dtype=np.float32)), "TIFF")
    with pytest.raises(InvalidInputError, match=r"x\.tif: expected 8 or 16 bits"):
        decode_image(content, "x.tif")


def test_transparency_is_laid_over_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    expected = np.full((4, 4, 3), 255)
    expected[0, 0] = (255, 0, 0)
    assert np.array_equal(pixels(encode(clear)), expected)
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 1)
    content = encode(palette, transparency=0)
    assert pixels(content)[0, 0].tolist() == [40, 50, 60]
    assert pixels(content)[1, 1].tolist() == [255, 255, 255]


def test_exif_orientation_is_applied():
    image = gradient(size=(20, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    turned = decode_image(encode(image, "JPEG", exif=exif, quality=95), "x")
    assert turned.size == (10, 20)
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(turned) - expected).mean() < 6


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    content = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert pixels(content)[3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_truncated_image_is_an_error_that_names_it(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), kind)
    with pytest.raises(InvalidInputError, match=r"^cat\.jpg: "):
        decode_image(content[: len(content) // 2], "cat.jpg")


@pytest.mark.parametrize(
    "content", [b"", b"not an image", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n"]
)
def test_what_is_not_an_image_is_an_error_that_names_it(content):
    with pytest.raises(InvalidInputError, match=r"^cat\.jpg: not an image"):
        decode_image(content, "cat.jpg")
    with pytest.raises(InvalidInputError, match=r"^cat\.jpg: not an image"):
        inspect_image(content, "cat.jpg")


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_000, 10_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side):
    for function in (decode_image, inspect_image):
        with pytest.raises(InvalidInputError, match=r"bomb\.png: .*80,000,000"):
            function(png_header(side, side), "bomb.png")


def test_pad_keeps_all_of_the_image_between_black_borders():
    white = Image.new("L", (40, 20), 255)
    fitted = np.asarray(fit_image(white, 20, "pad"))
    assert fitted.shape == (20, 20)
    assert np.all(fitted[5:15] == 255) and np.all(fitted[:5] == 0) and np.all(fitted[15:] == 0)


def test_crop_fills_the_square_with_the_middle():
    picture = np.zeros((20, 40), np.uint8)
    picture[:, 10:30] = 200
    assert np.all(np.asarray(fit_image(Image.fromarray(picture), 20, "crop")) == 200)


def test_scaling_down_is_antialiased():
    checkers = np.indices((64, 64)).sum(axis=0) % 2 * 255
    small = np.asarray(fit_image(Image.fromarray(checkers.astype(np.uint8)), 16, "pad"))
    assert small[2:-2, 2:-2].std() < 3 and abs(small.mean() - 127.5) < 2


@pytest.mark.parametrize("fit", ["pad", "crop"])
def test_an_image_of_the_right_size_is_not_touched_and_a_thin_one_survives(fit):
    image = gradient()
    assert fit_image(image, 32, fit) is image
    assert fit_image(Image.new("RGB", (1000, 1)), 32, fit).size == (32, 32)


def test_borders_are_of_the_mean_colour_or_of_mirror_images():
    picture = np.zeros((20, 40, 3), np.uint8)
    picture[:10] = (200, 100, 50)
    mean = np.asarray(fit_image(Image.fromarray(picture), 40, "pad mean"))
    assert np.array_equal(mean[10:30], picture) and np.all(mean[:10] == (100, 50, 25))
    assert np.all(mean[30:] == (100, 50, 25))
    reflected = np.asarray(fit_image(Image.fromarray(picture), 40, "pad reflect"))
    assert np.array_equal(reflected, np.pad(picture, [(10, 10), (0, 0), (0, 0)], "reflect"))


def test_stretch_shows_all_of_the_image_without_borders():
    picture = np.zeros((20, 40), np.uint8)
    picture[:10] = 200
    wide = np.asarray(fit_image(Image.fromarray(picture), 40, "stretch"))
    assert np.all(wide[:16] == 200) and np.all(wide[24:] == 0)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (30, 31), (7, 3)])
@pytest.mark.parametrize("fit", ["pad", "pad mean", "pad reflect", "crop", "stretch"])
def test_every_shape_becomes_a_square_of_its_own_mode(fit, size, mode):
    image = Image.new(mode, size, 200 if mode == "L" else (200, 10, 30))
    fitted = fit_image(image, 32, fit)
    assert fitted.size == (32, 32) and fitted.mode == mode
    if fit != "pad":
        colour = (200,) if mode == "L" else (200, 10, 30)
        assert np.all(np.asarray(fitted).reshape(32, 32, -1) == colour)


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "I;16", "I", "L", "RGB"])
def test_a_large_image_is_converted_in_strips_to_the_same_pixels(mode: str, monkeypatch) -> None:
    random = np.random.default_rng(0)
    if mode.startswith("I"):
        kind = np.uint16 if mode == "I;16" else np.int32
        image = Image.fromarray(random.integers(0, 65536, (37, 23)).astype(kind))
    else:
        bands = random.integers(0, 256, (37, 23, 4)).astype(np.uint8)
        image = Image.fromarray(bands).convert(mode)
    options = {"transparency": 3} if mode in ("P", "L") else {}
    content = encode(image, "TIFF" if mode == "I" else "PNG", **options)
    whole = decode_image(content, "x")
    monkeypatch.setattr(images, "STRIP_PIXELS", 100)
    strips = decode_image(content, "x")
    assert strips.mode == whole.mode
    np.testing.assert_array_equal(np.asarray(strips), np.asarray(whole))


def test_threads_together_keep_within_the_memory(monkeypatch) -> None:
    """Eight images whose decoding counts for 0.4 of the memory each: never more than two at a time."""
    memory, least = images._Memory(10 * 9 * 32 * 32 // 4), []
    monkeypatch.setattr(images, "_memory", memory)

    def slow(image: Image.Image) -> Image.Image:
        time.sleep(0.02)
        least.append(memory.free)
        return image

    monkeypatch.setattr(images, "_to_eight_bits", slow)
    content = encode(gradient())
    threads = [
        threading.Thread(target=decode_row, args=(content, "x", 8, 3, "stretch")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(least) == memory.total - 2 * 9 * 32 * 32 and memory.free == memory.total
    with pytest.raises(InvalidInputError):
        decode_row(content[:60], "x", 8, 3, "stretch")
    assert memory.free == memory.total  # also after an error


@pytest.mark.parametrize(("quick", "several"), [(10.0, False), (0.0, True)])
def test_one_thread_reads_small_files_and_several_those_that_are_slow_to_come(
    monkeypatch, quick: float, several: bool
) -> None:
    monkeypatch.setattr(look, "threads", lambda: 4)
    monkeypatch.setattr(look, "QUICK", quick)
    by, together = set(), threading.Barrier(4 if several else 1)

    def read() -> bytes:
        if threading.current_thread() is not threading.main_thread():
            by.add(threading.get_ident())
            together.wait(30)
        return encode(gradient())

    items = [Item(str(number), 0, 0, read) for number in range(48)]
    assert len(list(look.read_images(items, None))) == 48
    assert len(by) == (4 if several else 1)


@pytest.mark.parametrize(("side", "count"), [(64, 1), (128, 1), (256, 2)])
def test_one_thread_decodes_small_images(monkeypatch, side: int, count: int) -> None:
    monkeypatch.setattr(pack, "cores", lambda: 2)
    by, together = set(), threading.Barrier(count)

    def read() -> np.ndarray:
        by.add(threading.get_ident())
        together.wait(30)
        return np.zeros((side, side), np.uint8)

    items = [Item(str(number), 0, 0, read) for number in range(32)]
    ((pixels, _, bad),) = pack.decoded([items], pack.Geometry(side, 1, "square", side))
    assert pixels.shape == (32, side, side, 1) and not bad
    assert len(by) == count


PEAK = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from PIL import Image
from onepass.data.images import decode_row, image_suffixes
image_suffixes()
content = Path(sys.argv[1]).read_bytes()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(3) as pool:
    list(pool.map(lambda n: decode_row(content, "x.png", 64, 3, "stretch"), range(3)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is another")
def test_a_large_transparent_image_in_many_threads_stays_below_a_gigabyte(
    tmp_path: Path,
) -> None:
    Image.new("RGBA", (6000, 6000), (1, 2, 3, 128)).save(tmp_path / "x.png", compress_level=1)
    command = [sys.executable, "-W", "ignore", "-c", PEAK, str(tmp_path / "x.png")]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1_000_000_000


@pytest.mark.filterwarnings("ignore:Image was not")
def test_an_icon_with_a_larger_image_inside_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 5000)
    content = bytearray(encode(gradient(size=(64, 64)), "ICO", sizes=[(64, 64)]))
    inner = encode(gradient(size=(100, 100)))
    offset = int.from_bytes(content[18:22], "little")
    content[14:18] = len(inner).to_bytes(4, "little")
    with pytest.raises(InvalidInputError, match="100 x 100 px, more than the 5,000"):
        decode_image(bytes(content[:offset]) + inner, "x.ico")


@pytest.mark.parametrize(("form", "side"), [("WEBP", 8000), ("JPEG2000", 6500)])
def test_a_format_that_takes_more_memory_may_have_fewer_pixels(form: str, side: int) -> None:
    taken = images.MEMORY // images.PIXEL_BYTES[form]
    image = Image.new("L", (side, side))
    image.format = form
    assert side * side > taken
    with pytest.raises(ValueError, match=f"more than the {taken:,}"):
        images._check_size(image)


def photograph(width: int, height: int) -> Image.Image:
    """Return soft shapes under the noise of a camera."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 256, (30, 40, 3), np.uint8))
    pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = pixels + random.normal(0, 5, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("side", [40, 60, 100])
def test_a_part_of_a_large_jpeg_gives_the_pixels_of_the_whole(side: int, fit: str) -> None:
    content = encode(photograph(1600, 1200), "JPEG", quality=90)
    found = decode_row(content, "x.jpg", side, 3, fit).astype(int)
    whole = np.asarray(fit_image(decode_image(content, "x.jpg"), side, fit)).astype(int)
    apart = np.abs(found - whole)
    assert (apart > 1).mean() < 1e-3 and apart.max() <= 3


@pytest.mark.parametrize(
    ("size", "side", "part"),
    [
        ((1600, 1200), 40, 4), ((1600, 1200), 37, 8), ((1600, 1200), 100, 2),
        ((1600, 1200), 200, 1), ((1604, 1202), 40, 2), ((1601, 1200), 40, 1),
    ],
)  # fmt: skip
def test_a_jpeg_is_decoded_at_a_part_that_leaves_four_times_the_side(
    size: tuple[int, int], side: int, part: int
) -> None:
    content = encode(gradient(size=size), "JPEG")
    with images._decoding(content, "x.jpg", side) as (image, found):
        assert found == part
        assert image.size == (size[0] // part, size[1] // part)
    with images._decoding(encode(gradient(size=size)), "x.png", side) as (_, found):
        assert found == 1


def test_a_part_counts_as_the_size_that_the_image_has() -> None:
    content = encode(gradient(size=(640, 640)), "JPEG")
    assert decode_row(content, "x.jpg", 16, 3, "stretch", native=640).shape == (16, 16, 3)
    with pytest.raises(InvalidInputError, match="expected 80 x 80 px, found 640 x 640"):
        decode_row(content, "x.jpg", 16, 3, "stretch", native=80)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_simplejpeg_changes_no_pixel(mode: str, orientation: int, monkeypatch: Any) -> None:
    simplejpeg = pytest.importorskip("simplejpeg")
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    content = encode(photograph(70, 50).convert(mode), "JPEG", quality=80, exif=exif)
    calls = []
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *a: calls.append(a) or decode(*a))
    fast = pixels(content)
    assert len(calls) == (orientation == 1 and mode != "CMYK")
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    np.testing.assert_array_equal(fast, pixels(content))
