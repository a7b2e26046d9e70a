"""Images that are held out of a data set: no model sees them, and `predict` is asked afterwards what they are."""

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from onepass.cache.errors import CorruptFileError, MissingFileError
from onepass.cache.files import read_bytes, write_atomic
from onepass.cache.names import HELD_OUT
from onepass.cache.stores import AnyStore
from onepass.data.dataset import home_of
from onepass.data.images import image_suffixes
from onepass.data.pack import source_digest
from onepass.data.record import HeldOutImage
from onepass.data.shown import as_image, encoded
from onepass.data.sources.base import Item

NAME_BYTES = 8  # of a file's digest, that it is named by


def held_out_folder(store: AnyStore, name: str) -> Path:
    """Return the folder of a data set's held-out pictures; it need not be there."""
    return home_of(store, name) / name / HELD_OUT


def write_held_out(
    folder: Path,
    items: Sequence[Item],
    digests: np.ndarray,
    class_ids: Sequence[str],
    before: Sequence[HeldOutImage],
) -> list[HeldOutImage]:
    """Write the files of held-out images, under names that say nothing of their class.

    Args:
        folder: As `held_out_folder` gives it.
        items: The images.
        digests: (n, 16) uint8, of their encoded files.
        class_ids: Of the data set.
        before: Those held out before; the files of those that are no longer are deleted.

    Returns:
        What is noted of them, each file once.
    """
    held: dict[str, HeldOutImage] = {}
    for item, digest in zip(items, digests, strict=True):
        content, source = _encoded(item), digest.tobytes().hex()
        suffix = PurePosixPath(item.name).suffix.lower()
        file = source[: 2 * NAME_BYTES] + (suffix if suffix in image_suffixes() else "")
        write_atomic(folder / file, content)
        held[file] = HeldOutImage(file, item.name, class_ids[item.label], source)
    for image in before:
        if image.file not in held:
            (folder / image.file).unlink(missing_ok=True)
    return sorted(held.values(), key=lambda image: image.file)


def check_held_out(folder: Path, held: Sequence[HeldOutImage]) -> None:
    """Compare the files of held-out images with their digests.

    Raises:
        CorruptFileError: Names the first that is missing or is not what was held out.
        UnreadableFileError: The system refuses to read one.
    """
    wrong = [image.file for image in held if not _is_whole(folder / image.file, image.source)]
    if wrong:
        raise CorruptFileError(
            f"{folder / wrong[0]}: is not the image that was held out ({len(wrong)} of {len(held)} are not); "
            f"prepare the data set again with --hold-back {len(held)}, which writes them anew"
        )


def _is_whole(path: Path, source: str) -> bool:
    try:
        content = read_bytes(path)
    except MissingFileError:
        return False
    if source_digest(content).tobytes().hex() == source:
        return True
    try:  # pixels that came without a file were written as one
        with Image.open(io.BytesIO(content)) as image:
            return (
                image.format == "PNG" and source_digest(np.asarray(image)).tobytes().hex() == source
            )
    except Exception:  # whatever a decoder raises
        return False


def _encoded(item: Item) -> bytes:
    content = item.read()
    return content if isinstance(content, bytes) else encoded(as_image(content))
