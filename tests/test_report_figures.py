"""Figures: their numbers are the results', and what they leave on disk is harmless."""

import base64
import csv
import io
import re
import sys
import types
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from classify_store import digits
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image
from report_place import HOSTILE

from onepass.cache.features import FeatureKey
from onepass.cache.made_by import MadeBy
from onepass.classify.leaderboard.result import ProbeResult, RowCounts, TrialRecord
from onepass.finetune.recipes import Recipe
from onepass.finetune.session.best import best_run
from onepass.finetune.session.history import EpochRow
from onepass.finetune.session.result import FinetuneResult
from onepass.finetune.session.run_identity import RunConfig, RunIdentity
from onepass.finetune.session.runs import Run
from onepass.report.context import EvaluatedModel
from onepass.report.figures.comparison import ComparedResult, comparison_figure
from onepass.report.figures.confusion import ALL, confusion_figure, shown_classes
from onepass.report.figures.embedding import POINTS, SIDE, embedding_figure, project
from onepass.report.figures.figure import (
    INDEX,
    Figure,
    FigureIndex,
    FigureTexts,
    write_figures,
)
from onepass.report.figures.learning import learning_figures
from onepass.report.figures.search import search_figures
from onepass.report.figures.timing import MOST, time_figure
from onepass.report.figures.tradeoffs import cost_figure, size_figure
from onepass.report.plot import Drawing, blank


def probe(backbone: str, size: int, val: float, head: str = "logistic", **other: Any) -> ProbeResult:  # fmt: skip
    key = FeatureKey(backbone, "sha256:0", size)
    trials = tuple(TrialRecord({"C": c}, a, 1.0) for c, a in ((0.1, 0.5), (0.01, 0.6), (1.0, 0.4)))
    values: dict[str, Any] = {
        "id": f"{head}-{backbone}-{size}", "features": (f"{backbone}@{size}",), "keys": (key,), "head": head,
        "params": {"C": 0.01}, "trials": trials, "selection_top1": val, "selection_log_loss": 1.0,
        "val_top1": val, "val_interval": (val - 0.01, val + 0.01), "val_top5": None, "seconds": 1.0,
        "seed": 0, "budget": "quick", "converged": True, "baseline": False, "dataset_digest": "d",
        "features_digest": "f", "rows": RowCounts(fit=9, selection=1, train=10, val=5, test=0), "made_by": MadeBy.now(),
    }  # fmt: skip
    return ProbeResult(**{**values, **other})


def columns(figure: Figure) -> list[dict[str, Any]]:
    return [dict(zip(figure.columns, row, strict=True)) for row in figure.rows]


def test_size_figure_takes_the_best_ranked_head_of_each_size() -> None:
    ranked = [probe("a", 64, 0.7), probe("a", 32, 0.5), probe("a", 32, 0.9, "ridge"), probe("b", 32, 0.4)]  # fmt: skip
    figure = size_figure(ranked)
    assert figure is not None
    found = [(r["backbone"], r["size (px)"], r["head"], r["val top-1 (%)"]) for r in columns(figure)]  # fmt: skip
    assert found == [("a", 32, "logistic", 50.0), ("a", 64, "logistic", 70.0), ("b", 32, "logistic", 40.0)]  # fmt: skip
    assert "a at 64 px 70.0 %" in figure.drawing.alt


def test_size_figure_needs_two_sizes_of_plain_features() -> None:
    flipped = probe("a", 64, 0.7)
    flipped = replace(flipped, keys=(replace(flipped.keys[0], view="flip"),))
    assert size_figure([flipped, probe("a", 32, 0.5), probe("b", 64, 0.5)]) is None


def test_cost_figure_marks_the_front() -> None:
    probes = [probe("slow", 8, 0.8), probe("fast", 8, 0.6), probe("bad", 8, 0.5), probe("unknown", 8, 0.9)]  # fmt: skip
    ids = [one.id for one in probes]
    costs = dict(zip(ids, (100.0, 10.0, 20.0, None), strict=True))
    figure = cost_figure(probes, costs)
    assert figure is not None
    found = {r["features"]: (r["ms per image"], r["on the Pareto front"]) for r in columns(figure)}
    assert found == {"fast@8": (10.0, "yes"), "bad@8": (20.0, "no"), "slow@8": (100.0, "yes")}
    assert cost_figure(probes[:1], costs) is None


