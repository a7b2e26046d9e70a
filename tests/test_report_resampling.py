"""The section on folds and the learning curve."""

from pathlib import Path

import pytest
from report_place import HOSTILE, Place, make_place

from onepass.classify.config import ClassifyConfig, CurveConfig
from onepass.classify.resampling.curve import run_curve
from onepass.classify.resampling.folds import run_folds


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("resampling"))


def test_the_page_shows_folds_and_the_learning_curve_once_they_were_made(place: Place) -> None:
    assert "resampling" not in place.write().sections
    where = {"dataset": place.name, "cache_dir": place.store, "runs_dir": place.runs}
    key = sorted((place.store / place.name / "features").glob("*.h5"))[0].stem
    folds = run_folds(ClassifyConfig(**where, folds=3, head=("ridge", "centroid"), features=(key,)))
    run_curve(CurveConfig(**where, head="ridge", seeds=1, features=(key,), metric="balanced"))
    result = place.write()
    assert "resampling" in result.sections and "labels" in result.figure_names
    text = result.path.read_text(encoding="utf-8")
    assert f"{100 * folds.lines[0].mean:.1f} %" in text
    assert "Nadeau and Bengio, 2003" in text and "Doubling the labels from" in text
    assert "balanced accuracy" in text and HOSTILE not in text
    numbers = (Path(result.figures) / "labels.csv").read_text()
    assert "measured" in numbers and "expected" in numbers
