"""Views and export of a small network that has all that a real one has: resize, preprocessing, pooling, a head."""

import json
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onepass.cache.artifacts import to_json
from onepass.cache.errors import MissingFileError
from onepass.predict.pixel_classifier import PictureGeometry

SIZE, CLASSES = 12, 3
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
GEOMETRY = PictureGeometry(8, 3, "stretch")
ONNX = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("tf2onnx", "onnx", "onnxruntime")),
    reason="needs tf2onnx, onnx and onnxruntime",
)


@pytest.fixture(scope="module")
def extractor() -> Any:
    """uint8 (B, 8, 8, 3) → vectors (B, 12), BGR and scaled as for VGG16."""
    import keras

    from onepass.extract.backbones.spec import PREPROCESSING
    from onepass.extract.network.model import Pool, Preprocess, Resize

    keras.utils.set_random_seed(0)
    caffe = PREPROCESSING["caffe"]
    image = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(6, 3, activation="relu", kernel_initializer="he_normal")(image)
    backbone = keras.Model(image, keras.layers.BatchNormalization()(x), name="backbone")
    pixels = keras.Input(PIXELS.shape[1:], dtype="uint8", name="pixels")
    x = Resize(SIZE, name="resize")(pixels)
    x = Preprocess(caffe.bgr, caffe.scale, caffe.offset, name="preprocess")(x)
    vectors = Pool("avg+max", name="pool_0")(backbone(x))
    return keras.Model(pixels, vectors, name="extractor")


def with_top(extractor: Any, recipe: str, *changes: str) -> Any:
    """Put the head of a recipe on an extractor: uint8 (B, 8, 8, 3) → logits (B, 3)."""
    from onepass.finetune.recipes import RECIPES
    from onepass.finetune.training.model import assemble

    classifier = assemble(extractor, CLASSES, RECIPES[recipe].changed(changes))
    classifier.head.kernel.assign(classifier.head.kernel * 0.02)  # no class is certain
    return classifier.predictor


@pytest.fixture(scope="module")
def predictor(extractor: Any) -> Any:
    """The network of a run whose head is one dense layer."""
    return with_top(extractor, "default")


@pytest.fixture(scope="module")
def labels() -> Any:
    from onepass.predict.model_files import Labels

    return Labels(("a", "b", "c"), ("<b>a</b>", "é", "c"), "pixels", "probabilities", "d/run")


def plain_model(predictor: Any) -> Any:
    """uint8 (B, 8, 8, 3) named "pixels" → probabilities (B, 3), in operations of Keras alone."""
    import keras

    from onepass.predict.network import run_logits

    pixels = keras.Input(predictor.input_shape[1:], dtype="uint8", name="pixels")
    softmax = keras.layers.Softmax(dtype="float32", name="probabilities")
    return keras.Model(pixels, softmax(run_logits(predictor, pixels)), name="onepass")


def said(model: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(model(pixels, training=False))


@pytest.mark.parametrize("view", ["flip", "scale:1.15", "crop:tl"])
def test_a_view_is_the_network_on_the_picture_seen_that_way(predictor: Any, view: str) -> None:
    """Independent: Pillow crops, mirrors and resizes; the network gets pictures of its own size."""
    import keras

    from onepass.predict.views import with_view

    low, high = 4 - 4 / 1.15, 4 + 4 / 1.15
    boxes = {"flip": (0, 0, 8, 8), "crop:tl": (0, 0, 7, 7), "scale:1.15": (low, low, high, high)}
    seen = [
        Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=boxes[view])
        for p in PIXELS
    ]
    pictures = np.stack([np.asarray(image) for image in seen]).astype(np.float32)
    pictures = pictures[:, :, ::-1] if view == "flip" else pictures
    extractor = predictor.get_layer("extractor")
    behind = keras.Model(extractor.get_layer("resize").output, extractor.output)
    x = predictor.get_layer("top")(behind(pictures))
    ours = said(with_view(predictor, view), PIXELS)
    np.testing.assert_allclose(ours, np.asarray(x), atol=0.01)  # a grey level may round otherwise
    assert np.abs(said(predictor, PIXELS) - ours).max() > 0.05
    assert with_view(predictor, "") is predictor


def test_the_exported_model_gives_the_predictors_probabilities(predictor: Any) -> None:
    from onepass.classify.metrics import softmax

    model = plain_model(predictor)
    np.testing.assert_allclose(
        said(model, PIXELS), softmax(said(predictor, PIXELS)), rtol=1e-5, atol=1e-6
    )
    assert said(model, PIXELS).std(axis=0).max() > 1e-3  # not the same for every image


