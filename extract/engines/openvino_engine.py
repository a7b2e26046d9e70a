"""OpenVINO on a CPU: the Keras model, converted in memory and compiled for its processor."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from onepass.extract.backend import Step, as_list, tensorflow_graph
from onepass.extract.engines.engine import ConversionError

if TYPE_CHECKING:
    import openvino

    from onepass.extract.engines.engine import Compiler

HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Requests that are computed side by side, each by its share of the cores. Two cores wait for one another in one
# wide request: measured, two of one core each give a third more. The bits are the same.
STREAMS = 2
# Images of a request, where a stream has no more cores than that. The maps of 64 images do not fit into the caches:
# measured at 128 and 224 px, they take a seventh more of the processor's time than those of 8. The bits are the same.
REQUEST = 8


def load_openvino() -> Any:
    """Return the package `openvino`, without its telemetry.

    Unless it is told not to, it reports every layer that it converts to Google Analytics: nobody's business, and up to
    nine tenths of a conversion's time.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if it were not installed
    import openvino

    return openvino


@cache
def openvino_core() -> "openvino.Core":
    """Return the one core of this process, which stays.

    A core gives its thread another stack for signals, and the one before back when it goes. Two that go in another
    order than they came leave the thread a stack that is freed, and Ctrl-C or SIGTERM end it with SIGSEGV.
    """
    return load_openvino().Core()


def obstacle(numbers: str) -> str:
    """Return why OpenVINO cannot compute in float32 or bfloat16 here; "" where it can."""
    if find_spec("openvino") is None:
        return "OpenVINO is not installed (pip install openvino)"
    if keras.backend.backend() != "tensorflow":
        return f"Keras runs on {keras.backend.backend()}, and OpenVINO takes its models from TensorFlow"
    able = openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if numbers == "bfloat16" and "BF16" not in able:
        return "this processor does not compute in bfloat16 (AVX512-BF16 or AMX)"
    return ""


def convert(model: keras.Model, numbers: str) -> "Compiler":
    """Return what compiles a model of Keras for a number of images at a time.

    Raises:
        ConversionError: It has an operation that OpenVINO does not know.
    """
    named = {layer.name for layer in model.layers}
    if numbers != "float32" and {"preprocess", "backbone"} <= named:
        stages = list(zip(_cut(model), ("float32", numbers), strict=True))
    else:
        stages = [(model, numbers)]
    return partial(_compiled, [(_converted(stage), HINTS[hint]) for stage, hint in stages])