def test_search_figures_are_in_order_and_mark_what_was_chosen() -> None:
    (figure,) = search_figures([probe("a", 8, 0.5)])
    assert figure.name == "search-logistic" and figure.title == "logistic: accuracy by C"
    found = [(r["C"], r["selection top-1 (%)"], r["chosen"]) for r in columns(figure)]
    assert found == [(0.01, 60.0, "yes"), (0.1, 50.0, "no"), (1.0, 40.0, "no")]
    assert search_figures([probe("a", 8, 0.5, trials=(TrialRecord({}, 0.1, 1.0),))]) == []


def test_a_grid_of_several_hyper_parameters_is_no_curve() -> None:
    grid = tuple(TrialRecord({"l2": a, "rate": b}, 0.1, 1.0) for a in (1, 2, 3) for b in (4, 5, 6))
    assert search_figures([probe("a", 8, 0.5, trials=grid)]) == []


def run(
    *history: EpochRow, name: str = "r", from_run: str = "", val_top1: float = 0.65, hidden: int = 0
) -> Run:
    recipe = Recipe(epochs=2, batch=32, learning_rate=1e-5, hidden=(hidden,) if hidden else ())
    identity = RunIdentity(
        "d", "0", "p", {}, recipe, "all", True, 0, "imagenet", 0, from_run=from_run
    )
    result = FinetuneResult(f"d/{name}", Path(name), "a@8", None, history, "", 0.6, val_top1)
    return Run(Path(name), RunConfig(identity, MadeBy.now()), result)


def test_learning_curves_show_training_selection_and_the_two_validation_scores() -> None:
    rows = [EpochRow(e, 1.0 / e, 0.7 + e / 10, 1.0, 1.5, 0.5) for e in (1, 2)]
    accuracy, loss = learning_figures([run(*rows)])
    found = [(r["split"], r["epoch"], r["top-1 (%)"]) for r in columns(accuracy)]
    assert found == [
        ("training", 1, 80.0), ("training", 2, pytest.approx(90.0)), ("selection", 1, 50.0), ("selection", 2, 50.0),
        ("validation", 0, 60.0), ("validation", 2, 65.0),
    ]  # fmt: skip
    assert [r["loss (nats)"] for r in columns(loss)] == [1.0, 0.5, 1.5, 1.5]
    assert learning_figures([run()]) == []


def test_learning_curves_of_several_runs_name_them() -> None:
    row = EpochRow(1, 1.0, 0.8, 1.0)
    accuracy, loss = learning_figures([run(row, name="a"), run(row, name="b")])
    assert {r["split"] for r in columns(accuracy)} == {"training", "validation"}
    texts = {text.get_text() for text in loss.drawing.canvas.findobj(Text)}
    assert {"a · training", "b · training"} <= texts


def test_a_learning_curve_begins_where_its_run_began() -> None:
    """With the probe, with the run that it goes on from, and nowhere where the head was random."""
    row = EpochRow(1, 1.0, 0.8, 1.0)
    runs = [
        run(row, name="a"),
        run(row, name="b", from_run="d/a", val_top1=0.7),
        run(row, name="c", hidden=8),
    ]
    accuracy, _ = learning_figures(runs)
    found = [
        (r["run"], r["epoch"], r["top-1 (%)"])
        for r in columns(accuracy)
        if r["split"] == "validation"
    ]
    assert found == [
        ("a", 0, 60.0),
        ("a", 1, 65.0),
        ("b", 0, 65.0),
        ("b", 1, pytest.approx(70.0)),
        ("c", 1, 65.0),
    ]
    (alone, _) = learning_figures([run(row, name="b", from_run="d/gone")])
    assert [r["epoch"] for r in columns(alone) if r["split"] == "validation"] == [1]


