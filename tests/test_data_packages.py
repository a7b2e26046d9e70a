"""The data sets that come with a Python package: solar cells and digits."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from onepass.cache.errors import MissingFileError, UsageError
from onepass.data.config import PrepareConfig
from onepass.data.dataset import open_dataset
from onepass.data.prepare import prepare_dataset
from onepass.data.sources import open_source, solar_cells
from onepass.data.sources.base import Request, Source
from onepass.data.splits import UNDRAWN, VAL, shared_images


def load(kind: str, source: str | None = None) -> Source:
    with open_source(kind, [Request(source, "", ROOT)]) as opened:
        return opened


@pytest.fixture(scope="module")
def cells() -> Source:
    if find_spec("elpv_dataset") is None:
        pytest.skip("the package elpv-dataset is not installed")
    return load("solar-cells")


def test_solar_cells_are_all_there_with_their_annotations(cells):
    probability, types = cells.side["probability"], cells.side["type"]
    values, counts = np.unique(probability.round(2), return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == pytest.approx(
        {0.0: 1508, np.float32(0.33).item(): 295, np.float32(0.67).item(): 106, 1.0: 715}
    )
    assert probability.dtype == np.float32
    assert (types.count("mono"), types.count("poly")) == (1074, 1550)
    labels = np.array([item.label for item in cells.items])
    assert np.array_equal(labels, (probability >= 0.5).astype(int))
    assert cells.class_ids == ["functional", "defective"]
    assert [item.name for item in cells.items[:2]] == ["cell0001.png", "cell0002.png"]


def test_a_quarter_of_the_solar_cells_is_reported_by_class_and_type(cells, tmp_path):
    """The split is drawn when they are prepared."""
    prepare_dataset(PrepareConfig(kind="solar-cells", max_side=8, cache_dir=tmp_path))
    dataset = open_dataset(tmp_path, "solar-cells")
    assert len(dataset.rows("val")) == 656
    types = np.array(dataset.extra["type"])
    for label in (0, 1):
        for kind in ("mono", "poly"):
            part = dataset.split[(dataset.labels == label) & (types == kind)]
            assert abs(np.mean(part == VAL) - 0.25) < 0.005
    assert "stratified by class and type of cell, seed 0" in dataset.record.notes[-1]
    assert not shared_images(dataset.content, dataset.split)


def test_solar_cells_say_their_licence_and_what_is_published(cells):
    assert cells.record.licence == "CC BY-NC-SA 4.0"
    assert [p.accuracy for p in cells.record.published] == [82.44, 88.42, 90.1]
    assert all(p.source for p in cells.record.published)


def test_the_code_of_the_package_is_not_run(cells, monkeypatch):
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    assert len(load("solar-cells").items) == len(cells.items)
    assert "elpv_dataset" not in sys.modules


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(solar_cells, "PACKAGE", "elpv-dataset-that-is-not-there")
    with pytest.raises(MissingFileError, match="pip install elpv-dataset-that-is-not-there"):
        load("solar-cells")


def test_digits_are_scaled_to_eight_bits():
    digits = load("digits")
    assert len(digits.items) == 1797 and digits.class_ids == [str(d) for d in range(10)]
    pixels = digits.items[0].read()
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (8, 8) and pixels.dtype == np.uint8
    assert max(item.read().max() for item in digits.items[:50]) == 255
    assert Image.fromarray(pixels).mode == "L"
    assert {item.split for item in digits.items} == {UNDRAWN}


@pytest.mark.parametrize("kind", ["digits", "solar-cells"])
def test_a_source_makes_no_sense_for_them(kind):
    with pytest.raises(UsageError, match="leave --source and --digest out"):
        load(kind, source="x.zip")
