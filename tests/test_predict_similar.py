"""`onepass data similar`: the nearest stored images, of stored ones and of new files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import picture_store
import pytest
from PIL import Image

from onepass.__main__ import run
from onepass.classify.heads.neighbours.nearest import unit_length
from onepass.data.dataset import open_dataset
from onepass.data.features import labelled_features
from onepass.predict import similar
from onepass.predict.config import SimilarConfig
from onepass.predict.similar import find_similar, nearest_rows


@pytest.mark.parametrize("block", [3, 7, 1000])
def test_blocks_give_what_one_sort_gives(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "BLOCK", block)
    monkeypatch.setattr(similar, "PART", 4)
    random = np.random.default_rng(0)
    X = random.normal(size=(50, 6)).astype(np.float16)
    queries = np.vstack([X[[0, 31]], random.normal(size=(1, 6))])
    own = np.array([0, 31, -1])
    rows, cosines = nearest_rows(X, queries, 8, own)
    every = unit_length(queries.astype(np.float32)) @ unit_length(X.astype(np.float32)).T
    every[[0, 1], [0, 31]] = -2
    expected = np.argsort(-every, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(cosines, np.take_along_axis(every, expected, axis=1), atol=1e-6)
    few, _ = nearest_rows(X[:4], X[:1], 10, np.array([0]))
    assert sorted(few[0].tolist()) == [1, 2, 3]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_usearch_finds_the_same(dtype: type, monkeypatch: pytest.MonkeyPatch) -> None:
    from usearch import index

    random = np.random.default_rng(1)
    X = random.normal(size=(300, 40)).astype(dtype)
    queries = np.vstack([X[[0, 31]], random.normal(size=(2, 40))])
    own = np.array([0, 31, -1, -1])
    rows, cosines = nearest_rows(X, queries, 5, own)
    real, asked = index.search, []
    monkeypatch.setattr(index, "search", lambda *a, **k: asked.append(a) or real(*a, **k))
    monkeypatch.setattr(similar, "MANY", 300)
    found, close = nearest_rows(X, queries, 5, own)
    assert len(asked) == 4
    monkeypatch.setattr(similar, "FEW", 3)
    nearest_rows(X, queries, 5, own)
    assert len(asked) == 4  # many at once are compared block by block
    np.testing.assert_array_equal(found, rows)
    np.testing.assert_allclose(close, cosines, atol=1e-6)
    every, _ = nearest_rows(X, queries[:1], 1000, own[:1])
    assert len(asked) == 5
    assert sorted(every[0].tolist()) == [*range(1, 300)]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with picture_store.opened(tmp_path_factory) as found:
        yield found


@pytest.mark.slow
def test_a_new_file_finds_the_row_that_it_became(places, tmp_path: Path, capsys) -> None:
    store = places["cache_dir"]
    dataset = open_dataset(store, "birds")
    key = labelled_features(store, "birds").text.split(" & ")[0]
    name = dataset.names[7]
    new = tmp_path / "new.jpg"
    label = dataset.class_names[dataset.labels[7]]
    source = next((store.parent).rglob(f"{label}/{Path(name).name}"))
    new.write_bytes(source.read_bytes())
    config = {"dataset": "birds", "features": key, "cache_dir": store, "count": 3}
    found = find_similar(SimilarConfig(**config, images=(str(new), name), out=tmp_path / "s.png"))
    same, others = found.found[str(new)], found.found[name]
    assert same[0].file == name and same[0].cosine > 0.999
    assert all(near.file != name for near in others)
    assert [near.row for near in same[1:]] == [near.row for near in others[:2]]
    with Image.open(found.sheet) as sheet:
        assert sheet.width > 4 * 128 and sheet.height > 2 * 128
    words = ["data", "similar", "birds", name, "--features", key, "--cache-dir", str(store)]
    assert run([*words, "--count", "2"]) == 0
    assert f"{others[0].cosine:.3f}" in capsys.readouterr().out
    assert (
        run(
            [
                "data",
                "similar",
                "birds",
                "nowhere.jpg",
                "--features",
                key,
                "--cache-dir",
                str(store),
            ]
        )
        == 1
    )
    assert "nowhere.jpg: expected an image of" in capsys.readouterr().err
