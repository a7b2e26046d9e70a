"""URL → file: with progress, resumed after a cut, and never used before its digest is right.

The package pooch begins at the first byte again after a cut and keeps nothing of what came before, which
a slow line may never outlive; so this is our own.
"""

import hashlib
import http.client
import logging
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    OnepassError,
    OutOfSpaceError,
)
from onepass.cache.files import FULL_DISK, fsync, full_disk_named, read_json, write_json
from onepass.cache.locks import exclusive
from onepass.cache.progress import Progress, human_bytes

log = logging.getLogger(__name__)

BLOCK = 1 << 18  # bytes
TIMEOUT = 30.0  # seconds without an answer
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each new try; a try that brought bytes starts over
DIGESTS = {"md5": 32, "sha256": 64}  # hex digits


@dataclass(frozen=True, slots=True)
class Download:
    """What is fetched, and how it is known to be right.

    Attributes:
        url: http:// or https://.
        path: Where the file goes; parts of it wait in `path` + ".part".
        size: Bytes; None where unknown.
        digest: "md5:<hex>" or "sha256:<hex>"; "" where unknown (nothing is checked then).
    """

    url: str
    path: Path
    size: int | None = None
    digest: str = ""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise InvalidInputError(
                f"{self.url}: expected an address that begins with http:// or https://"
            )
        kind, _, digits = self.digest.partition(":")
        if self.digest and DIGESTS.get(kind) != len(digits):
            raise InvalidInputError(
                f"digest {self.digest!r}: expected md5: and 32 hex digits, or sha256: and 64"
            )

    @property
    def part(self) -> Path:
        """Where the bytes wait until all have come."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def notes(self) -> Path:
        """What the server said of the file that the part belongs to."""
        return self.path.with_name(self.path.name + ".part.json")


def fetch(download: Download) -> Path:
    """Bring a file from the network; one that was fetched before and is right is reused.

    An interrupted download resumes where it stopped, in this run or in a later one, if the
    server allows it and still has the same file; otherwise it starts anew.

    Returns:
        `download.path`, complete and checked.

    Raises:
        MissingFileError: The server has no such file, or cannot be reached.
        CorruptFileError: The bytes that came are not the ones expected; they were deleted.
        OutOfSpaceError: There is no room.
        LockedError: Another process is fetching it.
    """
    with exclusive(download.path):
        if download.path.exists():
            _check(download, download.path)
            return download.path
        with full_disk_named(download.path):
            _bring(download)
        _check(download, download.part)
        download.part.replace(download.path)
        fsync(download.path.parent)
        download.notes.unlink(missing_ok=True)
    return download.path


def _bring(download: Download) -> None:
    """Fill the part file, trying again for as long as tries bring bytes."""
    most, failures = 0, 0
    while True:
        try:
            _try_once(download)
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code < 500 and error.code not in (408, 429):
                raise MissingFileError(
                    f"{download.url}: the server answered {error.code} {error.reason}; "
                    "check the address, or give a file or folder with --source"
                ) from error
            cause: Exception = error
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OnepassError) or getattr(error, "errno", None) in FULL_DISK:
                raise
            cause = error
        there = _size(download.part)
        failures = 0 if there > most else failures + 1
        most = max(most, there)
        if failures > len(PAUSES):
            raise MissingFileError(
                f"{download.url}: cannot be fetched ({cause}); {human_bytes(there)} are here. Check the network and "
                "run the same command again (it resumes), or give a file or folder with --source"
            ) from cause
        pause = PAUSES[max(failures - 1, 0)]
        log.info(f"{download.url}: the connection failed ({cause}); trying again in {pause:g} s")
        time.sleep(pause)


def _try_once(download: Download) -> None:
    with _ask(download) as (response, start):
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else download.size
        _check_announced(download, total, start)
        _note_server(download, response)
        label = f"fetching {download.path.name}"
        with (
            download.part.open("r+b" if start else "wb") as file,
            Progress(total or 0, "bytes", label, done=start) as progress,
        ):
            file.seek(start)
            file.truncate()
            for block in iter(lambda: response.read(BLOCK), b""):
                file.write(block)
                progress.advance(len(block))
                if download.size and file.tell() > download.size:
                    raise _too_long(download, file.tell())
            file.flush()
            os.fsync(file.fileno())
        if total and _size(download.part) < total:
            raise ConnectionError(f"{_size(download.part):,} of {total:,} bytes came")


@contextmanager
def _ask(download: Download) -> Iterator[tuple[http.client.HTTPResponse, int]]:
    """Yield the server's answer and the position in the file that it begins at."""
    start, tag = _size(download.part), _server_tag(download)
    headers = {"Accept-Encoding": "identity", "User-Agent": "onepass"}
    if start and tag is not None:
        headers["Range"] = f"bytes={start}-"
        if tag:
            headers["If-Range"] = tag
    request = urllib.request.Request(download.url, headers=headers)  # noqa: S310  http(s) only: checked in Download
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()
        download.part.unlink()  # the file is not longer than the part: it is another one, or complete
        with _ask(download) as answer:
            yield answer
        return
    with response:
        ranged = response.status == 206 and f"bytes {start}-" in response.headers.get(
            "Content-Range", ""
        )
        yield response, start if ranged else 0


