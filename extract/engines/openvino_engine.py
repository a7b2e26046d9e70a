"""OpenVINO on a CPU: the Keras model, converted in memory and compiled for its processor."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from onepass.cache.errors import OnepassError
from onepass.extract.backend import Step, as_list

if TYPE_CHECKING:
    import openvino

    from onepass.extract.engines.engine import Compiler

HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Batches that are computed side by side, each by its share of the cores. Two cores wait for one another in one
# wide request: measured, two of one core each give a third more. The bits are the same.
STREAMS = 2


class ConversionError(OnepassError, ValueError):
    """OpenVINO cannot take a model."""


def obstacle(numbers: str) -> str:
    """Return why OpenVINO cannot compute in float32 or bfloat16 here; "" where it can."""
    if find_spec("openvino") is None:
        return "OpenVINO is not installed (pip install openvino)"
    if keras.backend.backend() != "tensorflow":
        return f"Keras runs on {keras.backend.backend()}, and OpenVINO takes its models from TensorFlow"
    import openvino

    able = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if numbers == "bfloat16" and "BF16" not in able:
        return "this processor does not compute in bfloat16 (AVX512-BF16 or AMX)"
    return ""


def convert(model: keras.Model, numbers: str) -> "Compiler":
    """Return what compiles a model of Keras for a number of images at a time.

    Resize and preprocessing stay in float32: they give whole grey levels, which bfloat16 would miss.

    Raises:
        ConversionError: It has an operation that OpenVINO does not know.
    """
    stages = [(model, numbers)]
    if numbers != "float32" and any(layer.name == "preprocess" for layer in model.layers):
        images = model.get_layer("preprocess").output
        stages = [
            (keras.Model(model.inputs, images), "float32"),
            (keras.Model(images, model.outputs), numbers),
        ]
    converted = [(_converted(stage), HINTS[hint]) for stage, hint in stages]
    return partial(_compiled, converted)


def _converted(model: keras.Model) -> "openvino.Model":
    import openvino
    import tensorflow as tf

    traced = tf.function(
        lambda *inputs: as_list(model(inputs if len(inputs) > 1 else inputs[0], training=False)),
        input_signature=[tf.TensorSpec((None, *i.shape[1:]), i.dtype) for i in model.inputs],
    )
    try:
        return openvino.convert_model(traced.get_concrete_function())
    except Exception as error:  # whatever a converter raises
        why = str(error).partition("\n")[0]
        raise ConversionError(
            f"{model.name}: OpenVINO cannot take it ({why}); use --engine keras"
        ) from error


def _compiled(stages: Sequence[tuple["openvino.Model", str]], batch: int) -> Step:
    import openvino

    core = openvino.Core()
    requests: SimpleQueue[list[openvino.InferRequest]] = SimpleQueue()
    compiled = []
    for model, hint in stages:
        fixed = model.clone()
        shapes = [[batch, *one.partial_shape[1:]] for one in fixed.inputs]
        fixed.reshape(dict(enumerate(map(openvino.PartialShape, shapes))))
        options = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": STREAMS}
        compiled.append(core.compile_model(fixed, "CPU", options))
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
        future = pool.submit(run, [np.ascontiguousarray(array) for array in inputs])
        return [_Later(future, n) for n in range(count)]

    return step


class _Later:
    """An array that may still be being computed; `numpy.asarray` waits for it."""

    def __init__(self, future: Future, number: int) -> None:
        self._future, self._number = future, number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._future.result()[self._number]
        return array if dtype is None else array.astype(dtype, copy=bool(copy))
