"""JPEG and PNG files to pixels in operations of TensorFlow: what a SavedModel does before its network.

The pixels are those of `onepass.data.images.decode_row`, which Pillow decodes: the same inverse transform of
JPEG, EXIF orientation, 16 bits scaled to 8, transparency over white, and Pillow's resize in its whole numbers.
"""

from collections.abc import Callable
from typing import Any

import PIL
import tensorflow as tf

from onepass.data.images import LEFT, MAX_PIXELS
from onepass.extract.network.resize import PILLOW_UNIT, keys_cubic
from onepass.predict.pixel_classifier import PictureGeometry

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
EXIF = b"Exif\x00\x00"
ORIENTATION = 0x0112  # the tag of EXIF
APP1, START_OF_SCAN = 0xE1, 0xDA  # JPEG segments: what holds EXIF, and what pixels follow
ZEROS = 32  # that follow a file's bytes, so that what a damaged header points at can be read
AT_ONCE = 4  # files that are decoded side by side; each may take 1.6 GB
ROWS = 64  # of an image, that are computed with at a time
# From version 13 on Pillow resizes the height first where it shrinks by more than twice as many pixels.
HEIGHT_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
DecodeFiles = Callable[[Any], Any]


def file_decoder(geometry: PictureGeometry) -> DecodeFiles:
    """Return what makes strings (B,), each a JPEG or PNG file, uint8 (B, side, side, channels).

    Another kind of file, a damaged one or one of more than `MAX_PIXELS` is an `InvalidArgumentError`.
    """

    def decode(content: Any) -> Any:
        image = _decoded(content, geometry.side)
        if geometry.channels == 1:
            image = _grey(image)
        return tf.ensure_shape(_fitted(image, geometry.side, geometry.fit), geometry.shape)

    row = tf.TensorSpec(geometry.shape, tf.uint8)
    return lambda contents: tf.map_fn(
        decode, contents, parallel_iterations=AT_ONCE, fn_output_signature=row
    )


def _decoded(content: Any, side: int) -> Any:
    """Return a file as uint8 (height, width, 3), turned as its EXIF orientation says.

    Args:
        content: The file, a string.
        side: What it will be scaled down to (px).
    """
    data = tf.concat([tf.io.decode_raw(content, tf.uint8), tf.zeros(ZEROS, tf.uint8)], 0)
    is_jpeg, is_png = _at(data, 0, JPEG), _at(data, 0, PNG)
    known = tf.debugging.Assert(is_jpeg | is_png, ["expected a JPEG or PNG file"])
    with tf.control_dependencies([known]):
        image, exif = tf.cond(
            is_jpeg,
            lambda: (_jpeg(content, side), _exif_in_jpeg(data)),
            lambda: (_png(content, data), _chunk(data, b"eXIf")),
        )
    return _turned(image, _orientation(data, exif))


def _jpeg(content: Any, side: int) -> Any:
    """Decode a JPEG file; a large one at 1/n of its size, as `onepass.data.images.decode_row` does."""
    height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(content, tf.int64), 3)
    few = tf.minimum(height, width)
    halvings = sum(
        tf.cast((few >= LEFT * side * n) & (height % n == 0) & (width % n == 0), tf.int32)
        for n in (2, 4, 8)
    )

    def at(n: int) -> Callable[[], Any]:
        return lambda: tf.io.decode_jpeg(
            content, channels=3, ratio=n, dct_method="INTEGER_ACCURATE"
        )

    with _small_enough(height, width):
        return tf.switch_case(halvings, [at(n) for n in (1, 2, 4, 8)])


