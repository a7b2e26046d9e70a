"""Augmentation on the device: what was drawn is what is done, and nothing else."""

import numpy as np
import pytest
from keras import ops

from extract.model import Resize
from finetune.augment import Augment, mixed_targets
from finetune.augmentation import Augmentation, draw

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
