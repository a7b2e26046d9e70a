"""Batch sizes that fit, random views that are seeded, and several devices with one result."""

import shutil
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image

from onepass.cache.content import content_of
from onepass.cache.errors import OnepassError
from onepass.extract.network.resize import draw_boxes, random_seed
from onepass.extract.stream.extractor import largest_fitting


def test_the_batch_halves_until_it_fits(said: pytest.LogCaptureFixture) -> None:
    def build(size: int) -> str:
        if size > 40:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        return f"a model for {size}"

    assert largest_fitting(build, 256) == (32, "a model for 32")
    assert "256 images a step do not fit" in said.text


def test_another_error_is_not_taken_for_a_full_memory() -> None:
    def build(size: int) -> str:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        largest_fitting(build, 8)


def test_where_not_even_one_image_fits_the_cure_is_named() -> None:
    def build(size: int) -> str:
        raise MemoryError

    with pytest.raises(OnepassError, match="smaller --size"):
        largest_fitting(build, 8)


def test_an_images_box_depends_on_seed_and_content_only() -> None:
    contents = content_of(np.arange(4000, dtype=np.uint32).view(np.uint8).reshape(1000, 4, 2, 2))
    boxes = draw_boxes(3, contents)
    order = np.random.default_rng(0).permutation(1000)
    np.testing.assert_array_equal(draw_boxes(3, contents[order]), boxes[order])
    np.testing.assert_array_equal(draw_boxes(3, contents[:1]), boxes[:1])
    assert np.abs(boxes - draw_boxes(4, contents)).max(axis=1).min() > 1e-3
    assert len(np.unique(boxes, axis=0)) == 1000
    top, left, height, width, mirror = boxes.T
    assert top.min() >= 0 and (top + height).max() <= 1 + 1e-6
    assert left.min() >= 0 and (left + width).max() <= 1 + 1e-6
    assert (height * width).min() + 0.1 >= 0.4 and 0.45 < mirror.mean() < 0.55
    assert random_seed("random:7") == 7 and random_seed("flip") is None


def test_a_box_stays_what_it_is() -> None:
    """Stored vectors of a random view depend on it: another draw would mix two views in one file."""
    (box,) = draw_boxes(7, np.arange(16, dtype=np.uint8)[None])
    np.testing.assert_allclose(box, [0.03388545, 0.2846836, 0.6047734, 0.6783452, 0], atol=1e-6)


def test_a_random_view_is_the_box_that_was_drawn() -> None:
    from onepass.extract.network.model import RandomResize

    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    boxes = np.array(
        [[0.25, 0.125, 0.5, 0.75, 0], [0.25, 0.125, 0.5, 0.75, 1], [0, 0, 1, 1, 0]], np.float32
    )
    ours = np.asarray(RandomResize(64)([np.stack([image] * 3), boxes]))
    box = (6, 8, 42, 24)
    part = np.asarray(
        Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC, box=box), np.float32
    )
    whole = np.asarray(
        Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC), np.float32
    )
    assert np.abs(ours[0] - part).mean() < 0.5
    np.testing.assert_allclose(ours[1], ours[0][:, ::-1], atol=1e-3)
    assert np.abs(ours[2] - whole).mean() < 0.5


TWO_DEVICES = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[2]))
from pathlib import Path
from onepass.extract.config import ExtractConfig
from onepass.extract.pipeline import extract_features
from onepass.cache.features import open_features
from onepass.cache.rows import RowFile
result = extract_features(ExtractConfig(
    dataset="digits", backbone=("tiny",), size=(32,), batch=32, shard_rows=64, cache_dir=Path(sys.argv[1])))
rows = RowFile.open(result.files[0].path)
print(len(rows.attributes["extraction"]["devices"]), rows.digest)
"""


@pytest.mark.slow
def test_two_devices_share_the_shards_and_the_result_is_the_same(tmp_path: Path) -> None:
    prepare = ["data", "prepare", "digits", "--cache-dir", str(tmp_path / "1")]
    assert processes.run(*prepare).returncode == 0
    shutil.copytree(tmp_path / "1", tmp_path / "2")
    printed = []
    for devices in ("1", "2"):
        words = ("-c", TWO_DEVICES, str(tmp_path / devices), devices)
        run = processes.run(*words, PROGRAM="1", TINY_BACKBONE="1")
        assert run.returncode == 0, run.stderr
        printed.append(run.stdout.split())
    assert [devices for devices, _ in printed] == ["1", "2"]
    assert printed[0][1] == printed[1][1]
