"""Electroluminescence photographs of solar cells, from the Python package elpv-dataset.

Label 0 is functional, label 1 defective (defect probability >= 0.5, as most publications draw the
line). The package's code is not run; only its images and labels.csv are read.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from onepass.cache.errors import CorruptFileError, MissingFileError
from onepass.data.record import SYMMETRIES, DatasetRecord, Origin, PublishedResult
from onepass.data.sources.base import Item, Request, Source, refuse_location
from onepass.data.splits import UNDRAWN

PACKAGE = "elpv-dataset"
CLASS_IDS = ["functional", "defective"]  # in this order, so that label 1 is the defect
DEFECTIVE_FROM = 0.5

RECORD = DatasetRecord(
    title="Solar cells in electroluminescence imagery (ELPV)",
    licence="CC BY-NC-SA 4.0",
    citation=[
        "C. Buerhop-Lutz et al.: A Benchmark for Visual Identification of Defective Solar Cells in "
        "Electroluminescence Imagery. EU PVSEC, 2018. doi:10.4229/35thEUPVSEC20182018-5CV.3.15",
        "S. Deitsch et al.: Automatic classification of defective photovoltaic module cells in "
        "electroluminescence images. Solar Energy 185, 2019. doi:10.1016/j.solener.2019.02.067",
        "S. Deitsch et al.: Segmentation of photovoltaic module cells in uncalibrated electroluminescence "
        "images. Machine Vision and Applications 32, 2021. doi:10.1007/s00138-021-01191-9",
    ],
    published=[
        PublishedResult("SVM on hand-made features", 82.44, "Deitsch et al. 2019, arXiv 1807.02894"),
        PublishedResult("VGG19, fine-tuned", 88.42, "Deitsch et al. 2019, arXiv 1807.02894"),
        PublishedResult("ResNet152 with over-sampling", 90.1, "PMC12391306"),
    ],
    symmetries=list(SYMMETRIES),  # a cell is a square without a top, and so are its defects
)  # fmt: skip

SPLIT_NOTE = (
    "The data set has no split of its own: {fraction:.0%} of the images, stratified by class and type of cell, "
    "seed {seed}, are the validation split. The published results are from other splits of the same size."
)


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Yield the photographs in the order of labels.csv.

    Beside labels there are the arrays `probability` (N,) float32, the annotated probability of a
    defect, and `type`, "mono" or "poly". A split that is drawn is stratified by class and type.

    Raises:
        MissingFileError: The package, or a file of it, is not installed.
        CorruptFileError: labels.csv is not what it should be.
        UsageError: --source was given.
    """
    refuse_location("solar-cells", request)
    folder = _package_folder()
    names, probability, types = _annotations(folder / "labels.csv")
    labels = (probability >= DEFECTIVE_FROM).astype(np.int32)
    items = [
        Item(Path(name).name, int(label), UNDRAWN, (folder / name).read_bytes)
        for name, label in zip(names, labels, strict=True)
    ]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise MissingFileError(
            f"{folder / missing[0]}: no such file ({len(missing)} are missing); "
            f"install the package again: pip install --force-reinstall {PACKAGE}"
        )
    release = version(PACKAGE)
    yield Source(
        kind="solar-cells",
        where=f"{PACKAGE} {release}",
        class_ids=CLASS_IDS,
        class_names=CLASS_IDS,
        items=items,
        origins=[Origin(f"{PACKAGE} {release}")],
        record=RECORD,
        side={"probability": probability, "type": types},
        strata=2 * labels + (np.array(types) == "poly"),
        split_note=SPLIT_NOTE,
    )


def _package_folder() -> Path:
    spec = find_spec(PACKAGE.replace("-", "_"))  # finds a top-level package without running it
    if spec is None or not spec.submodule_search_locations:
        raise MissingFileError(
            f"package {PACKAGE} is not installed; install it with: pip install {PACKAGE}"
        )
    return Path(spec.submodule_search_locations[0]) / "data"


def _annotations(path: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Return file names, defect probabilities (N,) float32 and types of cell, from lines of three words."""
    try:
        lines = [
            line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
        names, probability, types = (list(column) for column in zip(*lines, strict=True))
        values = np.array(probability, dtype=np.float32)
    except FileNotFoundError as error:
        raise MissingFileError(f"{path}: no such file; install {PACKAGE} again") from error
    except ValueError as error:
        raise CorruptFileError(
            f"{path}: expected lines of a path, a probability and a type ({error}); install {PACKAGE} again"
        ) from error
    if not (np.all((values >= 0) & (values <= 1)) and set(types) <= {"mono", "poly"}):
        raise CorruptFileError(
            f"{path}: expected probabilities 0 to 1 and types mono or poly, found others"
        )
    return names, values, types
