"""What CONTRIBUTING.md says has to be done for an extension is enough: each is made here, and used."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

import onepass
from onepass.classify import intervals, metrics
from onepass.classify.heads.base import Head
from onepass.classify.heads.registry import PROBES
from onepass.classify.search.strategies import STRATEGIES
from onepass.data import sources
from onepass.data.record import DatasetRecord, Origin
from onepass.data.sources.base import Item, Request, Source
from onepass.data.splits import UNDRAWN
from onepass.extract.backbones import registry
from onepass.extract.backbones.spec import PREPROCESSING, BackboneSpec
from onepass.extract.config import PRECISIONS_OF
from onepass.extract.engines.engine import ENGINES
from onepass.predict import example, model_files

pytestmark = pytest.mark.slow


# A data source: a module with `recognises` and `open_source` ---------------------------------------


def recognises(place: str) -> bool:
    return place.startswith("stripes://")


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Yield 120 images with stripes one way or the other."""
    random = np.random.default_rng(0)
    items = []
    for number in range(120):
        stripes = np.zeros((16, 16), np.uint8)
        stripes[:: 2 + number % 3] = 200
        pixels = stripes if number % 2 else stripes.T
        pixels = pixels + random.integers(0, 40, (16, 16), dtype=np.uint8)
        items.append(Item(f"{number}", number % 2, UNDRAWN, lambda pixels=pixels: pixels))
    names = ["across", "along"]
    origins = [Origin("stripes")]
    yield Source("stripes", "stripes://", names, names, items, origins, DatasetRecord("Stripes"))


# A family of backbones: a module with `specs`, `build` and `build_top` -----------------------------


def specs() -> list[BackboneSpec]:
    return [
        BackboneSpec(
            name="edges",
            family="contributed",
            factory="edges",
            preprocessing=PREPROCESSING["lite"],
            native_size=16,
            min_size=8,
            feature_dim=8,
            weights_mb=0.01,
            licence="Apache-2.0",
            top1=None,
            offline=True,
            weights="contributed:edges-1",
        )
    ]


def build(spec: BackboneSpec, size: int, weights: Any, sha256: str | None = None) -> Any:
    import keras

    image = keras.Input((size, size, 3))
    kernels = keras.initializers.RandomNormal(seed=0)
    x = keras.layers.Conv2D(8, 3, 2, "same", kernel_initializer=kernels)(image)
    return keras.Model(image, keras.layers.ReLU()(x), name=spec.name)


def build_top(spec: BackboneSpec, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    raise AssertionError("asked for with --logits only")


# An engine: a module with `obstacle` and `convert` --------------------------------------------------


def obstacle(numbers: str) -> str:
    return "" if numbers == "float32" else "it computes in float32 only"


def convert(model: Any, numbers: str) -> Any:
    def compiled(batch: int) -> Any:
        return lambda *arrays: [np.asarray(model.predict_on_batch(*arrays))]

    return compiled


# A head: a subclass of Head ------------------------------------------------------------------------


class Medians(Head):
    """The class whose median is nearest."""

    kind = "medians"
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {**Head.ARRAYS, "medians_": ("KD", "f")}

    def fit(self, X: Any, y: Any) -> Self:
        X, numbers = self.check_training(X, y)
        rows = [np.median(X[numbers == k], axis=0) for k in range(len(self.classes_))]
        self.medians_ = np.stack(rows).astype(np.float32)
        return self

    def logits(self, X: Any) -> np.ndarray:
        X = np.asarray(self.check_features(X), np.float32)
        return -((X[:, None] - self.medians_[None]) ** 2).sum(axis=2)


# A metric: its value, and what each row contributes to it. A model format: how it is written and read -


def _own(truth: np.ndarray, p: np.ndarray, positive: int | None = None) -> np.ndarray:
    return p[np.arange(len(truth)), truth]


MEAN = metrics.Metric(
    "mean-probability", "mean probability", lambda truth, p, _: float(_own(truth, p).mean())
)


def _write(model: Any, path: Path, labels: Any, geometry: Any) -> None:
    model.save_weights(path.with_suffix(".weights.h5"))
    path.with_suffix(".weights.h5").rename(path)
    _write.model = model  # type: ignore[attr-defined]


def _open(path: Path) -> Any:
    assert path.stat().st_size
    return _write.model  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with all stages done by contributed parts."""
    folder = tmp_path_factory.mktemp("contributed")
    patch = pytest.MonkeyPatch()
    here = sys.modules[__name__]
    with patch.context():
        patch.chdir(folder)
        patch.setitem(sources.OWN, "stripes", "striped images")
        patch.setitem(sources.SOURCES, "stripes", "striped images")
        patch.setitem(sys.modules, "onepass.data.sources.stripes", here)
        patch.setitem(registry.FAMILIES, "contributed", here)
        patch.setitem(ENGINES, "numpy", __name__)
        patch.setitem(PRECISIONS_OF, "numpy", ("bfloat16", "float32"))
        patch.setitem(PROBES, "medians", f"{__name__}:Medians")
        patch.setitem(STRATEGIES, "medians", "onepass.classify.search.baselines:fit_once")
        patch.setitem(metrics.METRICS, MEAN.name, MEAN)
        patch.setitem(intervals.INFLUENCES, MEAN.name, _own)
        patch.setitem(
            model_files.FORMATS, "mine", model_files.ModelFormat("mine", ".mine", _write, _open)
        )
        program = ("import numpy as np", "numpy", "model = np.load({file!r})", "model @ pixels")
        patch.setitem(example.RUNTIMES, "mine", program)
        onepass.prepare_dataset("stripes://", name="stripes")
        onepass.extract_features("stripes", "edges", size=16)
        onepass.extract_features("stripes", "edges", size=16, engine="numpy")
        onepass.run_probes("stripes", head=["medians", "ridge"])
        yield folder
    patch.undo()


def test_a_source(place: Path) -> None:
    dataset = onepass.open_dataset("stripes")
    assert dataset.pixels.shape == (120, 16, 16, 1) and dataset.class_names == ["across", "along"]


def test_a_backbone(place: Path) -> None:
    assert onepass.open_features("stripes", "edges@16").X.shape == (120, 8)


def test_an_engine(place: Path) -> None:
    by_it = onepass.open_features("stripes", "edges@16=numpy_float32").X
    np.testing.assert_allclose(by_it, onepass.open_features("stripes", "edges@16").X, atol=1e-2)


def test_a_head_and_a_metric(place: Path) -> None:
    board = json.loads((place / "runs" / "stripes" / "leaderboard.json").read_text())
    found = {result["head"]: result for result in board["results"]}
    assert {"medians", "ridge"} <= found.keys()
    predictor = onepass.load_predictor("stripes/medians")
    assert predictor.predict_split("val").probabilities.shape == (30, 2)
    assert "mean-probability" in str(found["medians"]), found["medians"].keys()


def test_an_export(place: Path) -> None:
    from onepass.predict.config import ExportConfig
    from onepass.predict.export import export_model

    (made,) = export_model(ExportConfig(models=("stripes/ridge",), format=("mine",))).models
    assert made.path.suffix == ".mine" and made.difference < 1e-3
