"""Which images to label next: unsure ones, different ones, and a table that relabel takes."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from classify_store import NAME, digits, write_dataset, write_features
from PIL import Image

from conftest import refused
from onepass.cache.commandline.command import main
from onepass.cache.errors import InvalidInputError, OnepassError
from onepass.classify.__main__ import COMMANDS
from onepass.classify.analysis.labelling import (
    choose,
    choose_next,
    farthest_first,
    margins,
    typical_first,
    unlabelled_rows,
)
from onepass.classify.config import ClassifyConfig, NextConfig
from onepass.classify.heads.neighbours.nearest import unit_length
from onepass.classify.pipeline import run_probes
from onepass.data.__main__ import COMMANDS as DATA_COMMANDS
from onepass.data.dataset import open_dataset


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Digits whose test images have no labels, another data set of images without labels, a probe."""
    home = tmp_path_factory.mktemp("next")
    store, runs = home / "store", home / "runs"
    data = digits()
    write_features(store, write_dataset(store, data), data.X)
    pixels = np.flip(data.pixels, axis=2)[:300]
    pixels = np.concatenate([pixels, pixels[:50], data.pixels[:20]])  # doubled, and known already
    other = replace(data, pixels=pixels, labels=np.resize(data.labels, 370), split=np.full(370, 2, np.int8))  # fmt: skip
    write_features(store, write_dataset(store, other, "unlabelled"), other.X)
    run_probes(ClassifyConfig(dataset=NAME, head=("ridge",), cache_dir=store, runs_dir=runs))
    return store, runs


def config(place: tuple[Path, Path], **changes) -> NextConfig:
    store, runs = place
    known = {"dataset": NAME, "count": 30, "cache_dir": store, "runs_dir": runs}
    return NextConfig(**{**known, **changes})


class TestChoice:
    def test_margins_are_leads_over_the_second(self) -> None:
        found = margins(np.array([[0.5, 0.2, 0.3], [0.1, 0.45, 0.45], [1.0, 0.0, 0.0]]))
        assert found == pytest.approx([0.2, 0.0, 1.0])

    def test_k_center_is_never_farther_than_twice_the_best(self) -> None:
        """Greedy k-center covers within twice the radius that is possible; here the clusters tell it."""
        rng = np.random.default_rng(0)
        centres = unit_length(rng.normal(size=(8, 16)))
        points = unit_length(np.repeat(centres, 25, axis=0) + 0.02 * rng.normal(size=(200, 16)))
        chosen = farthest_first(points, np.full(200, 2.0), 8)
        assert sorted(chosen // 25) == list(range(8))
        assert len(set(farthest_first(points, np.full(200, 2.0), 500))) == 200

    def test_the_most_typical_of_each_group_without_a_label_comes_first(self) -> None:
        rng = np.random.default_rng(0)
        centres = np.eye(16)[:6]
        spread = np.repeat(np.linspace(0, 0.3, 25)[None], 6, axis=0).ravel()[:, None]
        points = unit_length(np.repeat(centres, 25, axis=0) + spread * rng.normal(size=(150, 16)))
        known = unit_length(centres[:2] + 0.01)
        chosen = typical_first(points, known, 4)
        assert sorted(chosen // 25) == [2, 3, 4, 5]
        cosines = np.einsum("nd,nd->n", points[chosen], centres[chosen // 25])
        assert cosines.min() > np.median(np.einsum("nd,nd->n", points, np.repeat(centres, 25, axis=0)))  # fmt: skip
        assert sorted(typical_first(points, known, 500)) == list(range(150))

    def test_what_is_like_the_labelled_is_not_chosen(self) -> None:
        rng = np.random.default_rng(0)
        X, labelled = rng.normal(size=(100, 8)), rng.normal(size=(50, 8))
        X[:50] = labelled + 1e-3 * rng.normal(size=(50, 8))
        sure = np.tile([[0.9, 0.1]], (100, 1))
        assert choose(X, sure, labelled, 20, "k-center").min() >= 50

    def test_both_chooses_among_the_unsure(self) -> None:
        rng = np.random.default_rng(0)
        first = rng.random(1000) / 2 + 0.5
        probabilities = np.stack([first, 1 - first], axis=1)
        X, labelled = rng.normal(size=(1000, 8)), rng.normal(size=(50, 8))
        unsure = np.argsort(first)
        both = choose(X, probabilities, labelled, 20, "both")
        assert set(both) < set(unsure[:200]) and set(both) != set(unsure[:20])
        assert np.array_equal(choose(X, probabilities, labelled, 20, "margin"), unsure[:20])


class TestCommand:
    def test_images_are_chosen_once_and_not_what_is_labelled(self, place) -> None:
        result = choose_next(config(place, from_="unlabelled", count=400))
        assert result.unlabelled == 300 and sorted(result.rows) == list(range(300))
        dataset = open_dataset(place[0], "unlabelled")
        known = open_dataset(place[0], NAME)
        rows = unlabelled_rows(dataset, known.content[known.rows("train")])
        assert np.array_equal(rows, np.arange(300))

    def test_the_table_is_filled_in_and_taken_by_relabel(self, place, tmp_path, capsys) -> None:
        store, runs = (Path(shutil.copytree(path, tmp_path / path.name)) for path in place)
        folders = ["--cache-dir", str(store), "--runs-dir", str(runs)]
        words = ["next", "--dataset", NAME, "--count", "12", *folders]
        assert main("classify", COMMANDS, words) == 0
        said = capsys.readouterr().out
        assert "12 of 224 unlabelled images" in said and "fill in the labels" in said
        table = runs / NAME / "next.csv"
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 12 and {(row["label"], row["split"]) for row in rows} == {("", "train")}
        assert all(0 <= float(row["margin"]) <= float(row["probability"]) <= 1 for row in rows)
        with Image.open(runs / NAME / "next.png") as sheet:
            assert sheet.width > 100
        filled = tmp_path / "filled.csv"
        filled.write_text(table.read_text(encoding="utf-8-sig").replace(",,train", ",n03,train"))
        relabel = ["relabel", NAME, "--labels", str(filled), "--cache-dir", str(store)]
        assert main("data", DATA_COMMANDS, relabel) == 0, capsys.readouterr()
        assert len(unlabelled_rows(open_dataset(store, NAME), np.zeros((0, 16), np.uint8))) == 212

    def test_without_another_data_set_the_test_split_is_asked(self, place) -> None:
        result = choose_next(config(place))
        assert set(result.rows) <= set(open_dataset(place[0], NAME).rows("test").tolist())

    def test_nothing_to_label_and_vectors_of_another_kind_are_refused(self, place, tmp_path) -> None:  # fmt: skip
        data = digits()
        labelled = replace(data, split=np.zeros_like(data.split))
        dataset = write_dataset(place[0], labelled, "labelled")
        with refused(OnepassError, "no feature file yet"):
            choose_next(config(place, from_="labelled"))
        write_features(place[0], dataset, data.X)
        with refused(InvalidInputError, "found none"):
            choose_next(config(place, from_="labelled"))
        other = write_dataset(place[0], replace(data, split=np.full_like(data.split, 2)), "strange")
        write_features(place[0], other, data.X, weights="sha256:1")
        with refused(InvalidInputError, "made by other weights"):
            choose_next(config(place, from_="strange"))
