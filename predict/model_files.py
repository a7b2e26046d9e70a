"""The kinds of model file: how each is written, how it is read back, and which packages that takes."""

import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

from onepass.cache.artifacts import Artifact, record, to_json
from onepass.cache.errors import MissingFileError, UsageError
from onepass.cache.files import make_folder
from onepass.extract.engines.openvino_engine import load_openvino, openvino_core
from onepass.predict.pixel_classifier import PictureGeometry

LABELS = "labels.json"
CHECK_BATCH = (
    8  # images at a time while a file is compared with the model: a network of 300 px needs 1 GB
)
Reader = Callable[[np.ndarray], np.ndarray]


@record
class Labels(Artifact):
    """What a program has to know to use a model file: `labels.json` beside it and inside it.

    It is a member of the zip that a `.keras` file is and that is appended to a `.tflite` file; it lies in
    `assets.extra` of a SavedModel, and is the metadata "labels" of an ONNX file.

    Attributes:
        class_ids: Identity of the class of each column.
        class_names: Its name in words.
        input: What the model takes.
        output: What it returns.
        run: DATASET/RUN that it was made from.
    """

    SAME_SINCE: ClassVar[int] = 0

    class_ids: tuple[str, ...]
    class_names: tuple[str, ...]
    input: str
    output: str
    run: str

    @property
    def text(self) -> str:
        """The content of the file."""
        return json.dumps({"format": self.FORMAT, **to_json(self)}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """A kind of model file.

    Attributes:
        name: As `--format` takes it.
        ending: Of its files.
        write: (model, path, labels, geometry of its pixels): writes it, with the labels inside.
        open: (path): what gives the probabilities (n, K) of uint8 (n, H, W, C).
        packages: What has to be installed, as pip calls it.
        backends: Those of Keras that can write it.
    """

    name: str
    ending: str
    write: Callable[[keras.Model, Path, Labels, PictureGeometry], None]
    open: Callable[[Path], Reader]
    packages: tuple[str, ...] = ()
    backends: tuple[str, ...] = ("tensorflow",)

    def run(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        """Return what a file says of uint8 (n, H, W, C), as (n, K); a few images are in memory at a time."""
        read = self.open(path)
        return in_batches(read, pixels)

    def check_installed(self) -> None:
        """Refuse what cannot be written here, before anything is done.

        Raises:
            MissingFileError: A package is missing; the command that installs it is named.
            UsageError: Keras runs on another backend.
        """
        missing = [name for name in self.packages if find_spec(name) is None]
        if missing:
            raise MissingFileError(
                f"--format {self.name}: expected the packages {', '.join(self.packages)}; install what is "
                f"missing with: pip install {' '.join(missing)}"
            )
        if keras.backend.backend() not in self.backends:
            raise UsageError(
                f"--format {self.name}: expected KERAS_BACKEND={self.backends[0]}, received {keras.backend.backend()}"
            )


def in_batches(read: Reader, pixels: np.ndarray) -> np.ndarray:
    """Return what a reader says of images, a few of them at a time."""
    cuts = range(0, len(pixels), CHECK_BATCH)
    return np.concatenate([read(pixels[i : i + CHECK_BATCH]) for i in cuts])


def _write_keras(model: keras.Model, path: Path, labels: Labels, _: PictureGeometry) -> None:
    model.save(path)
    _add_member(path, labels)


def _open_keras(path: Path) -> Reader:
    """Build the model from the file's own description and weights; nothing in it is executed."""
    with zipfile.ZipFile(path) as members:
        model = keras.saving.deserialize_keras_object(json.loads(members.read("config.json")))
        weights = path.with_name("model.weights.h5")
        weights.write_bytes(members.read("model.weights.h5"))
    model.load_weights(weights)
    weights.unlink()
    return lambda pixels: np.asarray(model(pixels, training=False))


def _write_saved_model(
    model: keras.Model, path: Path, labels: Labels, geometry: PictureGeometry
) -> None:
    """Write both signatures: `serving_default` takes files, `serve` pixels."""
    import tensorflow as tf

    from onepass.predict.image_bytes import file_decoder

    decode = file_decoder(geometry)
    archive = keras.export.ExportArchive()
    archive.track_and_add_endpoint("serve", model, [_pixels_of(model)])
    archive.add_endpoint(
        "serving_default",
        lambda image_bytes: {"probabilities": model(decode(image_bytes), training=False)},
        [tf.TensorSpec([None], tf.string, name="image_bytes")],
    )
    archive.write_out(str(path), verbose=False)
    extra = path / "assets.extra"
    make_folder(extra)
    (extra / LABELS).write_text(labels.text)


def _open_saved_model(path: Path) -> Reader:
    """Ask it by files: that is the way through decoder and network."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    ask = loaded.signatures["serving_default"]

    def read(pixels: np.ndarray) -> np.ndarray:
        files = [tf.io.encode_png(one) for one in pixels]
        return ask(image_bytes=tf.stack(files))["probabilities"].numpy()

    return read


def _pixels_of(model: keras.Model) -> keras.InputSpec:
    return keras.InputSpec("uint8", shape=model.input_shape, name="pixels")


def _write_onnx(model: keras.Model, path: Path, labels: Labels, _: PictureGeometry) -> None:
    import onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converter, about NumPy
        # Named here, because Keras takes it only from a model that has been called.
        signature = [_pixels_of(model)]
        model.export(str(path), format="onnx", verbose=False, input_signature=signature)
    file = onnx.load(str(path))
    onnx.helper.set_model_props(file, {"labels": labels.text})
    onnx.save(file, str(path))


def _open_onnx(path: Path) -> Reader:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda pixels: session.run(None, {name: pixels})[0]


def _write_litert(model: keras.Model, path: Path, labels: Labels, _: PictureGeometry) -> None:
    model.export(str(path), format="litert", verbose=False)
    _add_member(path, labels)


def _open_litert(path: Path) -> Reader:
    interpreter = _interpreter(path)
    wanted = interpreter.get_input_details()[0]["index"]

    def read(pixels: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(wanted, pixels.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(wanted, pixels)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy()

    return read


def _write_openvino(model: keras.Model, path: Path, labels: Labels, _: PictureGeometry) -> None:
    openvino = load_openvino()
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "saved_model"
        model.export(str(saved), format="tf_saved_model", verbose=False)
        converted = openvino.convert_model(saved)
        make_folder(path)
        openvino.save_model(converted, path / "model.xml", compress_to_fp16=False)
    (path / LABELS).write_text(labels.text)


def _open_openvino(path: Path) -> Reader:
    # in float32, which a processor with bfloat16 would not choose by itself
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(path / "model.xml", "CPU", options)
    return lambda pixels: compiled(pixels)[0]


def _interpreter(path: Path) -> Any:
    """Return LiteRT's own interpreter where it is installed, else the one in TensorFlow."""
    if find_spec("ai_edge_litert") is not None:
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter(model_path=str(path))
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it will move
        return tf.lite.Interpreter(model_path=str(path))


def _add_member(path: Path, labels: Labels) -> None:
    """Put the labels into a zip; to another file one is appended, as LiteRT's metadata does."""
    with zipfile.ZipFile(path, "a") as members:
        members.writestr(LABELS, labels.text)


FORMATS = {
    one.name: one
    for one in (
        ModelFormat("keras", ".keras", _write_keras, _open_keras, backends=("tensorflow", "jax")),
        ModelFormat("saved_model", "-saved_model", _write_saved_model, _open_saved_model),
        ModelFormat(
            "onnx", ".onnx", _write_onnx, _open_onnx, packages=("tf2onnx", "onnx", "onnxruntime")
        ),
        ModelFormat("litert", ".tflite", _write_litert, _open_litert),
        ModelFormat(
            "openvino", "-openvino", _write_openvino, _open_openvino, packages=("openvino",)
        ),
    )
}
