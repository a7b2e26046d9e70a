"""Data sets that TensorFlow Datasets has made on this machine: tfds://NAME, or the folder of one version.

Its files are read by the library; a data set's own code is not run, and nothing is downloaded.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onepass.cache.errors import CorruptFileError, MissingFileError, UsageError
from onepass.data.sources.base import Request, Source
from onepass.data.sources.table import TableFile, open_tables
from onepass.data.tables import ImageColumn, Table, check_count, check_names

ADDRESS = "tfds://"
INFO, FEATURES = "dataset_info.json", "features.json"


def recognises(place: str) -> bool:
    """Tell whether a place is of this kind."""
    return place.startswith(ADDRESS) or (Path(place).expanduser() / FEATURES).is_file()


@contextmanager
def open_sources(requests: Sequence[Request]) -> Iterator[Source]:
    """Yield the images of all splits.

    Raises:
        MissingFileError: It was not made here, or the library is not installed.
        UsageError: No data set is named, or it has no feature of images or labels.
        OnepassError: A file of it is damaged.
    """
    request = requests[0]
    if len(requests) > 1 or not request.source or request.digest:
        raise UsageError("tensorflow-datasets: expected one folder or tfds://NAME, and no --digest")
    folder = _folder(request.source)
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise MissingFileError(
            f"{folder}: needs the library; install it with: pip install tensorflow-datasets"
        ) from error
    with _reading(folder):
        builder = tfds.builder_from_directory(str(folder))
        splits = [name for name, split in builder.info.splits.items() if split.num_examples]
    if not splits:
        raise CorruptFileError(f"{folder / INFO}: expected a split with examples, found none")
    files = [TableFile(folder / INFO, split, split) for split in splits]
    with open_tables(
        "tensorflow-datasets", files, request, builder.name, lambda file: _table(builder, file)
    ) as source:
        yield source


def _folder(place: str) -> Path:
    """Return the folder of a data set's newest version."""
    if not place.startswith(ADDRESS):
        return Path(place).expanduser()
    name = place.removeprefix(ADDRESS).strip("/")
    home = Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")
    is_plain = all(re.fullmatch(r"\w[\w.-]*", word) for word in name.split("/"))
    patterns = (FEATURES, f"*/{FEATURES}", f"*/*/{FEATURES}") if is_plain else ()
    found = [path.parent for pattern in patterns for path in (home / name).glob(pattern)]
    if not found:
        raise MissingFileError(
            f"{place}: not in {home}; where there is a network: "
            f'python -c "import tensorflow_datasets as t; t.builder({name!r}).download_and_prepare()"'
        )
    if len({path.parent for path in found}) > 1:
        shown = ", ".join(sorted({path.parent.name for path in found}))
        raise UsageError(f"{place}: expected one configuration, found {shown}; add /CONFIGURATION")
    return max(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])


def _table(builder: Any, file: TableFile) -> Table:
    """Return a split as a table: what it says of the images is read at once, they themselves in order."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    rows = builder.info.splits[file.split].num_examples
    images = [
        name for name, feature in features.items() if isinstance(feature, tfds.features.Image)
    ]
    plain = [
        name
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Scalar | tfds.features.ClassLabel | tfds.features.Text)
    ]
    check_count(file.path, rows)
    check_names(file.path, [*features])
    cells: dict[str, list] = {name: [] for name in plain}
    for example in _examples(builder, file, plain) if plain else ():
        for name in plain:
            value = example[name]
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value.item()
            cells[name].append(text)

    def encoded(name: str) -> Iterator[bytes | None]:
        return (example[name] for example in _examples(builder, file, [name]))

    def image_column(name: str) -> ImageColumn:
        size = builder.info.splits[file.split].num_bytes
        return ImageColumn([None] * rows, lambda: encoded(name), size)

    return Table(
        file.path,
        plain,
        cells.__getitem__,
        lambda row: f"row {row + 1}",
        {name: lambda name=name: image_column(name) for name in images},  # type: ignore[misc]
        {n: list(features[n].names) for n in plain if getattr(features[n], "names", None)},
        [name for name in features if name not in (*plain, *images)],
    )


def _examples(builder: Any, file: TableFile, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield some features of each example in the order of the files; images as they are encoded."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    raw = {
        n: tfds.decode.SkipDecoding() for n in names if isinstance(features[n], tfds.features.Image)
    }
    with _reading(file.path.parent):
        yield from tfds.as_numpy(
            builder.as_dataset(
                file.split,
                decoders=tfds.decode.PartialDecoding(
                    dict.fromkeys(names, True), decoders=raw or None
                ),
                read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False),
            )
        )


@contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Raise what the library meets in damaged files as an error that names their folder."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise CorruptFileError(
            f"{folder}: expected a whole data set of TensorFlow's ({reason})"
        ) from error
