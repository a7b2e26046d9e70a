"""The resize inside the model is Pillow's, and views are what they say."""

import keras
import numpy as np
import pytest
from PIL import Image

from onepass.cache.errors import InvalidInputError
from onepass.extract.network.model import Resize
from onepass.extract.network.resize import bicubic_matrix, view_matrices


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def resized(pixels: np.ndarray, size: int, view: str = "") -> np.ndarray:
    return np.asarray(Resize(size, view)(pixels[None]))[0]


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (64, 64, 128),
        (64, 64, 224),
        (64, 64, 80),
        (64, 64, 64),
        (8, 8, 96),
        (300, 300, 224),
        (100, 60, 75),
    ],
)
def test_equals_pillow_within_a_grey_level(height: int, width: int, size: int) -> None:
    image = picture(height, width)
    pillow = np.asarray(
        Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC), np.float32
    )
    ours = resized(image, size)
    assert ours.shape == (size, size, 3) and ours.dtype == np.float32
    assert np.abs(ours - pillow).max() <= 1
    assert np.abs(ours - pillow).mean() < 0.01


def test_grey_is_repeated() -> None:
    image = picture(20, 20, 1)
    ours = resized(image, 30)
    np.testing.assert_array_equal(ours, resized(np.repeat(image, 3, axis=2), 30))


def test_flip_is_the_mirrored_image() -> None:
    image = picture(64, 64)
    np.testing.assert_allclose(resized(image, 96, "flip"), resized(image[:, ::-1], 96), atol=1.01)
    np.testing.assert_array_equal(resized(image, 64, "flip"), image[:, ::-1])


@pytest.mark.parametrize("shape", [(30, 30, 1), (24, 40, 3), (40, 24, 3)])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_view_is_the_turned_image_bit_for_bit(
    shape: tuple[int, int, int], mirrored: bool, degrees: int
) -> None:
    image = picture(*shape)
    expected = resized(image, 32, "flip" if mirrored else "")
    found = resized(image, 32, f"{'flip-' if mirrored else ''}turn:{degrees}")
    np.testing.assert_array_equal(found, np.rot90(expected, degrees // 90))


@pytest.mark.parametrize(
    ("view", "box"),
    [
        ("scale:1.25", (6.4, 6.4, 57.6, 57.6)),
        ("crop:tl", (0, 0, 56, 56)),
        ("crop:tr", (8, 0, 64, 56)),
        ("crop:bl", (0, 8, 56, 64)),
        ("crop:br", (8, 8, 64, 64)),
        ("crop:center", (4, 4, 60, 60)),
    ],
)
def test_a_view_is_a_box_of_the_image(view: str, box: tuple) -> None:
    image = picture(64, 64)
    pillow = Image.fromarray(image).resize((96, 96), Image.Resampling.BICUBIC, box=box)
    assert np.abs(resized(image, 96, view) - np.asarray(pillow, np.float32)).max() <= 1.01


@pytest.mark.parametrize("view", ["flop", "scale:0.5", "scale:", "crop:middle"])
def test_an_unknown_view_is_named(view: str) -> None:
    with pytest.raises(InvalidInputError, match=f"view '{view}'"):
        view_matrices(64, 64, 96, view)


def test_rows_sum_to_one() -> None:
    for source, target in ((64, 224), (300, 96), (5, 5), (7, 3)):
        np.testing.assert_allclose(bicubic_matrix(source, target).sum(axis=1), 1, rtol=1e-5)


def test_runs_inside_a_saved_configuration() -> None:
    layer = Resize.from_config(Resize(32, "flip").get_config())
    assert (layer.size, layer.view) == (32, "flip")
    assert keras.Sequential([keras.Input((8, 8, 1), dtype="uint8"), layer]).output_shape == (
        None,
        32,
        32,
        3,
    )
