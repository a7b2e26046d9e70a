"""A small convolutional network on pixels, trained from scratch: what transfer learning has to beat."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from onepass.cache.errors import InvalidInputError
from onepass.cache.keras_settings import load_keras
from onepass.cache.memory import scratch
from onepass.classify.heads.base import Head

FILTERS = (32, 64, 128)
PIECE = 512  # rows that are predicted at a time
LAYERS = ("first", "second", "third", "last")


@dataclass(eq=False, repr=False)
class Cnn(Head):
    """Three convolutions with pooling, dropout and softmax, by Adam; Keras runs it.

    Args:
        height, width: Of the images that the rows are (px); 0: they are square.
        epochs: Passes over the rows.
        dropout: Before the last layer, in [0, 1).
        learning_rate: Of Adam.
        batch_size: Rows of a step, about.
        seed: Of first weights, shuffling and dropout.
    """

    kind = "cnn"
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **Head.ARRAYS,
        "first_kernel_": ("sscA", "f"),
        "first_bias_": ("A", "f"),
        "second_kernel_": ("ttAB", "f"),
        "second_bias_": ("B", "f"),
        "third_kernel_": ("ttBE", "f"),
        "third_bias_": ("E", "f"),
        "last_kernel_": ("EK", "f"),
        "last_bias_": ("K", "f"),
    }

    height: int = 0
    width: int = 0
    epochs: int = 8
    dropout: float = 0.4
    learning_rate: float = 1e-3
    batch_size: int = 128
    seed: int = 0

    def fit(self, X: Any, y: Any) -> Self:
        """Train for `epochs`; see `Head.fit`."""
        X, numbers = self.check_training(X, y)
        for weights in self.train(X, numbers, self.epochs):
            self.adopt_weights(weights)
        return self

    def logits(self, X: Any) -> np.ndarray:
        """Return what the last layer gives, (n, K) float32."""
        X = self.check_features(X)
        model = self._model()
        model.set_weights([getattr(self, name) for name in self._names()])
        out = scratch((len(X), len(self.classes_)), np.float32)
        for at in range(0, len(X), PIECE):
            out[at : at + PIECE] = model.predict_on_batch(self._images(X[at : at + PIECE]))
        return out

    def _names(self) -> list[str]:
        return [f"{layer}_{part}_" for layer in LAYERS for part in ("kernel", "bias")]

    def adopt_weights(self, weights: list[np.ndarray]) -> Self:
        """Take over kernels and biases, layer by layer."""
        for name, array in zip(self._names(), weights, strict=True):
            setattr(self, name, array)
        return self

    def _shape(self) -> tuple[int, int, int]:
        """Return height, width and channels of the images that a row of numbers is."""
        numbers = self.n_features_in_
        if self.height and self.width and numbers % (self.height * self.width) == 0:
            return self.height, self.width, numbers // (self.height * self.width)
        for channels in (3, 1):
            side = math.isqrt(numbers // channels)
            if not (self.height or self.width) and side**2 * channels == numbers:
                return side, side, channels
        raise InvalidInputError(
            f"cnn: expected rows of {self.height or 'a square'} × {self.width or 'image'} px, "
            f"received {numbers} numbers"
        )

    def _images(self, X: np.ndarray) -> np.ndarray:
        return (X.astype(np.float32).reshape(-1, *self._shape()) - 127.5) / 64

    def train(self, X: np.ndarray, numbers: np.ndarray, epochs: int) -> Iterator[list[np.ndarray]]:
        """Yield kernels and biases after each epoch; an epoch is a whole number of equal steps.

        Args:
            X: Rows (n, D), checked by `check_training`.
            numbers: Class of each, (n,).
            epochs: How many.
        """
        model = self._model()
        generator = np.random.default_rng(self.seed)
        steps = max(1, round(len(X) / self.batch_size))
        size = len(X) // steps
        for _ in range(epochs):
            order = generator.permutation(len(X))
            for step in range(steps):
                rows = np.sort(order[step * size : (step + 1) * size])
                model.train_on_batch(self._images(X[rows]), numbers[rows])
            yield model.get_weights()

    def _model(self) -> Any:
        load_keras()
        import keras

        shape = self._shape()
        layers, options = keras.layers, {"padding": "same", "activation": "relu"}
        starts = [keras.initializers.GlorotUniform(seed=self.seed + k) for k in range(len(LAYERS))]
        first, second, third = FILTERS
        model = keras.Sequential(
            [
                layers.Input(shape),
                layers.Conv2D(first, 5, 2, kernel_initializer=starts[0], **options),
                layers.MaxPooling2D(padding="same"),
                layers.Conv2D(second, 3, kernel_initializer=starts[1], **options),
                layers.MaxPooling2D(padding="same"),
                layers.Conv2D(third, 3, kernel_initializer=starts[2], **options),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(self.dropout, seed=self.seed),
                layers.Dense(len(self.classes_), kernel_initializer=starts[3]),
            ]
        )
        model.compile(
            optimizer=keras.optimizers.Adam(self.learning_rate),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            jit_compile=keras.backend.backend() == "jax",  # XLA is the slower one on a CPU
        )
        return model
