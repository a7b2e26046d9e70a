"""Data sets of Hugging Face's library `datasets`: a folder of save_to_disk, or one it has downloaded (hf://NAME).

Its Arrow files are read, its code is not run, and nothing is downloaded.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onepass.cache.errors import CorruptFileError, InvalidInputError, MissingFileError, UsageError
from onepass.cache.files import read_json
from onepass.data.sources.base import Request, Source, own_name
from onepass.data.sources.table import TableFile, open_tables

ADDRESS = "hf://"
SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def recognises(place: str) -> bool:
    """Tell whether a place is of this kind."""
    path = Path(place).expanduser()
    return place.startswith(ADDRESS) or any((path / name).is_file() for name in (SPLITS, STATE))


@contextmanager
def open_sources(requests: Sequence[Request]) -> Iterator[Source]:
    """Yield the images of all splits.

    Raises:
        MissingFileError: It was not downloaded, or a file is missing.
        UsageError: No data set is named, or it has no column of images or labels.
        OnepassError: A file of it is damaged.
    """
    request = requests[0]
    if len(requests) > 1 or not request.source or request.digest:
        raise UsageError("hugging-face: expected one folder or hf://NAME, and no --digest")
    place = request.source
    if place.startswith(ADDRESS):
        name = place.removeprefix(ADDRESS).strip("/")
        folder = _downloaded(name)
        files = _files_of_cache(folder)
        name = name.split("/")[-1]
    else:
        folder = Path(place).expanduser()
        files, name = _saved(folder), own_name(folder)
    if not files:
        raise MissingFileError(f"{folder}: expected Arrow files, found none")
    with open_tables("hugging-face", files, request, name) as source:
        yield source


def _saved(folder: Path) -> list[TableFile]:
    """Return the files of a folder that save_to_disk wrote, of one split or of several."""
    if not (folder / SPLITS).is_file():
        return _files_of_split(folder, "")
    try:
        names = [str(name) for name in read_json(folder / SPLITS)["splits"]]
    except (TypeError, LookupError) as error:
        raise CorruptFileError(f"{folder / SPLITS}: expected a list of splits") from error
    return [file for name in names for file in _files_of_split(_inside(folder, name), name)]


def _files_of_split(folder: Path, split: str) -> list[TableFile]:
    try:
        names = [str(file["filename"]) for file in read_json(folder / STATE)["_data_files"]]
    except (TypeError, LookupError) as error:
        raise CorruptFileError(f"{folder / STATE}: expected a list of files") from error
    return [TableFile(_inside(folder, name), split, split) for name in names]


def _inside(folder: Path, name: str) -> Path:
    """Return a file or folder in a folder; a name that leads out of it is refused."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise InvalidInputError(f"{folder}: refused as unsafe: {name!r} leads out of it")
    return folder / name


def _downloaded(name: str) -> Path:
    """Return the folder of a data set in the library's cache: the newest, of the one configuration that there is."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")
    words = name.split("/")
    found: list[Path] = []
    for count in (2, 1):  # user/name[/configuration], or name[/configuration]
        if len(words) >= count and all(re.fullmatch(r"\w[\w.-]*", word) for word in words):
            inside = cache / "___".join([*words[: count - 1], _snake_case(words[count - 1])])
            wanted = words[count] if len(words) > count else "*"
            found += [path.parent for path in inside.glob(f"{wanted}/*/*/{INFO}")]
    if not found:
        raise MissingFileError(
            f"{ADDRESS}{name}: not in {cache}; where there is a network: "
            f'python -c "import datasets; datasets.load_dataset({name!r})"'
        )
    configurations = sorted({path.parent.parent.name for path in found})
    if len(configurations) > 1:
        raise UsageError(
            f"{ADDRESS}{name}: expected one configuration, found {', '.join(configurations)}; name it, as in "
            f"{ADDRESS}{name}/{configurations[0]}"
        )
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def _snake_case(name: str) -> str:
    """Return a name as the library writes it for its folders."""
    parted = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    return re.sub(r"([a-z\d])([A-Z])", r"\1_\2", parted).lower()


def _files_of_cache(folder: Path) -> list[TableFile]:
    """Return the files of each split that the library has downloaded."""
    info: Any = read_json(folder / INFO)
    try:
        splits = [str(name) for name in info["splits"]]
    except (TypeError, LookupError) as error:
        raise CorruptFileError(f"{folder / INFO}: expected splits") from error
    named = {split: re.compile(rf".*-{re.escape(split)}(-\d{{5}}-of-\d{{5}})?\.arrow") for split in splits}  # fmt: skip
    files = sorted(folder.glob("*.arrow"))
    return [
        TableFile(file, split, split)
        for split, pattern in named.items()
        for file in files
        if pattern.fullmatch(file.name) and not file.name.startswith("cache-")
    ]
