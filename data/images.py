"""Encoded images of any kind become uint8 pixels, grey or RGB."""

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps

from onepass.cache.errors import InvalidInputError
from onepass.cache.flock import lock_file

COMMON = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")  # tried first
# Pillow opens these as well, but by running another program (EPS, WMF) or without a decoder of its own.
NOT_READ = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})
MAGIC_BYTES = 16  # of a file, by which Pillow tells what it may be
MAX_PIXELS = 80_000_000  # below the limit from which Pillow warns
MEMORY = 900_000_000  # bytes that all images may take that are being decoded at a time
# Bytes a pixel that decoding takes at its peak, measured; 9 where nothing is said.
PIXEL_BYTES = {"WEBP": 16, "AVIF": 16, "JPEG2000": 25}
STRIP_PIXELS = 1_000_000  # that are converted at a time
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size while so many times the wanted side are left. Photographs' rows
# then are those of the whole within a grey level, but for one number in ten thousand (benchmarks/RESULTS.md).
LEFT = 4
DECODER = f"Pillow; a JPEG at 1/2, 1/4 or 1/8 of its size where {LEFT} times the side are left"
SMALL_PIXELS = 250_000  # of a JPEG that simplejpeg decodes sooner than Pillow, to the same pixels
ORIENTATION = 0x0112  # the EXIF tag
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F"})


def decode_image(content: bytes | np.ndarray | Image.Image, name: str) -> Image.Image:
    """Decode one image, whatever its encoding, to 8 bits.

    The header's size is checked before a pixel is decoded. EXIF orientation is applied,
    transparency is laid over white, 16 bits are scaled (not clipped) to 8, CMYK and palettes become
    RGB, and of an animation the first frame is taken.

    Args:
        content: An encoded file, a Pillow image, or pixels (H, W), (H, W, 3) or (H, W, 4) uint8.
        name: What an error calls it.

    Returns:
        A Pillow image of mode "L" (grey) or "RGB".

    Raises:
        InvalidInputError: It cannot be decoded, is cut short, or is too large.
    """
    with _decoding(content, name) as (image, _):
        return image


def decode_row(
    content: bytes | np.ndarray | Image.Image,
    name: str,
    side: int,
    channels: int,
    fit: str,
    *,
    native: int = 0,
) -> np.ndarray:
    """Decode one image to a row of pixels, uint8 (side, side, channels).

    Any number of threads may decode: together their images take no more than `MEMORY`.

    Args:
        content, name: As in `decode_image`.
        side: Height and width of the row (px).
        channels: 1 (grey) or 3 (RGB).
        fit: As in `fit_image`.
        native: Height and width that the image must have (px); 0 for any.

    Raises:
        InvalidInputError: It cannot be decoded, is cut short, is too large, or of another size than `native`.
    """
    mode = "L" if channels == 1 else "RGB"
    with _decoding(content, name, side) as (image, part):
        found = part * image.width, part * image.height
        if native and found != (native, native):
            raise InvalidInputError(
                f"{name}: expected {native} x {native} px, found {found[0]} x {found[1]}"
            )
        image = image if image.mode == mode else image.convert(mode)
        array = np.asarray(fit_image(image, side, fit))
    return array[:, :, np.newaxis] if channels == 1 else array


@contextmanager
def _decoding(
    content: bytes | np.ndarray | Image.Image, name: str, side: int = 0
) -> Iterator[tuple[Image.Image, int]]:
    """Yield the image as "L" or "RGB", and at what part of its size; its memory is counted until the block ends.

    Args:
        content, name: As in `decode_image`.
        side: What it will be scaled down to (px), so that a part of its size may do; 0 for nothing.

    Raises:
        InvalidInputError: As for `decode_image`.
    """
    if isinstance(content, np.ndarray):
        yield _to_eight_bits(Image.fromarray(content)), 1
        return
    with ExitStack() as stack:
        try:
            if isinstance(content, Image.Image):
                image = _check_size(content)
            else:
                image = stack.enter_context(_open(content, name))
            stack.enter_context(_memory.reserve(image.width * image.height * _pixel_bytes(image)))
            part = _reduce(image, side) if side and image is not content else 1
            if part == 1 and isinstance(content, bytes):
                image = _small_jpeg(image, content) or image
            image.load()
            _check_size(image)  # an icon may hold a larger one than its header says
            if image is content:  # its owner keeps it as it is
                image = ImageOps.exif_transpose(image)
            else:
                ImageOps.exif_transpose(image, in_place=True)
            decoded = _to_eight_bits(image)
        except Exception as error:  # Pillow's decoders raise nearly anything on damaged input
            raise _unusable(name, error) from error
        yield decoded, part


