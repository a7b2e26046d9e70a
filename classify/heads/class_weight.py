"""Classes that count the same while a head learns, however rare they are.

A head that learns from weighted rows gives probabilities for a mix in which every class is equally frequent.
They are brought back to the mix of the training rows by the rule of Saerens, Latinne and Decaestecker
("Adjusting the outputs of a classifier to new a priori probabilities", Neural Computation 14, 2002, equation
2.4): each is multiplied by the ratio of the priors, which is one over the weight, and they are divided by their sum.
"""

import numpy as np

from onepass.cache.errors import InvalidInputError

CLASS_WEIGHTS = (None, "balanced", "uncorrected")


def class_weights(class_weight: str | None, numbers: np.ndarray, classes: int) -> np.ndarray | None:
    """Return what a row of each class counts, (K,) float64, one on average over the rows; None: all alike.

    Args:
        class_weight: None, "balanced", or "uncorrected": the same, but probabilities are left as they come.
        numbers: Class of each row, (n,); each of the classes is there.
        classes: K.

    Raises:
        InvalidInputError: It is another word.
    """
    if class_weight not in CLASS_WEIGHTS:
        raise InvalidInputError(
            f"class_weight: expected one of {CLASS_WEIGHTS}, received {class_weight!r}"
        )
    if class_weight is None:
        return None
    return len(numbers) / (classes * np.bincount(numbers, minlength=classes))


def log_prior(class_weight: str | None, weights: np.ndarray | None) -> np.ndarray:
    """Return what the logits of a head that learnt with these weights lack for the training mix.

    (K,) float64, to be added; () where nothing is lacking or is to be corrected.
    """
    if weights is None or class_weight == "uncorrected":
        return np.zeros(())
    return -np.log(weights)
