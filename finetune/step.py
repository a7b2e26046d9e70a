"""One compiled training step, on TensorFlow or JAX."""

from typing import Any

import keras
import numpy as np
from keras import ops

from cache.errors import InvalidInputError
from finetune.augment import mixed_targets


def _loss_and_correct(labels: Any, draws: dict, logits: Any) -> tuple[Any, Any]:
    targets = mixed_targets(labels, logits.shape[-1], draws)
    loss = ops.mean(keras.losses.categorical_crossentropy(targets, logits, from_logits=True))
    correct = ops.sum(
        ops.cast(ops.equal(ops.argmax(logits, -1), ops.cast(labels, "int64")), "int32")
    )
    return loss, correct


class TrainStep:
    """Forward, backward and update as one graph of fixed shape.

    Call it with uint8 (B, H, W, C), int32 (B,) labels and what
    `finetune.augmentation.draw` drew; it returns the mean loss
    and the number of right answers as device scalars, possibly still being computed. Call `sync`
    before reading the model's or the optimiser's variables.
    """

    def __init__(self, trainer: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        self.trainer, self.optimizer = trainer, optimizer
        optimizer.build(trainer.trainable_variables)
        backend = keras.backend.backend()
        makers = {"tensorflow": self._for_tensorflow, "jax": self._for_jax}
        if backend not in makers:
            raise InvalidInputError(f"KERAS_BACKEND={backend}: expected tensorflow or jax")
        self._state: Any = None
        self._step = makers[backend]()

    def __call__(
        self, pixels: np.ndarray, labels: np.ndarray, draws: dict[str, np.ndarray]
    ) -> tuple[Any, Any]:
        return self._step(pixels, labels, draws)

    def sync(self) -> None:
        """Write what JAX keeps outside the model back into its variables."""
        if self._state is None:
            return
        for variables, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _variables(self) -> tuple[list, list, list]:
        t = self.trainer
        return t.trainable_variables, t.non_trainable_variables, self.optimizer.variables

    def _for_tensorflow(self) -> Any:
        import tensorflow as tf

        trainer, optimizer = self.trainer, self.optimizer

        @tf.function
        def step(pixels: Any, labels: Any, draws: Any) -> tuple[Any, Any]:
            with tf.GradientTape() as tape:
                logits = trainer([pixels, draws], training=True)
                loss, correct = _loss_and_correct(labels, draws, logits)
            gradients = tape.gradient(loss, trainer.trainable_variables)
            optimizer.apply(gradients, trainer.trainable_variables)
            return loss, correct

        return lambda *arrays: step(*tf.nest.map_structure(tf.convert_to_tensor, arrays))

    def _for_jax(self) -> Any:
        import jax

        trainer, optimizer = self.trainer, self.optimizer

        def loss_of(trained: Any, fixed: Any, pixels: Any, labels: Any, draws: Any) -> Any:
            logits, fixed = trainer.stateless_call(trained, fixed, [pixels, draws], training=True)
            loss, correct = _loss_and_correct(labels, draws, logits)
            return loss, (correct, fixed)

        @jax.jit
        def step(state: Any, *arrays: Any) -> Any:
            trained, fixed, memory = state
            gradient = jax.value_and_grad(loss_of, has_aux=True)
            (loss, (correct, fixed)), gradients = gradient(trained, fixed, *arrays)
            trained, memory = optimizer.stateless_apply(memory, gradients, trained)
            return loss, correct, (trained, fixed, memory)

        def run(*arrays: Any) -> tuple[Any, Any]:
            if self._state is None:
                self._state = tuple([v.value for v in variables] for variables in self._variables())
            loss, correct, self._state = step(self._state, *arrays)
            return loss, correct

        return run
