"""Every model of keras.applications, read from applications.csv so that listing imports nothing."""

import contextlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from onepass.cache.errors import InvalidInputError, MissingFileError
from onepass.extract.backbones.spec import IMAGENET_STD, PREPROCESSING, BackboneSpec
from onepass.extract.backbones.table import models_folder, read_table, spec_of_row
from onepass.extract.backbones.weights_files import (
    another_architecture,
    checked_digest,
    count_numbers,
    load_hdf5,
    model_numbers,
)

TABLE = "applications.csv"
# These put more than one dense layer on the pooled vector, so no (kernel, bias) expresses their head.
DEEP_TOPS = ("VGG16", "VGG19", "MobileNetV3Small", "MobileNetV3Large")


def specs() -> list[BackboneSpec]:
    """Return one spec per model; `offline` tells whether Keras has its weights in its cache."""
    folder = models_folder("KERAS_HOME", ".keras")
    return [
        spec_of_row(
            row,
            family="applications",
            factory=row["factory"],
            preprocessing=PREPROCESSING[row["preprocessing"]],
            offline=(folder / row["file"]).is_file(),
            weights="keras:imagenet",
        )
        for row in read_table(TABLE)
    ]


def build(spec: BackboneSpec, size: int, weights: Path | str, sha256: str | None = None) -> Any:
    """Return the Keras model without its top.

    ConvNeXt averages before its last LayerNorm, as its authors do, and so gives (B, D);
    every other model gives its feature map (B, h, w, D).

    Args:
        spec: Of this family.
        size: Side of the images, px.
        weights: "imagenet" (Keras downloads and checks the file), "none" (random), or a
            local `.weights.h5` or legacy `.h5` file, with or without the top.
        sha256: What the local file's digest must be.

    Raises:
        MissingFileError: The download failed, or there is no such file.
        CorruptFileError: The file is truncated or has another digest.
        InvalidInputError: The file is another architecture's.
    """
    if weights in ("imagenet", "none"):
        return _make(spec, (size, size, 3), weights, include_top=False)
    path = Path(weights)
    checked_digest(path, sha256)
    model = _make(spec, (size, size, 3), "none", include_top=False)
    if count_numbers(path) == model_numbers(model):
        load_hdf5(model, path, spec.name)
    else:
        _load_without_top(model, spec, path)
    _normalise_like_keras(model)
    return model


def build_top(spec: BackboneSpec, weights: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """Return kernel (D, 1000) and bias (1000,) float32 of the ImageNet head.

    Raises:
        InvalidInputError: The model's head is no single dense layer, or the file has none.
    """
    if spec.factory in DEEP_TOPS or weights == "none":
        raise InvalidInputError(
            f"{spec.name}: expected a trained head of one dense layer, which it has not"
            f"{' without weights' if weights == 'none' else ''}; leave --logits out"
        )
    model = _make(spec, None, "imagenet" if weights == "imagenet" else "none", include_top=True)
    if weights != "imagenet":
        load_hdf5(model, Path(weights), f"{spec.name} with its ImageNet head")
    kernel, bias = (np.asarray(array, "float32") for array in model.get_weights()[-2:])
    return kernel.reshape(-1, kernel.shape[-1]), bias


def _make(
    spec: BackboneSpec, shape: tuple[int, int, int] | None, weights: str, include_top: bool
) -> Any:
    import keras

    factory = getattr(keras.applications, spec.factory)
    options: dict[str, Any] = {"include_top": include_top, "input_shape": shape}
    if include_top:
        options["classifier_activation"] = None
    elif spec.factory.startswith("ConvNeXt"):
        options["pooling"] = "avg"
    with warnings.catch_warnings():
        # MobileNet says that it falls back on its 224 px weights at other sizes.
        warnings.simplefilter("ignore", UserWarning)
        if weights == "none":
            return factory(weights=None, **options)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
                return factory(weights="imagenet", **options)
        except Exception as error:  # keras.utils.get_file raises a bare Exception
            reason = " ".join(str(error).split())[:400]
            raise MissingFileError(
                f"{spec.name}: Keras could not fetch its ImageNet weights ({reason}); "
                "fetch the file on another machine and give it with --weights FILE"
            ) from error


def _load_without_top(model: Any, spec: BackboneSpec, path: Path) -> None:
    """Load a file that was saved with the top: into the whole model, whose first weights are ours."""
    whole = _make(spec, None, "none", include_top=True)
    if count_numbers(path) != model_numbers(whole):
        counts = f"{model_numbers(model):,} weights (or {model_numbers(whole):,} with its head)"
        raise another_architecture(path, spec.name, counts, f"{count_numbers(path):,}")
    load_hdf5(whole, path, spec.name)
    model.set_weights(whole.get_weights()[: len(model.weights)])


def _normalise_like_keras(model: Any) -> None:
    """Give EfficientNet B0-B7 the input scaling that Keras adds for weights="imagenet" only.

    Their files hold the standard deviation where Keras's Normalization layer expects the
    variance; Keras mends it with one more Rescaling layer, but only when it downloads the
    file itself (keras.src.applications.efficientnet). The same file from a folder would
    otherwise give other vectors.
    """
    import keras

    for layer in model.layers:
        if not isinstance(layer, keras.layers.Normalization) or not layer.weights:
            continue
        mean, variance, *rest = layer.get_weights()
        if np.allclose(variance, IMAGENET_STD, rtol=1e-3):
            layer.set_weights([mean, np.square(variance), *rest])
            layer.finalize_state()
