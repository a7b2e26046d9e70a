"""scikit-learn's handwritten digits, 8 x 8 px, grey: for tests, where a second is long."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np

from onepass.data.record import DatasetRecord, Origin
from onepass.data.sources.base import Item, Request, Source, refuse_location
from onepass.data.splits import UNDRAWN

RECORD = DatasetRecord(
    title="Optical recognition of handwritten digits (scikit-learn's copy of the test part)",
    licence="CC BY 4.0",
    citation=[
        "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning "
        "Repository, 1998. doi:10.24432/C50P49"
    ],
    notes=[
        "Frozen ImageNet features lose to raw pixels here: good for tests, not for a demonstration."
    ],
    symmetries=[],  # a 6 turned is a 9
)


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Yield the digits, 0 … 16 scaled to 0 … 255.

    Raises:
        UsageError: --source was given.
    """
    from sklearn.datasets import load_digits  # a second to import

    refuse_location("digits", request)
    loaded = load_digits()
    pixels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    labels = loaded.target.astype(np.int32)
    items = [
        Item(f"digit_{row:04d}", int(labels[row]), UNDRAWN, partial(pixels.__getitem__, row))
        for row in range(len(pixels))
    ]
    yield Source(
        kind="digits",
        where="scikit-learn",
        class_ids=[str(digit) for digit in range(10)],
        class_names=[
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
        ],
        items=items,
        origins=[Origin("scikit-learn")],
        record=RECORD,
    )