def _check_announced(download: Download, total: int | None, start: int) -> None:
    """Refuse before the first byte what cannot end well."""
    if download.size and total != download.size:
        raise CorruptFileError(
            f"{download.url}: expected {download.size:,} bytes, the server announces {total:,}; "
            "it is another file: give the right one with --source"
        )
    free = shutil.disk_usage(download.path.parent).free
    if total and total - start > free:
        raise OutOfSpaceError(
            f"{download.path}: needs {human_bytes(total - start)}, but {download.path.parent} has {human_bytes(free)} "
            "free. Nothing was fetched. Free some space or choose another folder with --raw-dir"
        )


def _note_server(download: Download, response: http.client.HTTPResponse) -> None:
    tag = response.headers.get("ETag", "")
    if not tag or tag.startswith("W/"):  # a weak tag does not promise the same bytes
        tag = response.headers.get("Last-Modified", "")
    write_json(download.notes, {"url": download.url, "tag": tag})


def _server_tag(download: Download) -> str | None:
    """Return what identifies the file that the part belongs to; None where the part is of no use.

    Without a tag ("") only a digest can tell that the rest belongs to the same file.
    """
    try:
        notes = read_json(download.notes)
        usable = notes["url"] == download.url and (notes["tag"] or download.digest)
        return notes["tag"] if usable else None
    except (MissingFileError, CorruptFileError, KeyError, TypeError):
        return None


def _check(download: Download, path: Path) -> None:
    """Compare a complete file with its size and digest; a wrong one that has just come is deleted."""
    received: str | int = path.stat().st_size
    expected: str | int | None = download.size
    if download.digest and received == (expected or received):
        kind, _, _ = download.digest.partition(":")
        with path.open("rb") as file:
            made = hashlib.file_digest(file, lambda: hashlib.new(kind, usedforsecurity=False))
        received, expected = f"{kind}:{made.hexdigest()}", download.digest.lower()
    if expected in (None, received):
        return
    cure = f"delete it to fetch it again from {download.url}"
    if path == download.part:
        path.unlink()
        download.notes.unlink(missing_ok=True)
        cure = f"it came from {download.url} and was deleted; try again later"
    raise CorruptFileError(
        f"{path}: expected {expected}, received {received}; {cure}, or give a file that you trust with --source"
    )


def _too_long(download: Download, received: int) -> CorruptFileError:
    return CorruptFileError(
        f"{download.url}: expected {download.size:,} bytes, received {received:,} and more; it is another file"
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
