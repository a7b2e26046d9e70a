"""Held-out pictures from prepare to the page: predicted as new ones, and shown with their answers."""

import shutil
from dataclasses import replace
from pathlib import Path

import picture_store
import pytest
import tiny_backbone

import onepass
from onepass.__main__ import run
from onepass.data.held_out import held_out_folder
from onepass.predict.config import PredictConfig
from onepass.predict.pictures.held_out import HeldOutAnswers
from onepass.predict.pictures.pipeline import predict_pictures
from onepass.report.context import open_context
from onepass.report.sections import held_out

pytestmark = pytest.mark.slow


def test_what_was_held_out_is_predicted_and_shown_with_its_class(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {"cache_dir": tmp_path / "store", "runs_dir": tmp_path / "runs"}
    store, runs = places.values()
    picture_store.write_pictures(tmp_path / "birds")
    onepass.prepare_dataset(
        "folder", source=str(tmp_path / "birds"), name="birds", max_side=picture_store.SIDE, hold_back=12,
        cache_dir=store,
    )  # fmt: skip
    folder = held_out_folder(store, "birds")
    with tiny_backbone.installed():
        onepass.extract_features("birds", "tiny", size=(16,), cache_dir=store)
        onepass.run_probes("birds", head=("ridge",), **places)
        context = open_context(store, runs, "birds")
        assert held_out.build(context) is None
        flags = [f"--{name.replace('_', '-')}={path}" for name, path in places.items()]
        assert run(["predict", "birds", str(folder), *flags]) == 0
        said = capsys.readouterr().out
        assert "held out of the data set" in said and "onepass report --dataset birds" in said
        record = runs / "birds" / HeldOutAnswers.NAME
        kept = HeldOutAnswers.read(record)
        truth = {image.file: image.class_id for image in context.dataset.record.held_out}
        assert {answer.file for answer in kept.answers} == set(truth) and len(truth) == 12

        section = held_out.build(open_context(store, runs, "birds"))
        assert section is not None
        right = sum(truth[answer.file] == answer.class_id for answer in kept.answers)
        assert section.facts["right"].count == right and section.facts["right"].rows == 12
        assert all(picture.uri.startswith("data:image/") for picture in section.facts["pictures"])
        assert run(["report", "--dataset", "birds", *flags]) == 0
        page = (runs / "birds" / "report.html").read_text()
        assert "12 pictures were held out" in page and page.count("✓ <bdi>") == right

        # others than these are not kept, and answers of another state of the data set are not shown
        record.unlink()
        shutil.copytree(folder, tmp_path / "others")
        config = PredictConfig(models=("birds",), images=(str(tmp_path / "others"),), **places)
        assert predict_pictures(config).kept is None and not record.exists()
        replace(kept, dataset_digest="0" * 64).write(record)
        assert held_out.build(open_context(store, runs, "birds")) is None
