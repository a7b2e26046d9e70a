"""The one place that knows which backend Keras runs on, and loads it only where it is asked."""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from onepass.cache.errors import DeviceError, InvalidInputError

Step = Callable[..., list[Any]]
T = TypeVar("T")


def of_backend(tensorflow: T, jax: T) -> T:
    """Return what is for the backend that Keras runs on.

    Raises:
        InvalidInputError: It is another one.
    """
    import keras

    backend = keras.backend.backend()
    made = {"tensorflow": tensorflow, "jax": jax}
    if backend not in made:
        raise InvalidInputError(f"KERAS_BACKEND={backend}: expected tensorflow or jax")
    return made[backend]


def on_accelerator() -> bool:
    """Return whether there is a GPU or TPU for Keras to use."""
    return any("gpu" in device or "tpu" in device for device in device_names())


def default_precision() -> str:
    """Return the arithmetic that is fastest without harm: bfloat16 on an accelerator."""
    return "mixed_bfloat16" if on_accelerator() else "float32"


def device_names() -> list[str]:
    """Return the devices to compute on, such as ["gpu:0", "gpu:1"] or ["cpu:0"]."""
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        for kind in ("GPU", "TPU", "CPU"):
            found = tf.config.list_logical_devices(kind)
            if found:
                return [f"{kind.lower()}:{number}" for number in range(len(found))]
    return [str(name).lower() for name in keras.distribution.list_devices()]


def device_kind() -> str:
    """Return backend and kind of the devices in words: "tensorflow, cpu: AMD EPYC 9R14", "jax, gpu: NVIDIA H100"."""
    import keras

    backend, name = keras.backend.backend(), ""
    kind = device_names()[0].partition(":")[0]
    if kind == "cpu":
        name = _processor()
    elif backend == "tensorflow":
        import tensorflow as tf

        device = tf.config.list_physical_devices(kind.upper())[0]
        name = tf.config.experimental.get_device_details(device).get("device_name", "")
    else:
        import jax

        name = jax.devices()[0].device_kind
    return f"{backend}, {kind}: {name}"


def _processor() -> str:
    """Return the name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, platform.machine())


def on_device(name: str) -> Any:
    """Return a context in which variables and graphs are put on a device."""
    import keras

    return keras.device(name)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error of any backend means that the device's memory is full."""
    text = f"{type(error).__name__}: {error}"
    return (
        isinstance(error, MemoryError)
        or "RESOURCE_EXHAUSTED" in text
        or "ResourceExhausted" in text
    )


@contextmanager
def device_failures() -> Iterator[None]:
    """Turn a failure of the accelerator, a kernel that died or a device that is gone, into a `DeviceError`."""
    try:
        yield
    except Exception as error:
        if not _is_device_failure(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise DeviceError(
            f"{', '.join(device_names())}: failed ({reason}); what was finished is kept: run the same command again"
        ) from error


def _is_device_failure(error: BaseException) -> bool:
    """Say whether an error comes from the runtime of a GPU or TPU: our own errors and full memory do not."""
    runtime = any(
        base.__name__ in ("JaxRuntimeError", "OpError") for base in type(error).__mro__
    )  # JAX's and TensorFlow's
    makers = ("CUDA", "cuDNN", "CUDNN", "CUBLAS", "ROCm", "HIP", "TPU")
    return runtime and not is_out_of_memory(error) and any(maker in str(error) for maker in makers)


def tensorflow_graph(function: Callable[..., Any], **how: Any) -> Any:
    """Return a function of TensorFlow operations as a graph, traced as it stands.

    AutoGraph, which our functions do not need, would write each of them anew into the folder for temporary files,
    where it stays when the process is killed, and takes a sixth of a short fine-tuning for it.

    Args:
        function: Becomes a graph when it is first called.
        how: Of `tf.function`.
    """
    import tensorflow as tf

    return tf.function(function, autograph=False, **how)


def as_list(outputs: Any) -> list[Any]:
    """Return a model's outputs as a list: Keras gives an only one without a list around it, at times."""
    return list(outputs) if isinstance(outputs, list | tuple) else [outputs]
