"""One compiled training step, on TensorFlow or JAX."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from onepass.extract.backend import of_backend, on_accelerator, tensorflow_graph
from onepass.finetune.augmentation import mixed_targets
from onepass.finetune.training.model import Trainer
from onepass.finetune.training.optimizer import LayerwiseAdam, LayerwiseSGD
from onepass.finetune.training.parallel import Sharing, divided_like, local

Draws = dict[str, np.ndarray]


class TrainStep:
    """Forward, backward and update as one graph of fixed shape.

    Call it with uint8 (B, H, W, C), int32 (B,) labels and what `onepass.finetune.augmentation.draw` drew; it
    returns the mean loss and the number of right answers as device scalars, possibly still being
    computed; of a mixed image, right is the class of its larger part. Call `sync` before reading the model's or
    the optimiser's variables, and `forget` after writing them.

    Args:
        trainer: Built.
        optimizer: Of its trainable variables.
        smoothing: Of the labels.
        parts: Into how many the batch is cut where the device's memory does not hold it; their
            gradients are added up, so that the step is that of the whole batch.
        devices: How many share each part; see `onepass.finetune.training.parallel.devices_for`.
        stored: Whether it is called with what the frozen layers made of the images, in place of pixels.
        class_weights: What an image of each class counts, (K,), one on average over the images; None: all alike.
            The loss is that of the mix which the weights make, and the logits remain those of the training mix: the
            weights' logarithms are added to them for the loss alone (`onepass.classify.heads.class_weight`).
    """

    def __init__(
        self, trainer: Trainer, optimizer: LayerwiseAdam | LayerwiseSGD,
        smoothing: float = 0.0, parts: int = 1, devices: int = 1,
        class_weights: np.ndarray | None = None, stored: bool = False,
    ) -> None:  # fmt: skip
        self.trainer, self.optimizer, self.stored = trainer, optimizer, stored
        self.smoothing, self.parts, self.devices = smoothing, parts, devices
        self.class_weights = (
            None if class_weights is None else np.asarray(class_weights, np.float32)
        )
        if not optimizer.built:
            optimizer.build(trainer.trainable_variables)
        self._state: Any = None
        self._step = of_backend(self._for_tensorflow, self._for_jax)()

    def __call__(self, pixels: Any, labels: Any, draws: Draws) -> tuple[Any, Any]:
        return self._step(pixels, labels, draws)

    def sync(self) -> None:
        """Write what JAX keeps outside the model back into its variables."""
        if self._state is None:
            return
        for variables, values in zip(self._variables(), self._state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(local(value))

    def forget(self) -> None:
        """Take the variables as they are from the next step on."""
        self._state = None

    def _variables(self) -> tuple[list, list, list]:
        t = self.trainer
        return t.trainable_variables, t.non_trainable_variables, self.optimizer.variables

    def _images(self, pixels: Any, labels: Any, draws: Any) -> tuple[Any, Any]:
        """Return images and targets of the whole batch: it is mixed before it is cut."""
        classes = self.trainer.top.head.units
        targets = mixed_targets(labels, classes, draws, self.smoothing)
        return pixels if self.stored else self.trainer.augment([pixels, draws]), targets

    def _logits(self, images: Any) -> Any:
        trainer = self.trainer
        return (trainer.logits_of_maps if self.stored else trainer.logits)(images, training=True)

    def _loss_and_correct(self, targets: Any, logits: Any) -> tuple[Any, Any]:
        right = ops.equal(ops.argmax(logits, -1), ops.argmax(targets, -1))
        weights, each = self.class_weights, 1.0
        if weights is not None:
            mixed = (targets - self.smoothing / len(weights)) / (1 - self.smoothing)
            each, logits = ops.matmul(mixed, weights), logits + np.log(weights)
        losses = keras.losses.categorical_crossentropy(targets, logits, from_logits=True)
        return ops.mean(each * losses), ops.sum(ops.cast(right, "int32"))

    def _part(self, arrays: tuple[Any, Any], index: int) -> tuple[Any, ...]:
        count = arrays[0].shape[0] // self.parts
        return tuple(array[index * count : (index + 1) * count] for array in arrays)

    def _for_tensorflow(self) -> Callable[..., tuple[Any, Any]]:
        import tensorflow as tf

        trainer, optimizer = self.trainer, self.optimizer
        variables = trainer.trainable_variables

        def gradients(images: Any, targets: Any) -> tuple[Any, Any, Any]:
            with tf.GradientTape() as tape:
                logits = self._logits(images)
                loss, correct = self._loss_and_correct(targets, logits)
            return loss, correct, tape.gradient(loss, variables)

        def step(pixels: Any, labels: Any, draws: Any) -> tuple[Any, Any]:
            loss, correct, found = gradients(*self._images(pixels, labels, draws))
            optimizer.apply(found, variables)
            return loss, correct

        fast = on_accelerator()
        if self.parts == 1:
            whole = tensorflow_graph(step, jit_compile=fast)
            return lambda *arrays: whole(*tf.nest.map_structure(tf.convert_to_tensor, arrays))
        prepare = tensorflow_graph(self._images)
        part = tensorflow_graph(gradients, jit_compile=fast)
        update = tensorflow_graph(lambda found: optimizer.apply(found, variables))

        def in_parts(*arrays: Any) -> tuple[Any, Any]:
            images = prepare(*tf.nest.map_structure(tf.convert_to_tensor, arrays))
            loss, correct, total = part(*self._part(images, 0))
            for index in range(1, self.parts):
                more, right, found = part(*self._part(images, index))
                loss, correct = loss + more, correct + right
                total = [a + b for a, b in zip(total, found, strict=True)]
            update([g / self.parts for g in total])
            return loss / self.parts, correct

        return in_parts

    def _for_jax(self) -> Callable[..., tuple[Any, Any]]:
        import jax

        trainer, optimizer, sharing = self.trainer, self.optimizer, Sharing(self.devices)

        def loss_of(trained: Any, fixed: Any, images: Any, targets: Any) -> Any:
            mapping = [*zip(trainer.trainable_variables, trained, strict=True),
                       *zip(trainer.non_trainable_variables, fixed, strict=True)]  # fmt: skip
            with keras.StatelessScope(mapping) as scope:
                logits = self._logits(images)
            fixed = [scope.get_current_value(v) for v in trainer.non_trainable_variables]
            loss, correct = self._loss_and_correct(targets, logits)
            return loss, (correct, fixed)

        prepare = sharing.compile(self._images, divided=True)
        part = sharing.compile(jax.value_and_grad(loss_of, has_aux=True))
        update = sharing.compile(optimizer.stateless_apply)

        def step(state: Any, *arrays: Any) -> Any:
            trained, fixed, memory = state
            images = prepare(*arrays)
            count = images[0].shape[0] // self.parts
            total: Any = None
            loss = correct = 0
            for index in range(self.parts):
                shared = sharing.divide(self._part(images, index), count)
                (more, (right, fixed)), found = part(trained, fixed, *shared)
                loss, correct = loss + more, correct + right
                total = (
                    found if total is None else [a + b for a, b in zip(total, found, strict=True)]
                )
            if self.parts > 1:
                total = [gradient / self.parts for gradient in total]
            trained, memory = update(memory, total, trained)
            return loss / self.parts, correct, (trained, fixed, memory)

        whole = sharing.compile(step) if self.parts == 1 else step

        def run(*arrays: Any) -> tuple[Any, Any]:
            if self._state is None:
                values = tuple([v.value for v in variables] for variables in self._variables())
                self._state = sharing.copy(values)
            arrays = sharing.divide(arrays, arrays[0].shape[0])
            loss, correct, self._state = whole(self._state, *arrays)
            return loss, correct

        return run


class EvalStep:
    """uint8 (B, H, W, C) → logits (B, K) by the predictor as its variables are at each call."""

    def __init__(self, predictor: keras.Model) -> None:
        self.predictor = predictor
        self._step = of_backend(self._for_tensorflow, self._for_jax)()

    def __call__(self, pixels: np.ndarray) -> Any:
        return self._step(pixels)

    def _for_tensorflow(self) -> Callable[[Any], Any]:
        import tensorflow as tf

        step = tensorflow_graph(
            lambda pixels: self.predictor(pixels, training=False), jit_compile=on_accelerator()
        )
        return lambda pixels: step(tf.convert_to_tensor(pixels))

    def _for_jax(self) -> Callable[[Any], Any]:
        import jax

        predictor = self.predictor
        step = jax.jit(lambda t, n, x: predictor.stateless_call(t, n, x, training=False)[0])

        def run(pixels: np.ndarray) -> Any:
            groups = predictor.trainable_variables, predictor.non_trainable_variables
            trained, fixed = ([v.value for v in group] for group in groups)
            return step(trained, fixed, divided_like([*trained, *fixed][0], pixels))

        return run


@contextmanager
def averaged(trainer: Trainer, optimizer: LayerwiseAdam | LayerwiseSGD) -> Any:
    """Put the averaged weights into the model for a while, where there are any."""
    variables = trainer.trainable_variables if optimizer.averages else []
    kept = [keras.ops.copy(v.value) for v in variables]
    for variable, average in zip(variables, optimizer.averages, strict=True):
        variable.assign(average)
    try:
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
