"""What every head is: a scikit-learn classifier on feature vectors that is stored without code."""

from typing import Any, ClassVar, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from onepass.cache.errors import InvalidInputError
from onepass.cache.memory import scratch
from onepass.classify.heads.float16 import is_finite_float16
from onepass.classify.heads.lazy_rows import LazyRows, Rows, blocks
from onepass.classify.heads.scaler import Scaler
from onepass.classify.metrics import softmax

FLOATS = (np.float64, np.float32, np.float16)  # what X may be; anything else becomes the first


class Head(ClassifierMixin, BaseEstimator):
    """A classifier on feature vectors.

    A subclass gives `fit` and `logits`, and lists in ARRAYS all that it learns.

    Class attributes:
        kind: Its name in the registry and in its file.
        version: Raised when the same inputs would give other numbers than before.
        ARRAYS: Fitted arrays: name → (dimensions, allowed dtype kinds). Equal letters are equal lengths.
        FACTS: Fitted JSON values that are worth keeping, such as the iterations.
        CALIBRATED: Hyper-parameters that a search fits to each trial instead of trying values of them.
    """

    kind: ClassVar[str]
    version: ClassVar[int] = 1
    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {"classes_": ("K", "iufbU")}
    FACTS: ClassVar[tuple[str, ...]] = ("n_features_in_",)
    CALIBRATED: ClassVar[tuple[str, ...]] = ()

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from the rows of X.

        Args:
            X: Finite numbers, array-like of shape (n, D).
            y: Labels, array-like of shape (n,), at least two classes.
        """
        raise NotImplementedError

    def logits(self, X: Any) -> np.ndarray:
        """Return unnormalised log-probabilities (n, K), columns in the order of `classes_`."""
        raise NotImplementedError

    def refit(self, X: np.ndarray, y: np.ndarray) -> "Head":
        """Return a head of the same hyper-parameters, fitted on other rows."""
        return clone(self).fit(X, y)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability of each class, (n, K), columns in the order of `classes_`."""
        scores = self.logits(X)
        return softmax(scores, out=scores)

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row, (n,)."""
        scores = self.logits(X)
        return self.classes_[scores.argmax(axis=1)]

    def with_params(self, **params: Any) -> Self:
        """Return a copy with other hyper-parameters that knows what this head has learnt."""
        other = clone(self).set_params(**params)
        for name, value in vars(self).items():
            if name.endswith("_"):
                setattr(other, name, value)
        return other

    def check_training(self, X: Any, y: Any) -> tuple[Rows, np.ndarray]:
        """Check what is to be fitted on; set `classes_` and `n_features_in_`.

        Whoever gives lazy rows has looked at their numbers.

        Returns:
            X as floats (n, D) and the rows' class numbers, int64 (n,), indices into `classes_`.

        Raises:
            InvalidInputError: There is one class only.
            ValueError: Shapes differ, or X holds NaN or Inf.
        """
        if isinstance(X, LazyRows):
            check_consistent_length(X, y)
            self.n_features_in_ = X.shape[1]
        else:
            X, y = validate_data(
                self, X, y, dtype=FLOATS, ensure_all_finite=not is_finite_float16(X)
            )
        check_classification_targets(y)
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InvalidInputError(
                f"{self.kind}: expected rows of at least two classes, received one class only: "
                f"{self.classes_[0]}"
            )
        return X, numbers

    def check_features(self, X: Any) -> Rows:
        """Return X as floats (n, D) after checking that this fitted head can take it."""
        check_is_fitted(self)
        if isinstance(X, LazyRows) and X.shape[1] == self.n_features_in_:
            return X
        return validate_data(
            self, X, reset=False, dtype=FLOATS, ensure_all_finite=not is_finite_float16(X)
        )


class StandardisedHead(Head):
    """A head that standardises the features inside.

    Attributes:
        mean_, scale_: (D,) float64, of the rows that it was fitted on.
    """

    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **Head.ARRAYS,
        "mean_": ("D", "f"),
        "scale_": ("D", "f"),
    }

    def logits(self, X: Any) -> np.ndarray:
        """Return the logits (n, K): float64 where X is, else float32."""
        X = self.check_features(X)
        kind = np.float64 if X.dtype == np.float64 else np.float32
        scaler = Scaler(self.mean_, self.scale_)
        out = scratch((len(X), len(self.classes_)), kind)
        for block in blocks(X):
            out[block] = self.logits_of(scaler.apply(X[block], kind))
        return out

    def logits_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the logits (n, K) of standardised rows (n, D), in their type."""
        raise NotImplementedError


class LinearHead(StandardisedHead):
    """A head whose logits are linear in the standardised features.

    Attributes:
        weights_: (D, K) float32, for standardised features.
        bias_: (K,) float32.
        classes_: (K,) labels in ascending order.
    """

    ARRAYS: ClassVar[dict[str, tuple[str, str]]] = {
        **StandardisedHead.ARRAYS,
        "weights_": ("DK", "f"),
        "bias_": ("K", "f"),
    }

    def adopt(self, scaler: Scaler, weights: np.ndarray, bias: np.ndarray) -> Self:
        """Take over what was learnt for features that `scaler` standardised."""
        self.mean_, self.scale_ = scaler.mean, scaler.scale
        self.weights_ = np.ascontiguousarray(weights, dtype=np.float32)
        self.bias_ = np.asarray(bias, dtype=np.float32)
        return self

    def logits_of(self, rows: np.ndarray) -> np.ndarray:
        """Return `rows @ weights_ + bias_`."""
        scores = rows @ self.weights_.astype(rows.dtype, copy=False)
        scores += self.bias_
        return scores

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits (n, K); for two classes, (n,): the second's logit less the first's."""
        scores = self.logits(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def linear(self) -> tuple[np.ndarray, np.ndarray]:
        """Return W (D, K) and b (K,), float32, with `logits = X @ W + b` for raw features."""
        check_is_fitted(self)
        weights = self.weights_ / self.scale_[:, None]
        return weights.astype(np.float32), (self.bias_ - self.mean_ @ weights).astype(np.float32)


def brief(params: dict[str, Any]) -> str:
    """Return hyper-parameters as `C=0.003, epochs=7`."""
    return ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in params.items()
    )
