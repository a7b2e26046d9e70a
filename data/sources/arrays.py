"""Images and labels that are arrays: an `.npz` file, or a data set that scikit-learn or Keras keeps on this machine.

images, labels                                         of several usual names, such as x and y
train_images, train_labels, val_images, …              as MedMNIST has them
x_train, y_train, x_test, y_test                       as Keras has them
class_names                                            where there are names for labels 0, 1, …
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from onepass.cache.arrays import read_arrays
from onepass.cache.errors import (
    InvalidInputError,
    MissingFileError,
    UsageError,
    refused_by_system,
    unreadable,
)
from onepass.cache.provenance import digest_array
from onepass.data.layout import split_of
from onepass.data.record import Origin
from onepass.data.sources.base import Request, Source, own_name
from onepass.data.sources.tabular import Rows, source_of

IMAGES = ("images", "image", "x", "data", "imgs", "arr_0")
LABELS = ("labels", "label", "y", "target", "targets", "arr_1")
CLASS_NAMES = ("class_names", "target_names", "label_names", "classes")
PACKAGES = ("sklearn://", "keras://")


def recognises(place: str) -> bool:
    """Tell whether a place is of this kind."""
    return place.lower().endswith(".npz") or place.startswith(PACKAGES)


@contextmanager
def open_source(request: Request) -> Iterator[Source]:
    """Yield the images of the arrays, those of the training split first.

    Raises:
        UsageError: No file is named.
        InvalidInputError: The arrays are not images (N, height, width[, channels]) with N labels.
        MissingFileError: There is no such file, or it has to be downloaded first.
    """
    if not request.source or request.digest:
        raise UsageError("arrays: expected the path of an .npz on this machine, and no --digest")
    where, arrays = _load(request.source)
    parts = _pairs(where, arrays)
    names = next((arrays[name] for name in CLASS_NAMES if name in arrays), np.zeros(0, "U1"))
    yield source_of(
        "arrays",
        [
            _rows(where, split, images, labels, [str(name) for name in names.tolist()])
            for split, (images, labels) in parts.items()
        ],
        name=own_name(Path(request.source)),
        origins=[Origin(where, digest_array(next(iter(parts.values()))[0]))],
    )


def _load(place: str) -> tuple[str, Mapping[str, np.ndarray]]:
    """Return what an error calls the arrays, and the arrays by name."""
    package, mark, name = place.partition("://")
    if mark and package == "sklearn":
        return place, _scikit_learn(name)
    path = Path(place).expanduser()
    if mark:
        home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
        path = home / "datasets" / f"{name}.npz"
        if not path.is_file():
            raise MissingFileError(
                f"{place}: expected {path}; Keras has to download it first (keras.datasets.{name}.load_data()), and "
                "data sets that it keeps as pickles are not read"
            )
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file")
    try:
        return str(path.resolve()), read_arrays(path)
    except ValueError as error:
        raise InvalidInputError(f"{path}: {error}") from error
    except OSError as error:
        if refused_by_system(error):
            raise unreadable(path, error) from error
        raise


def _scikit_learn(name: str) -> Mapping[str, np.ndarray]:
    """Return a data set of images from scikit-learn's folder of downloads."""
    from sklearn import datasets

    if name == "digits":
        raise UsageError("sklearn://digits is known by name: onepass data prepare digits")
    try:
        found = getattr(datasets, f"fetch_{name}")(download_if_missing=False)
        return {"images": found.images, "labels": found.target, "class_names": np.array(getattr(found, "target_names", []))}  # fmt: skip
    except (AttributeError, TypeError) as error:  # as of fetch_openml, which fetches anything
        raise InvalidInputError(
            f"sklearn://{name}: expected a data set of images, such as olivetti_faces"
        ) from error
    except OSError as error:
        raise MissingFileError(
            f"sklearn://{name}: scikit-learn has to download it first (sklearn.datasets.fetch_{name}())"
        ) from error


def _pairs(
    where: str, arrays: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images and labels by split, "" where the names say none."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        words = name.casefold().split("_")
        split = next((split for word in words if (split := split_of(word))), "")
        rest = "_".join(word for word in words if not split_of(word)) if split else name.casefold()
        for kind, usual in (("images", IMAGES), ("labels", LABELS)):
            if rest in usual:
                found.setdefault(split, {}).setdefault(kind, array)
    pairs = {
        split: (found[split]["images"], found[split]["labels"])
        for split in ("train", "val", "test", "")
        if found.get(split, {}).keys() == {"images", "labels"}
    }
    if not pairs:
        shown = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:6])
        raise InvalidInputError(
            f"{where}: expected arrays images and labels (or x_train, y_train, …), found {shown or 'none'}"
        )
    return pairs


def _rows(where: str, split: str, images: np.ndarray, labels: np.ndarray, names: list[str]) -> Rows:
    """Return the images of a split."""
    at = f"{where}: {split} images".replace(":  ", ": ")
    pixels = _as_pixels(at, images)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.shape != (len(pixels),):
        raise InvalidInputError(
            f"{at}: expected one label each, {len(pixels):,}, found an array {labels.shape}"
        )
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    start = f"{split}/" if split else ""
    return Rows(
        where=where,
        names=[f"{start}{row:07d}" for row in range(len(pixels))],
        read=lambda row: pixels[row],
        place=lambda row: f"{split} row {row}".strip(),
        cells={"label": labels.tolist(), "split": [split] * len(pixels)},
        classes=names if labels.dtype.kind in "iu" else [],
    )


def _as_pixels(at: str, images: np.ndarray) -> np.ndarray:
    """Return images as (N, H, W) or (N, H, W, 3 or 4) uint8; numbers 0 to 1 become 0 to 255."""
    if images.ndim == 4 and images.shape[-1] not in (1, 3, 4) and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (3, 4)) or 0 in images.shape:  # fmt: skip
        raise InvalidInputError(
            f"{at}: expected (N, height, width) or (N, height, width, 3), found {images.shape}"
        )
    if images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return np.rint(images * 255).astype(np.uint8)
    if images.dtype.kind in "iuf" and low >= 0 and high <= 255:
        return np.rint(images).astype(np.uint8)
    raise InvalidInputError(
        f"{at}: expected numbers 0 to 255 (uint8) or 0 to 1, found {images.dtype} {low} to {high}"
    )
