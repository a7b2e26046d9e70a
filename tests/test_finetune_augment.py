"""Augmentation on the device: what was drawn is what is done, and nothing else."""

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from onepass.cache.errors import InvalidInputError
from onepass.extract.network.model import Resize
from onepass.finetune.augmentation import (
    OPERATIONS,
    Augment,
    affine_maps,
    draw,
    frames,
    gathered,
    mixed_targets,
    slanted,
)
from onepass.finetune.recipes import LIMITS, Augmentation

ORIENTATIONS = Augmentation(flip=True, vertical_flip=True, quarter_turns=True)


def pictures(count: int = 4, shape: tuple[int, int, int] = (10, 12, 3)) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def augmented(
    augmentation: Augmentation, pixels: np.ndarray, size: int, draws: dict[str, np.ndarray]
) -> np.ndarray:
    return ops.convert_to_numpy(Augment(augmentation, size)([pixels, draws]))


@pytest.mark.parametrize("shape", [(10, 12, 3), (16, 16, 1)])
def test_nothing_drawn_is_the_resize_of_extraction(shape: tuple[int, int, int]) -> None:
    pixels = pictures(shape=shape)
    plain = ops.convert_to_numpy(Resize(16)(pixels))
    np.testing.assert_array_equal(augmented(Augmentation(), pixels, 16, {}), plain)
    still = {"flips": np.zeros((4, 2), bool), "transpose": np.zeros(4, bool)}
    np.testing.assert_array_equal(augmented(ORIENTATIONS, pixels, 16, still), plain)


def test_flips_and_quarter_turns_are_those_of_numpy() -> None:
    pixels = pictures(1, (16, 16, 3))
    wanted = {
        np.rot90(image, k).astype(np.float32).tobytes()
        for image in (pixels[0], pixels[0, :, ::-1])
        for k in range(4)
    }
    found = set()
    for step in range(8):
        draws = draw(ORIENTATIONS, (16, 16, 3), 0, 0, step, 8)
        out = augmented(ORIENTATIONS, np.repeat(pixels, 8, axis=0), 16, draws)
        found |= {image.tobytes() for image in out}
    assert found == wanted


def test_a_quarter_turn_turns() -> None:
    turns = Augmentation(quarter_turns=True)
    pixels = pictures(1, (16, 16, 3))
    wanted = {np.rot90(pixels[0], k).astype(np.float32).tobytes() for k in range(4)}
    draws = draw(turns, (16, 16, 3), 0, 0, 0, 32)
    out = augmented(turns, np.repeat(pixels, 32, axis=0), 16, draws)
    assert {image.tobytes() for image in out} == wanted


def test_draws_depend_on_seed_epoch_and_step_only() -> None:
    def flips(seed: int, epoch: int, step: int) -> list:
        return draw(Augmentation(flip=True), (8, 8, 3), seed, epoch, step, 64)["flips"].tolist()

    assert flips(0, 1, 2) == flips(0, 1, 2)
    assert len({str(flips(*place)) for place in ((0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3))}) == 4
    share = np.mean([np.mean(flips(0, 0, step), axis=0) for step in range(100)], axis=0)
    assert share[0] == 0 and 0.45 < share[1] < 0.55


