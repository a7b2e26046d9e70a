"""Images that are held out of a data set: no model sees them, and `predict` is asked afterwards what they are."""

import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from onepass.cache.files import write_atomic
from onepass.cache.names import HELD_OUT
from onepass.cache.stores import AnyStore
from onepass.data.dataset import home_of
from onepass.data.images import image_suffixes
from onepass.data.record import HeldOutImage
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


def _encoded(item: Item) -> bytes:
    content = item.read()
    if isinstance(content, bytes):
        return content
    buffer = io.BytesIO()
    Image.fromarray(content).save(buffer, "PNG")
    return buffer.getvalue()
