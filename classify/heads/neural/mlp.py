"""Two dense layers behind dropout: the second head of De (2020)."""

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from onepass.classify.heads.neural.trained_head import TrainedHead
from onepass.classify.heads.scaler import Scaler


@dataclass(eq=False, repr=False)
class Mlp(TrainedHead):
    """Dropout, dense (ReLU), dropout, dense (softmax) on standardised features.

    The defaults of dropout are those of De (2020), who does not say how wide the first layer is.

    Args:
        dropout: Share of the features that each step drops, in [0, 1).
        hidden_dropout: The same of the first layer's outputs.
        hidden: Outputs of the first layer.
        The others: As in `TrainedHead`.

    Attributes:
        hidden_weights_, hidden_bias_: (D, M) and (M,) float32, for standardised features.
        weights_, bias_: (M, K) and (K,) float32.
        classes_: (K,) labels in ascending order.
    """

    kind = "mlp"
    version = 2
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **TrainedHead.ARRAYS,
        "hidden_weights_": ("DM", "f"),
        "hidden_bias_": ("M", "f"),
        "weights_": ("MK", "f"),
        "bias_": ("K", "f"),
    }

    dropout: float = 0.65
    hidden_dropout: float = 0.25
    hidden: int = 512

    def layers(self) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """See `TrainedHead.layers`."""
        return (self.hidden,), (self.dropout, self.hidden_dropout)

    def adopt_arrays(self, scaler: Scaler, arrays: list[np.ndarray]) -> Self:
        """See `TrainedHead.adopt_arrays`."""
        self.mean_, self.scale_ = scaler.mean, scaler.scale
        self.hidden_weights_, self.hidden_bias_, self.weights_, self.bias_ = arrays
        return self

    def logits_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits (n, K) of standardised rows (n, D), in their type."""
        hidden = rows @ self.hidden_weights_.astype(rows.dtype, copy=False) + self.hidden_bias_
        scores = np.maximum(hidden, 0) @ self.weights_.astype(rows.dtype, copy=False)
        scores += self.bias_
        return scores
