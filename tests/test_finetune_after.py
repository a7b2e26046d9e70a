"""After training: error analysis of a run whose network was never trained."""

import json
from pathlib import Path

import numpy as np
import pytest
from classify_store import NAME
from finished_runs import write_runs
from PIL import Image

from onepass.cache.errors import MissingFileError
from onepass.classify.metrics import softmax
from onepass.data.dataset import ImageDataset
from onepass.finetune.config import ErrorsConfig


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, ImageDataset]:
    """A data set and the finished runs r1, r2 and r3."""
    return write_runs(tmp_path_factory.mktemp("after"))


def test_error_analysis_names_what_is_wrong(places) -> None:
    from onepass.finetune.errors import analyse_errors

    store, runs, dataset = places
    config = ErrorsConfig(run=f"{NAME}/r1", cache_dir=store, runs_dir=runs, pictures=7)
    report = analyse_errors(config)
    found = json.loads(report.path.read_text())
    with np.load(runs / NAME / "finetune" / "r1" / "val_logits.npz") as kept:
        logits, rows = kept["logits"], kept["rows"]
    wrong = logits.argmax(axis=1) != dataset.labels[rows]
    assert found["wrong"] == wrong.sum() and found["rows"] == len(rows)
    assert found["sample"]["rows"] == len(rows)  # fewer than 1,000
    assert found["probe"] is None  # it is gone
    first = found["mistakes"][0]
    row = first["row"]
    assert dataset.names[row] == first["file"] and first["true_name"] != first["predicted_name"]
    assert first["true_id"] == dataset.class_ids[dataset.labels[row]]
    sureness = softmax(logits)[wrong].max()
    assert first["confidence"] == pytest.approx(float(sureness))
    assert len(found["classes"]) == 10 and len(found["mistakes"]) == 7
    assert found["epochs"] == [{"epoch": 1, "train": 0.75, "selection": 0.5, "gap": 0.25}]
    assert report.sheet is not None
    with Image.open(report.sheet) as sheet:
        assert sheet.size == (8 + 6 * 136, 8 + 2 * 184)
        picture = np.asarray(sheet.convert("L"))[8:136, 8:136]
    original = dataset.pixels[row][..., 0]
    shrunk = np.asarray(Image.fromarray(picture).resize((8, 8), Image.Resampling.BOX))
    assert np.corrcoef(shrunk.ravel(), original.ravel())[0, 1] > 0.95


def test_the_frozen_probe_is_what_fine_tuning_is_held_against(places) -> None:
    from onepass.finetune.errors import _against, analyse_run
    from onepass.finetune.session.runs import open_run

    store, runs, dataset = places
    run = open_run(store, runs, f"{NAME}/r1")
    rows = dataset.rows("val")
    truth = dataset.labels[rows]
    taken, frozen = truth.copy(), truth.copy()
    frozen[truth == 3] = 0  # the probe knew no 3
    taken[truth == 5] = 0  # fine-tuning forgot the 5
    against = _against(run, truth, taken, frozen)
    assert [c.class_id for c in against.helped] == ["n03"]
    assert [c.class_id for c in against.harmed] == ["n05"]
    assert (against.gained, against.lost) == (np.sum(truth == 3), np.sum(truth == 5))
    assert analyse_run(run, runs).found.probe is None


def test_a_run_that_is_not_there_names_those_that_are(places) -> None:
    from onepass.finetune.errors import analyse_errors

    store, runs, _ = places
    with pytest.raises(MissingFileError, match="finished ones: r1, r2, r3"):
        analyse_errors(ErrorsConfig(run=f"{NAME}/r9", cache_dir=store, runs_dir=runs))
