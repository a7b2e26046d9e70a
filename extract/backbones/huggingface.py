"""What Hugging Face's hub has: handles `hf://USER/PRESET`, and the folders that hold what was downloaded of them.

In keys and names of files a handle is written `hf--USER--PRESET`, as Hugging Face's own cache writes it. A folder of
that cache is used as it is, without a network; only what it lacks is downloaded.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from onepass.cache.errors import MissingFileError, UsageError
from onepass.extract.backbones.preset_formats import PICKLED

HANDLE = re.compile(r"hf(?:://|--)(?P<user>[\w.-]+?)(?:/|--)(?P<preset>[\w.-]+)")


def is_handle(name: str) -> bool:
    """Tell whether a backbone's name is a handle, in either writing."""
    return name.startswith(("hf://", "hf--"))


def repository(name: str) -> str:
    """Return USER/PRESET of a handle in either writing.

    Raises:
        UsageError: It names no repository.
    """
    match = HANDLE.fullmatch(name)
    if match is None or "--" in match["preset"]:
        raise UsageError(f"--backbone {name}: expected hf://USER/PRESET")
    return f"{match['user']}/{match['preset']}"


def safe_name(repository: str) -> str:
    """Return the handle of a repository as keys and files have it."""
    return f"hf--{repository.replace('/', '--')}"


def fetch(repository: str, required: Sequence[str], optional: Sequence[str]) -> Path:
    """Return the folder of a repository's files, named like their commit, downloaded where they are not there yet.

    Args:
        repository: USER/PRESET.
        required: Names of files.
        optional: The same, that it may lack.

    Raises:
        MissingFileError: It has none of that name, or they can neither be found nor downloaded.
    """
    try:
        from huggingface_hub import constants, snapshot_download
    except ImportError as error:
        raise MissingFileError(
            f'hf://{repository}: needs huggingface_hub; run: pip install "onepass[huggingface]"'
        ) from error
    missing, reason = "", ""
    for cached in (True, False):
        try:
            found = snapshot_download(
                repository, allow_patterns=[*required, *optional], local_files_only=cached
            )
        except Exception as error:  # of its own, of the network, of the disk
            reason = (" ".join(str(error).split()) or type(error).__name__)[:160]
            continue
        folder, reason = Path(str(found)), ""
        missing = next((name for name in required if not (folder / name).is_file()), "")
        if not missing:
            return folder
    why = [f"{missing} is not there"] * bool(missing) + [reason] * bool(reason)
    if missing.endswith(".safetensors"):
        why.insert(1, f"pickled weights, {PICKLED}, are never read")
    raise MissingFileError(
        f"hf://{repository}: not in Hugging Face's cache, and not to be downloaded ({'; '.join(why)}); on a machine with a network "
        f"run: hf download {repository}, and copy its folder models--{repository.replace('/', '--')} into {constants.HF_HUB_CACHE}"
    )