def _png(content: Any, data: Any) -> Any:
    """Decode a PNG file: 16 bits of grey are scaled to 8, of 16 bits of a colour the upper 8 are kept."""
    with _small_enough(_number(data, 20, 4), _number(data, 16, 4)):
        deep = tf.io.decode_png(content, channels=4, dtype=tf.uint16)
    # bits of a channel; 0 is grey, 2 colours, 3 a palette, 4 and 6 have alpha
    depth, kind = data[24], data[25]
    # a colour, or entries of the palette, that are clear
    some_clear = _chunk(data, b"tRNS") < _end(data)
    has_alpha = (kind >= 4) | some_clear & ((kind == 3) | (depth == 1) | (depth == 8))

    def to_eight_bits(rows: Any) -> Any:
        rows = tf.cast(rows, tf.int32)
        from_deep_grey = (tf.repeat(rows[..., :1], 3, axis=2) + 128) // 257
        colours = rows[..., :3] // 256
        alpha = tf.where(has_alpha, rows[..., 3:] // 256, 255)
        # (colour · alpha + white · (255 - alpha)) / 255 as Pillow rounds it
        scaled = 128 * (colours * alpha + 255 * (255 - alpha) + 128)
        over_white = ((scaled // 256 + scaled) // 256) // 128
        return tf.cast(tf.where((depth == 16) & (kind == 0), from_deep_grey, over_white), tf.uint8)

    return _by_rows(to_eight_bits, deep, 3)


def _small_enough(height: Any, width: Any) -> Any:
    return tf.control_dependencies(
        [tf.debugging.Assert(height * width <= MAX_PIXELS, ["too many pixels", height, width])]
    )


def _grey(image: Any) -> Any:
    """Return the luma of uint8 (h, w, 3) as (h, w, 1), in Pillow's whole numbers."""

    def luma(rows: Any) -> Any:
        parts = tf.cast(rows, tf.int32) * tf.constant([19595, 38470, 7471])
        return tf.cast((tf.reduce_sum(parts, -1, keepdims=True) + 32768) // 65536, tf.uint8)

    return _by_rows(luma, image, 1)


def _at(data: Any, place: Any, mark: bytes) -> Any:
    """Say whether some bytes stand at a place."""
    return tf.reduce_all(data[place : place + len(mark)] == tf.constant(list(mark), tf.uint8))


def _number(data: Any, places: Any, size: int, little: Any = False) -> Any:
    """Return the numbers (n,) int64 of `size` bytes that stand at places (n,), or that at one place."""
    last = tf.size(data, tf.int64) - size
    places = tf.clip_by_value(tf.cast(places, tf.int64), 0, last)
    digits = tf.cast(tf.gather(data, places[..., None] + tf.range(size, dtype=tf.int64)), tf.int64)
    digits = tf.where(little, tf.reverse(digits, [-1]), digits)
    return tf.reduce_sum(digits * [256**power for power in reversed(range(size))], -1)


def _end(data: Any) -> Any:
    return tf.size(data, tf.int64) - ZEROS


def _exif_in_jpeg(data: Any) -> Any:
    """Return where the EXIF data of a JPEG file begin; its end where there are none."""

    def found(place: Any) -> Any:
        return (data[place + 1] == APP1) & _at(data, place + 4, EXIF)

    def go_on(place: Any) -> Any:
        in_header = (data[place] == 0xFF) & (data[place + 1] != START_OF_SCAN)
        return (place < _end(data)) & in_header & ~found(place)

    def following(place: Any) -> Any:
        return [tf.minimum(place + 2 + _number(data, place + 2, 2), _end(data))]

    (place,) = tf.while_loop(go_on, following, [tf.constant(2, tf.int64)])
    return tf.where(found(place), place + 4 + len(EXIF), _end(data))


def _chunk(data: Any, name: bytes) -> Any:
    """Return where the content of a chunk of a PNG file begins; its end where there is none."""

    def go_on(place: Any) -> Any:
        return (place < _end(data)) & ~_at(data, place + 4, name)

    def following(place: Any) -> Any:
        return [tf.minimum(place + 12 + _number(data, place, 4), _end(data))]

    (place,) = tf.while_loop(go_on, following, [tf.constant(len(PNG), tf.int64)])
    return tf.minimum(place + 8, _end(data))


def _orientation(data: Any, exif: Any) -> Any:
    """Return the EXIF orientation, 1 to 8; 1 where there is none.

    Args:
        data: The file's bytes (n,).
        exif: Where its EXIF data begin.
    """
    little = _at(data, exif, b"II*\0")
    directory = exif + _number(data, exif + 4, 4, little)
    places = directory + 2 + 12 * tf.range(_number(data, directory, 2, little))
    # the tag, its type (a number of 2 bytes), and how many there are
    is_wanted = (
        (_number(data, places, 2, little) == ORIENTATION)
        & (_number(data, places + 2, 2, little) == 3)
        & (_number(data, places + 4, 4, little) == 1)
        & (little | _at(data, exif, b"MM\0*"))
    )
    values = _number(data, tf.boolean_mask(places, is_wanted) + 8, 2, little)
    value = tf.concat([values, [1]], 0)[0]
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _turned(image: Any, orientation: Any) -> Any:
    """Return an image turned and mirrored as its orientation asks for."""
    mirrored = (orientation == 2) | (orientation == 4) | (orientation == 5) | (orientation == 7)
    image = tf.cond(mirrored, lambda: image[:, ::-1], lambda: image)
    quarters = tf.gather(tf.constant([0, 0, 0, 2, 2, 1, 3, 3, 1]), orientation)
    return tf.image.rot90(image, quarters)


def _fitted(image: Any, side: int, fit: str) -> Any:
    """Return uint8 (h, w, C) as (side, side, C); see `onepass.data.images.fit_image`."""
    size = tf.cast(tf.shape(image)[:2], tf.float64)
    if fit == "stretch":
        return _resized(image, tf.constant([side, side]), size)
    if fit == "crop":
        return _resized(image, tf.constant([side, side]), tf.fill([2], tf.reduce_min(size)))
    small = tf.cast(tf.maximum(tf.round(size * (side / tf.reduce_max(size))), 1), tf.int32)
    whole = _resized(image, small, size)
    before = (side - small) // 2  # rows above, columns to the left
    if fit == "pad reflect":
        for axis in range(2):
            last, place = small[axis] - 1, tf.range(side) - before[axis]
            mirrored = tf.abs((place + last) % tf.maximum(2 * last, 1) - last)
            whole = tf.gather(whole, mirrored, axis=axis)
        return whole
    edges = tf.concat([tf.stack([before, side - small - before], axis=1), [[0, 0]]], 0)
    border = tf.zeros(whole.shape[-1], tf.uint8)
    if fit == "pad mean":
        mean = tf.reduce_mean(tf.cast(whole, tf.float64), [0, 1])
        border = tf.cast(tf.round(mean), tf.uint8)
    return tf.where(tf.pad(tf.ones_like(whole), edges) == 1, tf.pad(whole, edges), border)


def _resized(image: Any, target: Any, of: Any) -> Any:
    """Return the middle of an image resized.

    Args:
        image: uint8 (h, w, C).
        target: Height and width wanted (px), (2,) int32.
        of: Height and width of the part that is resized (px), (2,) float64.
    """
    fewer = tf.shape(image)[:2] - target
    # which way comes first changes how the second rounds
    height_first = (fewer[0] > 0) & (fewer[0] > 2 * fewer[1]) & HEIGHT_FIRST
    order = tf.where(height_first, [0, 1], [1, 0])
    target, of = tf.gather(target, order), tf.gather(of, order)
    image = _transposed(image, height_first)
    for n in range(2):
        rows = _times(image, _bicubic_matrix(tf.shape(image)[1], target[n], of[n]))
        image = tf.transpose(rows, [1, 0, 2])
    return _transposed(image, height_first)


def _transposed(image: Any, really: Any) -> Any:
    return tf.cond(really, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)


def _times(image: Any, weights: Any) -> Any:
    """Multiply each row of uint8 (h, w, C) with weights (w, target), and round: uint8 (h, target, C)."""

    def multiplied(rows: Any) -> Any:
        lines = tf.cast(tf.transpose(rows, [0, 2, 1]), tf.float64)
        sums = tf.matmul(tf.reshape(lines, [-1, tf.shape(rows)[1]]), weights)  # below 2^53: exact
        rounded = tf.clip_by_value(tf.floor((sums + PILLOW_UNIT / 2) / PILLOW_UNIT), 0, 255)
        whole = tf.reshape(tf.cast(rounded, tf.uint8), [ROWS, rows.shape[2], -1])
        return tf.transpose(whole, [0, 2, 1])

    return _by_rows(multiplied, image, image.shape[2])


def _by_rows(change: Callable[[Any], Any], image: Any, channels: int) -> Any:
    """Return an image (h, w, C) that is changed `ROWS` rows at a time: the numbers between take much memory."""
    height, width = tf.unstack(tf.shape(image)[:2])
    image = tf.pad(image, [[0, -height % ROWS], [0, 0], [0, 0]])
    blocks = tf.reshape(image, [-1, ROWS, width, image.shape[2]])
    rows = tf.map_fn(change, blocks, fn_output_signature=tf.uint8)
    return tf.reshape(rows, [-1, tf.shape(rows)[2], channels])[:height]


def _bicubic_matrix(source: Any, target: Any, length: Any) -> Any:
    """Return `onepass.extract.network.resize.bicubic_matrix`, transposed, of the middle, in whole numbers.

    Returns:
        (source, target) float64: multiples of 1 / `PILLOW_UNIT`, times that.
    """
    source, target = tf.cast(source, tf.float64), tf.cast(target, tf.float64)
    step = length / target
    widening = tf.maximum(step, 1)
    centres = (source - length) / 2 + (tf.range(target) + 0.5) * step
    pixels = tf.range(source)[:, None]
    low, high = (tf.floor(centres + away * widening + 0.5) for away in (-2, 2))
    t = tf.abs(pixels + 0.5 - centres) / widening
    weights = tf.where((pixels >= low) & (pixels < high), keys_cubic(t, tf.where), 0)
    return tf.round(weights / tf.reduce_sum(weights, 0) * PILLOW_UNIT)
