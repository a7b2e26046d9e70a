"""How the classes fare on the reported rows, and which are mixed up."""

import numpy as np

from onepass.classify.analysis.inspection_records import ClassReport, Confusion
from onepass.classify.metrics import confused_pairs, confusion_matrix
from onepass.data.dataset import ImageDataset


def class_reports(
    dataset: ImageDataset, train_predicted: np.ndarray, val_predicted: np.ndarray
) -> tuple[ClassReport, ...]:
    """Return how each class fares, the worst on the reported rows first.

    Args:
        dataset: Gives the labels.
        train_predicted: (n,) class of each training row, by a head that has not seen it.
        val_predicted: (m,) class of each reported row.
    """
    classes = len(dataset.class_ids)
    train, val = (dataset.labels[dataset.rows(name)] for name in ("train", "val"))
    matrix = confusion_matrix(val, val_predicted, classes)
    wrong = matrix - np.diag(np.diag(matrix))
    train_rows, val_rows = np.bincount(train, minlength=classes), matrix.sum(axis=1)
    right = np.bincount(train[train_predicted == train], minlength=classes)
    found = [
        ClassReport(
            label=k,
            id=dataset.class_ids[k],
            name=dataset.class_names[k],
            train_rows=int(train_rows[k]),
            val_rows=int(val_rows[k]),
            train_accuracy=float(right[k] / train_rows[k]),
            val_accuracy=float(matrix[k, k] / val_rows[k]) if val_rows[k] else None,
            taken_for=int(wrong[k].argmax()) if wrong[k].any() else None,
        )
        for k in range(classes)
    ]
    return tuple(sorted(found, key=lambda c: (c.val_accuracy is None, c.val_accuracy, c.label)))


def confusions(dataset: ImageDataset, val_predicted: np.ndarray, top: int) -> tuple[Confusion, ...]:
    """Return the pairs of classes that are most often mixed up on the reported rows."""
    classes = len(dataset.class_ids)
    matrix = confusion_matrix(dataset.labels[dataset.rows("val")], val_predicted, classes)
    size = matrix.sum(axis=1)
    return tuple(
        Confusion(a, b, int(matrix[a, b]), int(matrix[b, a]), float(both / (size[a] + size[b])))
        for a, b, both in confused_pairs(matrix, top, symmetric=True)
    )
