"""What a notebook shows; IPython itself is no part of the installation."""

import base64
import io
import sys
import types
from typing import Any

import numpy as np
import pytest
from classify_store import digits
from PIL import Image

from onepass.cache.notebook import NotebookBar, as_html, notebook_bar, table_html
from onepass.cache.progress import Progress, progress_to
from onepass.predict.predictor import Prediction


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Each bar that was shown, with all that it said."""
    shown: list[list[str]] = []

    class Handle:
        def __init__(self, first: str) -> None:
            shown.append([first])

        def update(self, text: str) -> None:
            shown[-1].append(text)

    display: Any = types.ModuleType("IPython.display")
    display.HTML, display.display = str, lambda text, display_id: Handle(text)
    ipython: Any = types.ModuleType("IPython")
    ipython.display, ipython.get_ipython = display, lambda: types.SimpleNamespace(kernel=1)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return shown


def test_each_piece_of_work_is_a_bar_that_is_updated_in_place(cells: list[list[str]]) -> None:
    with progress_to(notebook_bar()):
        for label in ("<lite0>", "lite1"):
            with Progress(1000, "rows", label) as progress:
                for _ in range(1000):
                    progress.advance(1)
    assert len(cells) == 2 and all(2 <= len(cell) <= 5 for cell in cells)
    assert cells[0][-1].startswith('<progress value="1000" max="1000"></progress> &lt;lite0&gt;: ')


def test_there_is_no_bar_outside_a_notebook_or_where_somebody_listens(
    cells: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(notebook_bar(), NotebookBar)
    with progress_to(lambda update: None):
        assert notebook_bar() is None
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
    assert notebook_bar() is None
    monkeypatch.delitem(sys.modules, "IPython")
    assert notebook_bar() is None


def test_names_from_elsewhere_are_text_and_not_html() -> None:
    hostile = "<script>alert(1)</script>"
    for shown in (as_html(hostile), table_html([("a",), (hostile,)])):
        assert "<script" not in shown and "&lt;script&gt;" in shown


def test_a_table_has_a_header_and_a_row_for_each() -> None:
    found = table_html([("image", "class"), ("a.png", "cat"), ("b.png", "dog")])
    assert found.count("<tr>") == 3 and found.count("<th>") == 2 and found.count("<td>") == 4


def test_a_data_set_shows_some_of_its_images_with_their_classes() -> None:
    shown = digits(3).opened()._repr_html_()
    assert "ImageDataset digits-test: 537 images of 8 × 8 × 1, 3 classes" in shown
    packed = base64.b64decode(shown.split("base64,")[1].split('"')[0])
    assert Image.open(io.BytesIO(packed)).format == "PNG"


def test_predictions_show_the_first_answers() -> None:
    probabilities = np.tile(np.float32([[0.25, 0.75]]), (30, 1))
    names = [f"{n}.png" for n in range(30)]
    found = Prediction(names, np.arange(30), ["a", "b"], ["cat", "<dog>"], probabilities)
    shown = found._repr_html_()
    assert "<td>0.png</td><td>&lt;dog&gt;</td><td>0.750</td>" in shown
    assert "19.png" in shown and "20.png" not in shown and "… and 10 more" in shown