def test_a_run_that_kept_the_network_of_another_gives_way_to_it() -> None:
    first = replace(run(name="a").result, selection_top1=0.9, kept_epochs=(1,))
    again = replace(run(name="b").result, selection_top1=0.9, kept_epochs=(0,), from_run="d/a")
    better = replace(again, selection_top1=0.95, kept_epochs=(1,))
    runs = [
        replace(run(name=name), result=one)
        for name, one in (("a", first), ("b", again), ("c", better))
    ]
    for count, name in ((2, "a"), (3, "c")):
        found = best_run(runs[:count])
        assert found is not None and found.name == name


def test_comparison_is_ordered_and_says_whose_results_they_are() -> None:
    figure = comparison_figure(
        [
            ComparedResult("baseline", "chance", 0.1),
            ComparedResult("ours", "frozen", 0.6, (0.5, 0.7)),
            ComparedResult("published", "paper", 0.8),
        ]
    )
    assert [row[:3] for row in figure.rows] == [("published", "paper", 80.0), ("ours", "frozen", 60.0), ("baseline", "chance", 10.0)]  # fmt: skip
    assert figure.rows[1][3:] == (50.0, 70.0) and figure.rows[0][3:] == ("", "")


def test_matrix_shows_all_of_few_classes_and_the_worst_pairs_of_many() -> None:
    small = np.array([[5, 2], [1, 7]])
    figure = confusion_figure(small, ["a", "b"])
    assert [row[2] for row in figure.rows] == [5, 2, 1, 7]
    many = np.eye(40, dtype=int) * 10
    many[3, 30], many[30, 3], many[7, 8] = 4, 3, 5
    assert shown_classes(many)[:4] == [3, 30, 7, 8] and len(shown_classes(many)) <= ALL
    figure = confusion_figure(many, [f"c{k}" for k in range(40)])
    assert ("c3", "c30", 4) in figure.rows and ("c7", "another class", 0) in figure.rows
    numbers = {text.get_text() for text in figure.drawing.canvas.findobj(Text)}
    assert {"4", "3", "5", "other"} <= numbers


def test_time_figure_shows_the_longest_and_keeps_every_number() -> None:
    spent = [("extract", f"k{i}", float(i)) for i in range(1, MOST + 4)] + [("finetune", "r", 99.0)]
    figure = time_figure(spent)
    bars = [bar for bar in figure.drawing.canvas.findobj(Rectangle) if bar.get_gid()]
    assert len(bars) == MOST and len(figure.rows) == len(spent)
    longest = max(bars, key=lambda bar: bar.get_width())
    assert str(longest.get_gid()).startswith("tip:finetune, r")


def figure_of(name: str, rows: list[tuple[Any, ...]] | None = None) -> Figure:
    canvas, _ = blank(200, 100)
    return Figure(
        name,
        "Title",
        "Caption",
        Drawing(canvas, "a figure"),
        ("text", "number"),
        rows or [("a", 1.5)],
    )


def test_csv_cannot_run_in_a_spreadsheet() -> None:
    rows = [("=cmd()", -1.5), ("+1", 2.0), ("@x", 0), ("a,b\n", "-text")]
    found = list(csv.reader(io.StringIO(figure_of("f", rows).csv())))
    assert found[1:] == [["'=cmd()", "-1.5"], ["'+1", "2.0"], ["'@x", "0"], ["a,b\n", "'-text"]]


def test_figures_are_written_and_those_of_before_go(tmp_path: Path) -> None:
    write_figures(tmp_path, [figure_of("one"), figure_of("two")])
    assert {p.name for p in tmp_path.iterdir()} == {"one.png", "one.csv", "two.png", "two.csv", "index.json"}  # fmt: skip
    (tmp_path / "mine.png").write_bytes(b"kept")
    index = FigureIndex.read(tmp_path / INDEX)
    assert index.figures["one"] == FigureTexts("Title", "Caption")
    outside = tmp_path.parent / "outside.png"
    outside.write_bytes(b"kept")
    replace(index, figures={**index.figures, "../outside": index.figures["one"]}).write(
        tmp_path / INDEX
    )
    write_figures(tmp_path, [figure_of("one")])
    assert {p.name for p in tmp_path.iterdir()} == {"one.png", "one.csv", "mine.png", "index.json"}
    assert outside.exists()


