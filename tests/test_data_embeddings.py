"""Vectors for other programs: each format gives back what is stored, with the names, labels and splits of its rows."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stored import store_dataset, store_features

from conftest import refused
from onepass.__main__ import run
from onepass.cache.errors import MissingFileError
from onepass.cache.features import FeatureKey
from onepass.data import embeddings
from onepass.data.config import EmbeddingsConfig
from onepass.data.dataset import EXCLUDED
from onepass.data.embeddings import COLUMNS, export_embeddings

Made = tuple[Path, str, np.ndarray]
NAMES = ["a\tb.png", "=1+1.png", 'c "d".png', "é,f.png", "g.png"]
ROWS = [
    ("n0", "crow", "train"), ("n1", "great, tit", "train"), ("n1", "great, tit", "val"), ("", "", "test"),
    ("n0", "crow", "excluded"),
]  # fmt: skip


@pytest.fixture(params=["float16", "float32"])
def made(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch) -> Made:
    """A store with five images and their vectors, written two rows at a time."""
    monkeypatch.setattr(embeddings, "BLOCK", 2)
    random = np.random.default_rng(0)
    store = tmp_path / "store"
    dataset = store_dataset(
        store, "birds", random.integers(0, 256, (5, 4, 4, 3), np.uint8), np.array([0, 1, 1, -1, 0], np.int32),
        np.array([0, 0, 1, 2, EXCLUDED], np.int8), NAMES, ["n0", "n1"], ["crow", "great, tit"],
    )  # fmt: skip
    X = random.normal(size=(5, 3)).astype(request.param)
    key = FeatureKey("tiny", "none:0", 16, dtype=request.param)
    store_features(store, dataset, X, key)
    return store, str(key), X


def export(made: Made, form: str, out: Path) -> tuple[Path, ...]:
    config: Any = {"key": f"birds/{made[1]}", "format": form, "out": out, "cache_dir": made[0]}
    found = export_embeddings(EmbeddingsConfig(**config))
    assert (found.rows, found.dim, found.format) == (5, 3, form)
    return found.paths


def read(path: Path, delimiter: str = ",") -> list[list[str]]:
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter=delimiter, quoting=quoting))


def test_parquet(made, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (path,) = export(made, "parquet", tmp_path / "out.parquet")
    found = parquet.read_table(path)
    assert found.column_names == [*COLUMNS, "vector"]
    rows = found.to_pylist()
    assert [row["file"] for row in rows] == NAMES
    assert [tuple(row[name] for name in COLUMNS[1:]) for row in rows] == ROWS
    np.testing.assert_array_equal(np.array([row["vector"] for row in rows], made[2].dtype), made[2])


def test_numpy(made, tmp_path: Path) -> None:
    vectors, table = export(made, "npy", tmp_path / "out")
    found = np.load(vectors, allow_pickle=False)
    np.testing.assert_array_equal(found, made[2])
    assert found.dtype == made[2].dtype
    head, *rows = read(table)
    assert tuple(head) == COLUMNS
    assert [row[0] for row in rows] == [NAMES[0], "'" + NAMES[1], *NAMES[2:]]  # no formula
    assert [tuple(row[1:]) for row in rows] == ROWS


def test_csv(made, tmp_path: Path) -> None:
    (path,) = export(made, "csv", tmp_path / "out.csv")
    head, *rows = read(path)
    assert head == [*COLUMNS, "0", "1", "2"]
    assert [tuple(row[1:4]) for row in rows] == ROWS
    np.testing.assert_array_equal(np.array([row[4:] for row in rows], made[2].dtype), made[2])


def test_embedding_projector(made, tmp_path: Path) -> None:
    """Tabs without quotes: one line for each vector, and as many lines of metadata below their head."""
    vectors, metadata = export(made, "projector", tmp_path / "out")
    np.testing.assert_array_equal(np.array(read(vectors, "\t"), made[2].dtype), made[2])
    head, *rows = read(metadata, "\t")
    assert tuple(head) == COLUMNS
    assert [row[0] for row in rows] == ["a b.png", *NAMES[1:]]
    assert [tuple(row[1:]) for row in rows] == ROWS


def test_a_write_that_fails_leaves_what_was_there(made, tmp_path: Path, monkeypatch) -> None:
    paths = export(made, "npy", tmp_path / "out")
    before = [path.read_bytes() for path in paths]

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(embeddings, "_cells", fail)
    with pytest.raises(KeyboardInterrupt):
        export(made, "npy", tmp_path / "out")
    assert [path.read_bytes() for path in paths] == before
    assert sorted((tmp_path / "out").iterdir()) == sorted(paths)


def test_without_pyarrow_it_says_how_to_install_it(made, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with refused(MissingFileError, "pip install pyarrow"):
        export(made, "parquet", tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_the_command_says_where_the_files_lie(made, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["cache", "export", f"birds/{made[1]}", "--format", "csv", "--cache-dir", str(made[0])]
    assert run(words) == 0
    assert "5 vectors of 3 numbers" in capsys.readouterr().out
    assert (tmp_path / f"birds-{made[1]}.csv").exists()
    assert run(["cache", "export", "birds/none@16", "--cache-dir", str(made[0])]) == 1
    assert "unknown" in capsys.readouterr().err