def test_targets_are_one_hot_and_smoothed() -> None:
    labels = np.array([0, 2], np.int32)
    np.testing.assert_array_equal(mixed_targets(labels, 3, {}), [[1, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(
        mixed_targets(labels, 4, {}, 0.2), [[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.85, 0.05]]
    )


def smooth_pictures(count: int, height: int, width: int, channels: int) -> np.ndarray:
    """Pictures on which every good kernel agrees."""
    noise = np.random.default_rng(3).uniform(0, 255, (count, height, width, channels))
    soft = ndimage.gaussian_filter(noise, (0, 4, 4, 0), mode="mirror")
    return np.clip((soft - soft.mean()) * 8 + 128, 0, 255).astype(np.uint8)


def numbers(count: int, **changes: list[float]) -> dict[str, np.ndarray]:
    """What `affine_maps` takes, nothing moved but `changes`."""
    none = {name: np.zeros(count) for name in ("angle", "slant_x", "slant_y", "shift_x", "shift_y")}
    none |= {"zoom": np.ones(count), "box": np.tile([0.0, 0.0, 1.0, 1.0], (count, 1))}
    none |= {"upside": np.zeros(count, bool), "mirror": np.zeros(count, bool)}
    return none | {name: np.asarray(value) for name, value in changes.items()}


def looked_up(picture: np.ndarray, size: int, of: dict, i: int) -> np.ndarray:
    """The augmented picture computed place by place: where does this pixel come from?"""
    height, width, _ = picture.shape
    out_y, out_x = np.mgrid[:size, :size]
    u, v = (out_x + 0.5) / size - 0.5, (out_y + 0.5) / size - 0.5
    u, v = u / of["zoom"][i], v / of["zoom"][i]
    u, v = u + of["slant_x"][i] * v, v + of["slant_y"][i] * u
    cos, sin = np.cos(of["angle"][i]), np.sin(of["angle"][i])
    u, v = cos * u - sin * v - of["shift_x"][i], sin * u + cos * v - of["shift_y"][i]
    top, left, tall, wide = of["box"][i]
    x, y = left + wide * (u + 0.5), top + tall * (v + 0.5)
    x, y = (1 - x if of["mirror"][i] else x), (1 - y if of["upside"][i] else y)
    places = np.stack([y * height - 0.5, x * width - 0.5])
    channels = [
        ndimage.map_coordinates(channel.astype(float), places, order=3, mode="reflect")
        for channel in np.moveaxis(picture, 2, 0)
    ]
    return np.broadcast_to(np.clip(np.stack(channels, axis=2), 0, 255), (size, size, 3))


STRAIGHT = numbers(
    4, zoom=[1.25, 1, 0.8, 1], box=[[0.1, 0.2, 0.8, 0.7], [0, 0.3, 1, 0.7], [0, 0, 1, 1], [0, 0, 1, 1]],
    shift_x=[0, 0, 0.1, -0.4], shift_y=[0, 0, 0, 0.3],
    mirror=[False, True, True, False], upside=[False, False, True, True],
)  # fmt: skip
SLANTED = STRAIGHT | numbers(
    4, angle=[0.3, -0.2, 2.0, 0], slant_x=[0, 0.2, -0.1, 0.3], slant_y=[0.1, 0, 0.1, 0],
    zoom=[1.25, 1, 0.9, 1], box=STRAIGHT["box"], mirror=STRAIGHT["mirror"], upside=STRAIGHT["upside"],
)  # fmt: skip


@pytest.mark.parametrize("shape", [(64, 64, 3), (40, 56, 1)])
@pytest.mark.parametrize("of", [STRAIGHT, SLANTED], ids=["straight", "slanted"])
def test_the_warp_is_where_each_pixel_comes_from(shape: tuple, of: dict) -> None:
    pixels, size = smooth_pictures(4, *shape), 80
    maps = affine_maps(of)
    draws = slanted(maps) if of is SLANTED else {"frame": frames(maps)}
    draws = {name: array.astype(np.float32) for name, array in draws.items()}
    out = augmented(Augmentation(rotation=1), pixels, size, draws)
    for i, image in enumerate(out):
        apart = np.abs(image - looked_up(pixels[i], size, of, i))
        assert apart.mean() < 0.6 and np.quantile(apart, 0.99) < 4, (i, apart.mean(), apart.max())


@pytest.mark.parametrize("size", [16, 40])
def test_what_may_move_but_does_not_is_the_resize(size: int) -> None:
    pixels = pictures(shape=(16, 16, 3))
    plain = ops.convert_to_numpy(Resize(size)(pixels))
    maps = affine_maps(numbers(4))
    for draws in ({"frame": frames(maps)}, slanted(maps)):
        draws = {name: array.astype(np.float32) for name, array in draws.items()}
        apart = np.abs(augmented(Augmentation(crop=0.5), pixels, size, draws) - plain).max()
        assert apart < (1e-3 if size == 16 else 1.2)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_rotation_by_quarters_is_numpys(k: int) -> None:
    pixels = pictures(shape=(16, 16, 3))
    draws = slanted(affine_maps(numbers(4, angle=[k * np.pi / 2] * 4)))
    draws = {name: array.astype(np.float32) for name, array in draws.items()}
    plain = ops.convert_to_numpy(Resize(40)(pixels))
    out = augmented(Augmentation(rotation=1), pixels, 40, draws)
    assert np.abs(out - np.rot90(plain, k, axes=(1, 2))).max() < 1.2


def test_crops_keep_the_area_they_should_and_stay_inside() -> None:
    frame = draw(Augmentation(crop=0.6), (8, 8, 3), 0, 0, 0, 5000)["frame"]
    top, left, height, width = frame.T
    area, ratio = height * width, height / width
    assert 0.4 - 1e-6 <= area.min() < 0.42 and 0.98 < area.max() <= 1 + 1e-6
    assert 0.749 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.335
    assert min(top.min(), left.min()) > -1e-6
    assert max((top + height).max(), (left + width).max()) < 1 + 1e-6


def test_light_is_a_factor_and_a_distance_from_the_mean() -> None:
    pixels = pictures()
    both = Augmentation(brightness=0.5, contrast=0.5)
    draws = draw(both, (10, 12, 3), 0, 0, 0, 4)
    out = augmented(both, pixels, 12, draws)
    contrast = 1 - draws["light"][:, 1] / draws["light"].sum(axis=1)  # light = b c, b (1 − c)
    assert np.abs(draws["light"].sum(axis=1) - 1).max() <= 0.5 and np.ptp(contrast) > 0
    for i, image in enumerate(pixels):
        bright = image * float(draws["light"][i].sum())
        wanted = np.clip((bright - bright.mean()) * contrast[i] + bright.mean(), 0, 255)
        resized = Resize(12)(wanted[None].astype(np.float32))
        np.testing.assert_allclose(out[i], ops.convert_to_numpy(resized)[0], atol=1.01)


def test_a_rectangle_is_erased_and_the_rest_is_left() -> None:
    erase = Augmentation(erase=0.7)
    shape = (20, 20, 3)
    pixels = np.full((400, *shape), 7, np.uint8)
    draws = draw(erase, shape, 0, 0, 0, 400)
    out = augmented(erase, pixels, 20, draws)
    areas = []
    for image, (top, left, bottom, right) in zip(out, np.rint(draws["erase"] * 20), strict=True):
        wanted = np.full(shape, 7.0)
        box = np.s_[int(top) : int(bottom), int(left) : int(right)]
        wanted[box] = draws["noise"][box]
        assert np.mean(image != wanted) < 0.03  # a corner pixel that is half covered both ways
        areas.append((bottom - top) * (right - left) / 400)
    erased = np.array(areas) > 0
    assert 0.62 < erased.mean() < 0.78
    assert 0.18 < np.array(areas)[erased].mean() < 0.24  # of 2 % to 40 %: 21 %


@pytest.mark.parametrize("alphas", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_images_and_targets_are_mixed_with_the_same_weight(alphas: tuple[float, float]) -> None:
    mix = Augmentation(mixup=alphas[0], cutmix=alphas[1])
    count, size = 64, 24
    pixels = pictures(count, (24, 24, 3))
    labels = np.arange(count, dtype=np.int32) % 5
    draws = draw(mix, (24, 24, 3), 0, 0, 0, count)
    out = augmented(mix, pixels, size, draws)
    targets = ops.convert_to_numpy(mixed_targets(labels, 5, draws, 0.1))
    shares = []
    for i in range(count):
        blend, *box = draws["mix"][i].astype(float)
        top, left, bottom, right = (edge * size for edge in box)
        weight = np.full((size, size, 1), blend)
        for y in range(size):
            for x in range(size):
                tall = max(min(bottom, y + 1) - max(top, y), 0)
                weight[y, x] += tall * max(min(right, x + 1) - max(left, x), 0)
        mixed = (1 - weight) * pixels[i] + weight * pixels[i - 1]
        np.testing.assert_allclose(out[i], mixed, atol=0.02)
        wanted = 0.9 * ((1 - weight.mean()) * np.eye(5)[labels[i]])
        wanted += 0.9 * weight.mean() * np.eye(5)[labels[i - 1]] + 0.02
        np.testing.assert_allclose(targets[i], wanted, atol=1e-5)
        shares.append((blend, weight.mean() - blend))
    blends, areas = np.array(shares).T
    assert (blends.any(), bool(areas.max() > 1e-6)) == (bool(alphas[0]), bool(alphas[1]))
    assert not np.any((blends > 1e-6) & (areas > 1e-6))


def test_soft_labels_are_mixed_as_they_are() -> None:
    soft = np.array([[0.7, 0.3], [0.2, 0.8]], np.float32)
    draws = {"mix": np.array([[0.25, 0, 0, 0, 0], [0, 0, 0, 0.5, 1]], np.float32)}
    wanted = [0.75 * soft[0] + 0.25 * soft[1], 0.5 * soft[1] + 0.5 * soft[0]]
    np.testing.assert_allclose(mixed_targets(soft, 2, draws), wanted, rtol=1e-6)


def test_randaugment_draws_two_operations_of_its_magnitude() -> None:
    lit = draw(Augmentation(randaugment=5), (8, 8, 3), 0, 0, 0, 4000)
    upright = np.isclose(lit["warp"][:, 0, 1], 0) & np.isclose(lit["warp"][:, 1, 0], 0)
    slants = len(["angle", "slant_x", "slant_y"]) / len(OPERATIONS)
    # Some rotations and slants cancel: the same operation twice, with opposite signs.
    assert abs((1 - upright.mean()) - (1 - (1 - slants) ** 2)) < 0.06
    gains = np.unique(np.round(lit["light"].sum(axis=1), 4))
    np.testing.assert_allclose(gains, [0.55**2, 0.55, 0.55 * 1.45, 1, 1.45, 1.45**2], atol=1e-3)


def test_leaving_a_part_out_changes_nothing_of_the_others() -> None:
    full = Augmentation(flip=True, rotation=5, crop=0.3, brightness=0.2, erase=0.5, mixup=0.2)
    less = Augmentation(flip=True, crop=0.3, brightness=0.2, erase=0.5, mixup=0.2)
    a, b = (draw(some, (8, 8, 3), 0, 0, 0, 16) for some in (full, less))
    for name in ("light", "erase", "noise", "mix"):
        np.testing.assert_array_equal(a[name], b[name])
    np.testing.assert_array_equal(a["warp"][:, 0, 0] < 0, b["frame"][:, 3] < 0)


def test_shapes_are_those_of_the_first_step() -> None:
    every = Augmentation(
        True, True, True, 10, 5, 0.1, 0.2, 0.1, 0.2, 0.2, 0.5, 3, mixup=0.2, cutmix=1.0
    )
    assert every.parts == tuple(Augmentation.__dataclass_fields__)
    first, later = (draw(every, (8, 8, 1), 0, epoch, 5 * epoch, 6) for epoch in (0, 3))
    for name, array in first.items():
        assert array.dtype in (np.float32, np.uint8, bool)
        assert (array.shape, array.dtype) == (later[name].shape, later[name].dtype)
        assert not np.array_equal(array, later[name])
    out = augmented(every, pictures(6, (8, 8, 1)), 12, first)
    assert out.shape == (6, 12, 12, 3) and out.min() >= 0 and out.max() <= 255


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [-1, 1000])
def test_a_number_that_makes_no_sense_is_named(name: str, value: int) -> None:
    with pytest.raises(InvalidInputError, match=f"augmentation {name}: expected 0"):
        Augmentation(**{name: value})


def test_accelerators_interpolate_as_the_kernel_of_the_cpu_does() -> None:
    random = np.random.default_rng(0)
    pictures = random.uniform(0, 255, (4, 12, 12, 3)).astype(np.float32)
    maps = np.zeros((4, 8), np.float32)
    maps[:, :6] = random.uniform(-1.2, 1.2, (4, 6))
    maps[:, [2, 5]] += 5
    maps[0, :6] = [1, 0, 0, 0, 1, 0]
    wanted = ops.image.affine_transform(
        pictures, maps, "bilinear", "reflect", data_format="channels_last"
    )
    out = ops.convert_to_numpy(gathered(pictures, maps))
    np.testing.assert_allclose(out[0], pictures[0], atol=1e-3)
    np.testing.assert_allclose(out, ops.convert_to_numpy(wanted), atol=0.01)
