"""Class activation maps on the page: of the model to use, computed once, or said why not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import picture_store
import pytest

import onepass
from onepass.cache.errors import MissingFileError
from onepass.predict.explain import activation_maps, evidence_for
from onepass.report import maps
from onepass.report.config import ReportConfig
from onepass.report.context import ReportContext, open_context
from onepass.report.mistakes import Mistake
from onepass.report.page import write_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with picture_store.opened(tmp_path_factory) as found:
        yield found


def opened(places: dict[str, Path]) -> tuple[ReportContext, list[Mistake]]:
    config = ReportConfig(dataset="birds", **places)
    context = open_context(config.store, config.runs, "birds")
    # the best that has maps, whatever won
    results = [line for line in context.board.results if line.head == "logistic"]
    board = replace(context.board, results=results)
    context = replace(context, board=board, tuned=None, compared=None)
    rows = context.dataset.rows("val")[:5].tolist()  # whether they are mistakes or not
    return context, [Mistake(row, "m", 0, row % 3, 0.9, "", True) for row in rows]


def test_the_maps_are_those_of_the_predicted_classes_and_computed_once(places, monkeypatch) -> None:
    context, mistakes = opened(places)
    first, why = maps.activation_thumbnails(context, mistakes)
    assert len(first) == len(mistakes) > 0 and not why
    predictor = onepass.load_predictor(context.chosen_name, temperature=False, **places)
    pixels = context.dataset.pixels[[m.row for m in mistakes]]
    columns = [m.predicted for m in mistakes]
    expected = evidence_for(activation_maps(predictor.on_pictures()).maps(pixels), columns)
    found = maps._evidence(context, pixels, columns)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-2)

    def computed(*_: object) -> None:
        raise MissingFileError("weights of tiny: not here")

    monkeypatch.setattr(maps, "activation_maps", computed)
    assert maps.activation_thumbnails(context, mistakes) == (first, "")
    others = mistakes[1:]
    assert maps.activation_thumbnails(context, others) == ([], "weights of tiny: not here")
    kept = context.board.folder / maps.MAPS
    kept.write_bytes(kept.read_bytes()[:-9])  # damaged: as if there were none
    assert maps.activation_thumbnails(context, mistakes)[1] == "weights of tiny: not here"


def test_the_page_shows_them_or_says_why_not(places) -> None:
    page = write_page(ReportConfig(dataset="birds", **places)).path.read_text()
    shown = "What spoke for" in page
    assert shown != ("Without class activation maps:" in page)