def test_an_index_of_the_first_format_is_read(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text('{"old": {"title": "Title", "caption": "Caption"}}')
    (tmp_path / "old.png").write_bytes(b"gone")
    write_figures(tmp_path, [figure_of("one")])
    assert {p.name for p in tmp_path.iterdir()} == {"one.png", "one.csv", INDEX}


def test_a_name_that_is_no_file_name_is_refused() -> None:
    with pytest.raises(ValueError, match="figure name"):
        figure_of("../up")


def test_each_point_of_the_map_has_its_own_image_and_name() -> None:
    """The sheet's part that a point shows is its image, seen in the SVG's own coordinates."""
    data = digits(3)
    dataset = data.opened(names=[f"<{row}>.png" for row in range(len(data.labels))])
    val = dataset.rows("val")
    predicted = np.where(np.arange(len(val)) % 5, data.labels[val], 0)
    model = EvaluatedModel("frozen", "f", np.eye(3)[predicted], predicted, data.labels[val])
    figure = embedding_figure(dataset, data.X, model, ["zero", "one", HOSTILE])
    assert len(figure.rows) == min(POINTS, len(val))
    drawn = ElementTree.fromstring(str(figure.svg))
    points = drawn.findall(".//*[@class='point']")
    titles = [point[0].text or "" for point in points]
    assert [title.split(":")[0] for title in titles] == [row[0] for row in figure.rows]
    wrong = [f", predicted as {row[2]}" in t for t, row in zip(titles, figure.rows, strict=True)]
    assert (
        wrong == [row[1] != row[2] for row in figure.rows] and any(wrong) and HOSTILE in str(titles)
    )
    assert all(point.get("tabindex") == "0" for point in points)
    image = drawn.find(".//{*}image")
    uri = image.get("href", "")
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("L"))
    assert sheet.shape == (int(image.get("height")), int(image.get("width")))
    box = drawn.find(".//{*}clipPath/{*}rect")
    left, top = float(box.get("x")), float(box.get("y"))
    row_of = {name: row for row, name in enumerate(dataset.names)}
    for number in (0, 17, len(points) - 1):
        use = points[number].find(".//*[@class='shown']/{*}use")
        x, y, scale = map(float, re.findall(r"-?[\d.]+", use.get("transform")))
        across, down = ((start - at) / scale for start, at in ((left, x), (top, y)))
        shown = sheet[int(down) :, int(across) :][:SIDE, :SIDE].astype(float)
        pixels = dataset.pixels[row_of[figure.rows[number][0]], ..., 0]
        expected = np.kron(pixels, np.ones((SIDE // 8, SIDE // 8)))
        assert np.corrcoef(shown.ravel(), expected.ravel())[0, 1] > 0.9


def test_many_classes_are_right_or_wrong_on_the_map() -> None:
    data = digits(10)
    dataset, truth = data.opened(), data.labels[data.split == 1]
    model = EvaluatedModel("frozen", "f", np.eye(10)[truth], truth, truth)
    assert "right" in str(
        embedding_figure(dataset, data.X, model, [f"k{k}" for k in range(10)]).svg
    )


def test_umap_is_used_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, **options: Any) -> None:
            assert options["random_state"] == 0

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            return vectors[:, :2] * 7

    module = types.ModuleType("umap")
    module.__spec__ = ModuleSpec("umap", None)
    monkeypatch.setattr(module, "UMAP", Fake, raising=False)
    X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    monkeypatch.setitem(sys.modules, "umap", None)
    by_pca, axes, how = project(X)
    assert how == "PCA" and axes[0].startswith("component 1 (")
    covariance = np.cov(by_pca.T)
    assert abs(covariance[0, 1]) < 1e-3 < covariance[1, 1] < covariance[0, 0]
    monkeypatch.setitem(sys.modules, "umap", module)
    found, axes, how = project(X)
    assert (how, axes) == ("UMAP", ("UMAP 1", "UMAP 2"))
    np.testing.assert_array_equal(found, (X[:, :2] * 7).astype(np.float64))