def _reduce(image: Image.Image, side: int) -> int:
    """Let a large JPEG be decoded at 1/n of its size, by its own transform; return n."""
    width, height = image.size
    for part in (8, 4, 2):
        if min(width, height) >= LEFT * side * part and not width % part and not height % part:
            return part if image.draft(image.mode, (width // part, height // part)) else 1
    return 1


def _small_jpeg(image: Image.Image, content: bytes) -> Image.Image | None:
    """Return a small JPEG decoded by simplejpeg; None where that is not installed, or cannot or need not do it."""
    if image.format != "JPEG" or image.mode not in ("L", "RGB"):
        return None
    if image.width * image.height > SMALL_PIXELS or image.getexif().get(ORIENTATION, 1) != 1:
        return None
    with suppress(ImportError, ValueError):  # Pillow says what is wrong with it
        import simplejpeg

        pixels = simplejpeg.decode_jpeg(content, "RGB" if image.mode == "RGB" else "GRAY")
        return Image.fromarray(pixels if image.mode == "RGB" else pixels[:, :, 0])
    return None


class _Memory:
    """Counts bytes that several threads take at a time; whoever would take too many waits.

    Args:
        total: Of all threads.
        turn: A file whose lock whoever takes more holds, so that of several processes one does at a time.
    """

    def __init__(self, total: int, turn: Path | None = None) -> None:
        self.total = self.free = total
        self.turn = turn
        self.changed = threading.Condition()

    @contextmanager
    def reserve(self, count: int) -> Iterator[None]:
        """Hold so many bytes, or all there are, for as long as the block runs."""
        if count > self.total and self.turn:
            with self.turn.open("rb") as file:
                lock_file(file.fileno(), wait=True)
                with self._held(self.total):
                    yield
        else:
            with self._held(min(count, self.total)):
                yield

    @contextmanager
    def _held(self, count: int) -> Iterator[None]:
        with self.changed:
            self.changed.wait_for(lambda: self.free >= count)
            self.free -= count
        try:
            yield
        finally:
            with self.changed:
                self.free += count
                self.changed.notify_all()


_memory = _Memory(MEMORY)


def share_memory(processes: int, turn: Path) -> None:
    """Let this process be one of several that decode: each has a share of `MEMORY`, and larger images take turns.

    Args:
        processes: How many there are.
        turn: A file that all of them can open, which says whose turn it is.
    """
    global _memory  # noqa: PLW0603
    if (_memory.total, _memory.turn) != (MEMORY // processes, turn):
        _memory = _Memory(MEMORY // processes, turn)


def _pixel_bytes(image: Image.Image) -> int:
    return PIXEL_BYTES.get(image.format or "", 9)


def inspect_image(content: bytes | np.ndarray, name: str) -> tuple[int, int, bool]:
    """Return (width, height, is it grey) from the header alone.

    A turn by a quarter that EXIF asks for is not applied: it changes neither the longest side nor
    whether the image is square.

    Raises:
        InvalidInputError: It is not an image, or too large.
    """
    if isinstance(content, np.ndarray):
        return content.shape[1], content.shape[0], content.ndim == 2
    try:
        with _open(content, name) as image:
            return *image.size, image.mode in GREY_MODES
    except Exception as error:
        raise _unusable(name, error) from error


def fit_image(image: Image.Image, side: int, fit: str) -> Image.Image:
    """Bring an image to side x side px (bicubic, antialiased).

    Args:
        image: Mode "L" or "RGB".
        side: Height and width of the result (px).
        fit: "pad" shows all of it between black borders, "pad mean" between borders of its mean colour,
            "pad reflect" between its mirror images; "crop" fills the square with its middle; "stretch"
            shows all of it with another aspect.
    """
    if image.size == (side, side):
        return image
    width, height = image.size
    if fit == "crop" or width == height:
        return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    if fit == "stretch":
        return image.resize((side, side), Image.Resampling.BICUBIC)
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    whole = image.resize(size, Image.Resampling.BICUBIC)
    if fit == "pad reflect":
        pixels = np.asarray(whole)
        borders = [(top, side - size[1] - top), (left, side - size[0] - left), (0, 0)]
        return Image.fromarray(np.pad(pixels, borders[: pixels.ndim], "reflect"))
    square = Image.new(image.mode, (side, side), _mean_colour(whole) if fit == "pad mean" else 0)
    square.paste(whole, (left, top))
    return square


def _mean_colour(image: Image.Image) -> int | tuple[int, ...]:
    mean = np.rint(np.asarray(image).mean(axis=(0, 1))).astype(int)
    return int(mean) if mean.ndim == 0 else tuple(mean.tolist())


@cache
def image_suffixes() -> dict[str, str]:
    """Return Pillow's name of the format by suffix (".jfif"), of all images that can be read."""
    Image.init()
    known = Image.registered_extensions()
    readable = {
        *Image.OPEN,
        "MPO",
    } - NOT_READ  # MPO: several JPEG images in a file, of which the first is taken
    return {suffix: form for suffix, form in known.items() if form in readable}


@cache
def _recognised() -> tuple[str, ...]:
    """Return the formats that Pillow can tell by a file's first bytes, the common ones first."""
    Image.init()
    others = [form for form, (_, accepts) in Image.OPEN.items() if accepts and form not in NOT_READ]
    return tuple(dict.fromkeys([*COMMON, *sorted(others)]))


def may_be_image(head: bytes) -> bool:
    """Tell by the first `MAGIC_BYTES` of a file whether it is worth a look as an image."""
    if len(head) < MAGIC_BYTES:  # Pillow's tests read that many
        return False
    tests = (Image.OPEN[form][1] for form in _recognised())
    return any(test is not None and test(head) for test in tests)


def _open(content: bytes, name: str) -> Image.Image:
    formats = _recognised()
    own = image_suffixes().get(PurePosixPath(name).suffix.lower())
    if own in Image.OPEN and own not in formats:  # such as TGA, which has no mark of its own
        formats = (*formats, own)
    return _check_size(Image.open(io.BytesIO(content), formats=formats))


def _check_size(image: Image.Image) -> Image.Image:
    allowed = min(MAX_PIXELS, MEMORY // _pixel_bytes(image))
    if image.width * image.height > allowed:
        raise ValueError(
            f"{image.width} x {image.height} px, more than the {allowed:,} that are allowed"
        )
    return image


def _unusable(name: str, error: Exception) -> InvalidInputError:
    if isinstance(error, Image.UnidentifiedImageError):
        why = "not an image that Pillow reads"
    elif isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        why = f"more than the {MAX_PIXELS:,} pixels that are allowed"
    else:
        why = str(error) or type(error).__name__
    return InvalidInputError(f"{name}: {why}")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Return the image as "L" or "RGB"."""
    grey = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        low, high = image.getextrema()
        if image.mode == "F" or low < 0 or high > 65535:  # type: ignore[operator]
            raise ValueError(f"expected 8 or 16 bits a channel, found values {low:g} to {high:g}")
        return _by_strips(image, "L", _scale_down)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _by_strips(image, grey, _over_white)
    return image.convert(grey)


def _by_strips(
    image: Image.Image, mode: str, change: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Return an image that is changed pixel by pixel, without a copy of all of it at each step."""
    rows = max(1, STRIP_PIXELS // image.width)
    if image.height <= rows:
        return change(image).convert(mode)
    whole = Image.new(mode, image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(change(strip).convert(mode), (0, top))
    return whole


def _scale_down(image: Image.Image) -> Image.Image:
    """Scale 16 bits to 8: 0 … 65535 becomes 0 … 255, rounded."""
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    solid = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid)