def test_dense_layers_before_the_head_are_written_out_too(
    extractor: Any, labels: Any, tmp_path: Path
) -> None:
    """The head of a run is one layer of ours; no file may need it to be loaded."""
    from onepass.classify.metrics import softmax
    from onepass.predict.model_files import FORMATS

    whole = with_top(extractor, "de2020-dense2", "hidden=5,4")
    FORMATS["keras"].write(plain_model(whole), tmp_path / "m.keras", labels, GEOMETRY)
    with zipfile.ZipFile(tmp_path / "m.keras") as members:
        assert b"onepass." not in members.read("config.json")
    expected = softmax(said(whole, PIXELS))
    np.testing.assert_allclose(
        FORMATS["keras"].run(tmp_path / "m.keras", PIXELS), expected, atol=1e-5
    )


def labels_inside(path: Path, name: str) -> dict:
    if name == "saved_model":
        return json.loads((path / "assets.extra" / "labels.json").read_text())
    if name == "onnx":
        import onnx

        return json.loads({p.key: p.value for p in onnx.load(str(path)).metadata_props}["labels"])
    with zipfile.ZipFile(path) as members:
        return json.loads(members.read("labels.json"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["keras", "saved_model", pytest.param("onnx", marks=ONNX), "litert"]
)
def test_each_format_says_what_the_model_says(
    predictor: Any, name: str, labels: Any, tmp_path: Path
) -> None:
    from onepass.predict.model_files import FORMATS

    model, kind = plain_model(predictor), FORMATS[name]
    path = tmp_path / ("model" + kind.ending)
    kind.check_installed()
    kind.write(model, path, labels, GEOMETRY)
    np.testing.assert_allclose(kind.run(path, PIXELS), said(model, PIXELS), atol=1e-5)
    assert labels_inside(path, name) == {"format": 1, **to_json(labels)}


def test_a_keras_file_is_loaded_without_onepass(
    predictor: Any, labels: Any, tmp_path: Path
) -> None:
    import keras

    from onepass.predict.model_files import FORMATS

    model = plain_model(predictor)
    FORMATS["keras"].write(model, tmp_path / "m.keras", labels, GEOMETRY)
    with zipfile.ZipFile(tmp_path / "m.keras") as members:
        config = members.read("config.json").decode()
    assert "onepass." not in config and "Preprocess" not in config
    loaded = keras.saving.load_model(tmp_path / "m.keras", safe_mode=True)
    np.testing.assert_array_equal(said(loaded, PIXELS), said(model, PIXELS))


def test_a_missing_package_is_named_with_its_cure() -> None:
    from onepass.predict.model_files import ModelFormat

    kind = ModelFormat("odd", ".odd", lambda *_: None, lambda *_: PIXELS, packages=("no_such_one",))
    with pytest.raises(MissingFileError, match="pip install no_such_one"):
        kind.check_installed()


def test_a_file_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    from onepass.predict.export import _placed

    path = tmp_path / "model"
    left = tmp_path / ".tmp-abcdefgh"  # by a process that was killed
    (left / "model").mkdir(parents=True)
    for content in ("first", "second"):
        with _placed(path) as temporary:
            temporary.mkdir()
            assert not left.exists() and tempfile.gettempdir() == str(temporary.parent)
            (temporary / "weights").write_text(content)
    with pytest.raises(RuntimeError), _placed(path) as temporary:
        temporary.mkdir()
        raise RuntimeError
    assert (path / "weights").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_file_that_differs_from_the_model_is_refused(
    predictor: Any, labels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onepass.predict import export
    from onepass.predict.model_files import FORMATS, ModelFormat

    def off(path: Path) -> Any:
        read = FORMATS["keras"].open(path)
        return lambda pixels: read(pixels) + 0.01

    kind = ModelFormat("keras", ".keras", FORMATS["keras"].write, off)
    model = plain_model(predictor)
    expected = said(model, PIXELS)
    with pytest.raises(export.ExportError, match=r"difference of 0\.01"):
        export.write_checked(kind, model, tmp_path / "m.keras", labels, GEOMETRY, PIXELS, expected)
    assert list(tmp_path.iterdir()) == []
    done = export.write_checked(
        FORMATS["keras"], model, tmp_path / "m.keras", labels, GEOMETRY, PIXELS, expected
    )
    assert done.difference == 0 and done.megabytes > 0
