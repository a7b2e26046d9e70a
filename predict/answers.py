"""Files of predictions to hand in: the formats of `onepass predict --format`."""

import numpy as np

from onepass.cache.arrays import pack_arrays
from onepass.cache.csv_text import csv_text
from onepass.cache.errors import InvalidInputError
from onepass.predict.predictor import Prediction

ENDINGS = {"course": ".txt", "kaggle": "-kaggle.csv", "csv": ".csv", "npz": ".npz"}


def encode_answers(prediction: Prediction, form: str, header: tuple[str, ...]) -> bytes:
    """Return the bytes of a file of predictions, one line or element per image, in their order.

    The text formats are UTF-8. In "csv" a name that a spreadsheet would run as a formula, such as
    `=1+1.png`, gets a ' in front; "kaggle" and "course" have names and ids as they are. The arrays of "npz": names (n,) file names, rows (n,) row numbers of the
    data set, classes (n,) ids of the most probable class, class_ids (K,) of each column, probabilities
    (n, K) float32.

    Args:
        prediction: Of n images.
        form: "course", "kaggle", "csv" or "npz".
        header: The two column names of "kaggle".

    Raises:
        InvalidInputError: A name holds a space, and "course" separates its columns by one.
    """
    ids = [prediction.class_ids[k] for k in prediction.classes]
    if form == "npz":
        return _arrays(prediction, ids)
    if form == "course":
        text = _course(prediction.names, ids)
    elif form == "kaggle":  # compared with the names that Kaggle has, not opened in a spreadsheet
        text = csv_text(header, zip(prediction.names, ids, strict=True), exact=True)
    else:
        words = [prediction.class_names[k] for k in prediction.classes]
        shares = [f"{share:.6f}" for share in prediction.probabilities.max(axis=1)]
        columns = ("file", "class_id", "class_name", "probability")
        text = csv_text(columns, zip(prediction.names, ids, words, shares, strict=True))
    return text.encode()


def _arrays(prediction: Prediction, ids: list[str]) -> bytes:
    return pack_arrays(
        {
            "names": np.array(prediction.names),
            "rows": np.asarray(prediction.rows, np.int64),
            "classes": np.array(ids),
            "class_ids": np.array(prediction.class_ids),
            "probabilities": prediction.probabilities.astype(np.float32),
        }
    )


def _course(names: list[str], ids: list[str]) -> str:
    for text in (*names, *ids):
        if len(text.split()) != 1:
            raise InvalidInputError(
                f"--format course separates name and class by a space, but {text!r} is not one word; "
                "use --format csv"
            )
    return "".join(f"{name} {identity}\n" for name, identity in zip(names, ids, strict=True))
