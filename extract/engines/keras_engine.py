"""Keras itself: TensorFlow's graphs, or JAX through XLA."""

from typing import Any

import keras

from onepass.extract.backend import Step, as_list, of_backend, on_accelerator, tensorflow_graph


def compile_step(model: keras.Model, batch: int) -> Step:
    """Compile the model for one fixed batch shape.

    TensorFlow on a CPU runs its graph with oneDNN; XLA is an order of magnitude slower there and
    only used on an accelerator. JAX always compiles through XLA.

    Args:
        model: uint8 (B, H, W, C), and for a random view boxes (B, 5) float32 → arrays.
        batch: Images a call, always the same.

    Returns:
        A function of the model's inputs as arrays, to device arrays that may still be being computed;
        `numpy.asarray` waits for them.
    """
    return of_backend(lambda: _tensorflow_step(model, batch), lambda: _jax_step(model))()


def _tensorflow_step(model: keras.Model, batch: int) -> Step:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((batch, *i.shape[1:]), i.dtype) for i in model.inputs]
    traced = tensorflow_graph(
        lambda *inputs: model(inputs if len(inputs) > 1 else inputs[0], training=False),
        input_signature=signature,
        jit_compile=on_accelerator(),
    )
    if on_accelerator():
        return lambda *inputs: as_list(traced(*map(tf.convert_to_tensor, inputs)))
    # With the weights as constants the graph optimiser joins convolutions with what follows them.
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function())
    return lambda *inputs: as_list(frozen(*map(tf.convert_to_tensor, inputs)))


def _jax_step(model: keras.Model) -> Step:
    import jax

    trained = [v.value for v in model.trainable_variables]
    fixed = [v.value for v in model.non_trainable_variables]
    device = next(iter((trained + fixed)[0].devices()), None) if trained or fixed else None

    @jax.jit
    def run(t: Any, n: Any, *inputs: Any) -> Any:
        return model.stateless_call(t, n, inputs if len(inputs) > 1 else inputs[0], training=False)[
            0
        ]

    return lambda *inputs: as_list(
        run(trained, fixed, *(jax.device_put(x, device) for x in inputs))
    )