def _cut(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Return the part of an extractor that stays in float32, and what follows it.

    Resize and preprocessing give whole grey levels, which bfloat16 would miss, and the first layers' activations are
    large beside what differs between two images. So the backbone goes on in bfloat16 from where its map is
    narrowest, of those of half the image's size: most of the error is gone, for a tenth of the time.
    """
    images, backbone = model.get_layer("preprocess").output, model.get_layer("backbone")
    places = {id(layer.output): n for n, layer in enumerate(backbone.layers)}
    ends = {id(end): end for end in backbone.outputs}  # several poolings may be of one map
    for seam in _seams(backbone, images.shape[1]):
        late = [end for key, end in ends.items() if places[key] > places[id(seam)]]
        early = [end for key, end in ends.items() if places[key] <= places[id(seam)]]
        try:
            rest = keras.Model(seam, late)
        except ValueError:  # more than this map is needed behind it, or nothing is behind it
            continue
        exact = keras.Model(backbone.inputs, [seam, *early])
        first = keras.Model(model.inputs, exact(images))
        inputs = [keras.Input(map_.shape[1:]) for map_ in (seam, *early)]
        found = [*as_list(rest(inputs[0])), *inputs[1:]]
        maps = dict(zip([id(end) for end in (*late, *early)], found, strict=True))
        return first, keras.Model(inputs, _vectors(model, [maps[id(e)] for e in backbone.outputs]))
    return keras.Model(model.inputs, images), keras.Model(images, model.outputs)


def _seams(backbone: keras.Model, size: int) -> list[Any]:
    """Return the maps of half the image's size, the narrowest first, and of these the last."""
    half = [
        layer.output
        for layer in backbone.layers
        if isinstance(layer.output, keras.KerasTensor)
        and len(layer.output.shape) == 4
        and size / 3 < layer.output.shape[1] <= (size + 1) / 2
    ]
    half.reverse()
    return sorted(half, key=lambda map_: map_.shape[-1])


def _vectors(model: keras.Model, maps: list[Any]) -> list[Any]:
    """Return what an extractor makes of its backbone's maps."""
    vectors = [model.get_layer(f"pool_{n}")(map_) for n, map_ in enumerate(maps)]
    if any(layer.name == "imagenet_logits" for layer in model.layers):  # always the last
        vectors[-1] = model.get_layer("imagenet_logits")(vectors[-1])
    return vectors


def _converted(model: keras.Model) -> "openvino.Model":
    import tensorflow as tf

    openvino = load_openvino()
    traced = tensorflow_graph(
        lambda *inputs: as_list(model(inputs if len(inputs) > 1 else inputs[0], training=False)),
        input_signature=[tf.TensorSpec((None, *i.shape[1:]), i.dtype) for i in model.inputs],
    )
    try:
        concrete = traced.get_concrete_function()
        found = openvino.convert_model(concrete)
    except Exception as error:  # whatever a converter raises
        raise _refused(model.name, error) from error
    # Activations with a gradient of their own, such as swish, are outputs as well in what the converter gives.
    results = [found.output(tensor.name).node.input_value(0) for tensor in concrete.outputs]
    return openvino.Model(results, found.get_parameters(), model.name)


def _refused(name: str, error: Exception) -> ConversionError:
    why = str(error).partition("\n")[0]
    return ConversionError(f"{name}: OpenVINO cannot take it ({why}); use --engine keras")


def _compiled(stages: Sequence[tuple["openvino.Model", str]], batch: int) -> Step:
    openvino = load_openvino()
    most = max(REQUEST, (os.cpu_count() or 1) // STREAMS)
    size = next(n for n in range(min(most, batch), 0, -1) if batch % n == 0)
    requests: SimpleQueue[list[Any]] = SimpleQueue()
    compiled = []
    for model, hint in stages:
        fixed = model.clone()
        shapes = [[size, *one.partial_shape[1:]] for one in fixed.inputs]
        try:
            fixed.reshape(dict(enumerate(map(openvino.PartialShape, shapes))))
        except RuntimeError as error:  # Swin's windows, for one, hold the number of images
            raise _refused(fixed.friendly_name, error) from error
        # A thread that is bound to its core waits there for whatever else runs on it, such as decoding.
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": STREAMS,
            "ENABLE_CPU_PINNING": False,
        }
        compiled.append(openvino_core().compile_model(fixed, "CPU", options))
    for _ in range(STREAMS):
        requests.put([one.create_infer_request() for one in compiled])
    pool = ThreadPoolExecutor(STREAMS, "openvino")
    count = len(compiled[-1].outputs)

    def run(arrays: Sequence[Any]) -> list[np.ndarray]:
        chain = requests.get()
        try:
            for request in chain:
                request.infer(dict(enumerate(arrays)), share_inputs=True)
                arrays = [request.get_output_tensor(n) for n in range(len(request.model_outputs))]
            return [np.array(tensor.data) for tensor in arrays]
        finally:
            requests.put(chain)

    def step(*inputs: np.ndarray) -> list[Any]:
        whole = [np.ascontiguousarray(array) for array in inputs]
        futures = [
            pool.submit(run, [array[first : first + size] for array in whole])
            for first in range(0, batch, size)
        ]
        return [_Later(futures, n) for n in range(count)]

    return step


class _Later:
    """An array that may still be being computed, in parts; `numpy.asarray` waits for it."""

    def __init__(self, futures: list[Future], number: int) -> None:
        self._futures, self._number = futures, number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.concatenate([future.result()[self._number] for future in self._futures])
        return array if dtype is None else array.astype(dtype, copy=bool(copy))
