"""Class activation maps: their mean is the logit."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import picture_store
import pytest
from PIL import Image

import onepass
from onepass.__main__ import run
from onepass.cache.errors import UsageError
from onepass.predict.explain import activation_maps, overlay

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with picture_store.opened(tmp_path_factory) as found:
        yield found


@pytest.mark.parametrize("model", ["birds/logistic", "birds/r1"])
def test_the_mean_of_a_map_is_the_logit(places, model: str) -> None:
    predictor = onepass.load_predictor(model, temperature=False, **places)
    pixels = predictor.dataset.pixels[:20]
    maps = activation_maps(predictor.on_pictures()).maps(pixels)
    arrays = predictor.on_pictures().arrays(pixels)
    if model == "birds/r1":
        logits = arrays[predictor.model.wanted[0]]
    else:
        logits = predictor.model.head.logits(
            arrays[predictor.model.wanted[0]]
        )  # of float16 vectors
    scale = np.abs(logits).max()
    np.testing.assert_allclose(
        maps.mean(axis=(1, 2)) / scale, logits / scale, atol=2e-3 if model != "birds/r1" else 1e-5
    )
    assert maps.std(axis=(1, 2)).min() > 0.01 * scale and maps.shape[0] == 20


def test_a_model_without_maps_is_refused_and_a_member_with_them_is_taken(places) -> None:
    with pytest.raises(UsageError, match="expected a linear head on one backbone"):
        activation_maps(onepass.load_predictor("birds/knn", **places).on_pictures())
    both = onepass.load_predictor("birds/knn", "birds/logistic", **places)
    assert activation_maps(both.on_pictures()).weights.shape[1] == 3


def test_the_colour_lies_where_the_evidence_is() -> None:
    evidence = np.full((4, 4), -1.0)
    evidence[0, 3] = 2
    seen = np.asarray(overlay(np.full((8, 8, 1), 100, np.uint8), evidence)).astype(int)
    assert seen.shape == (256, 256, 3)
    assert seen[20, 235, 0] > 170 and np.all(seen[200:, :100] == 100)


def test_overlays_of_new_pictures_in_python(places) -> None:
    predictor = onepass.load_predictor("birds/logistic", **places)
    pixels = predictor.dataset.pixels[:3]
    classes = predictor(list(pixels)).classes
    maps = activation_maps(predictor.on_pictures()).maps(pixels)
    for seen, made in zip(
        predictor.overlays(list(pixels)), zip(pixels, maps, classes, strict=True)
    ):
        wanted = overlay(made[0], made[1][:, :, made[2]] - made[1].mean(axis=2))
        assert seen.mode == "RGB" and np.array_equal(np.asarray(seen), np.asarray(wanted))
    assert predictor.overlays([]) == []
    with pytest.raises(UsageError, match="put it in a list"):
        predictor.overlays(pixels[0])


def test_overlays_are_written_beside_the_answers(places, tmp_path, capsys) -> None:
    val = places["cache_dir"].parent / "birds" / "val"
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    words = [
        "predict",
        "birds/logistic",
        str(tmp_path / "bad.jpg"),
        str(val),
        f"--explain={tmp_path / 'why'}",
    ]
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in places.items()]
    assert run([*words, *flags]) == 3
    assert "Explained in:" in capsys.readouterr().out
    written = sorted((tmp_path / "why").iterdir())
    assert len(written) == 30
    with Image.open(written[0]) as image:
        assert image.size == (256, 256)
