"""File names in series, such as patient_07_1.jpg and patient_07_2.jpg: pictures that may show the same thing."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Regular expressions for --group-by, whose first group is what the names of a series share, without folders.
PATTERNS = (
    r"([^/]+)[ _.-]+\(?\d{1,4}\)?(?:\.\w+)?$",  # patient_07_2.jpg, scan (3).png
    r"([^/]*\d)[ _-]*[A-Za-z]{1,10}(?:\.\w+)?$",  # 07b.jpg, cell12_left.png; the png of 07.png is no such word
)
FEWEST = 5  # series; fewer are parts of the data set, such as its cameras
PER_CLASS = 3  # series; fewer are classes, or parts of them
LARGEST = 50  # images of the series in the middle; more are numbers, not pictures of one thing


@dataclass(frozen=True, slots=True)
class Series:
    """How a data set's names are numbered.

    Attributes:
        pattern: Regular expression whose first group is what the names of a series share.
        share: Part of the validation images whose series has training images.
        pair: Such a validation image, and a training image of its series.
    """

    pattern: str
    share: float
    pair: tuple[str, str]


def series_of(name: str, pattern: str) -> str:
    """Return the series of a file name; "" where it is in none."""
    found = re.search(pattern, name)
    return found[1] if found else ""


def parted_series(
    names: Sequence[str], train: np.ndarray, val: np.ndarray, classes: int
) -> Series | None:
    """Return the series that a split parts, where most validation images are in one; None for none.

    Plain numbers (img_0001.jpg, or cat_12.jpg of the class cat) are no series: there would be one for all
    images, or for those of a class.

    Args:
        names: N file names.
        train, val: Rows of the training and the validation split.
        classes: How many classes there are.
    """
    train_names, val_names = ([names[row] for row in rows.tolist()] for rows in (train, val))
    for pattern in PATTERNS:
        first: dict[str, str] = {}
        sizes: Counter[str] = Counter()
        for name in train_names:
            if series := series_of(name, pattern):
                first.setdefault(series, name)
                sizes[series] += 1
        in_series = [name for name in val_names if series_of(name, pattern) in first]
        if 2 * len(in_series) <= len(val_names) or len(sizes) < max(FEWEST, PER_CLASS * classes):
            continue
        if np.median(list(sizes.values())) <= LARGEST:
            pair = in_series[0], first[series_of(in_series[0], pattern)]
            return Series(pattern, len(in_series) / len(val_names), pair)
    return None
