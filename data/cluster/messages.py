"""What is sent to a worker that reads and decodes images, as JSON, and what it says of itself."""

from dataclasses import replace
from pathlib import Path

from onepass.cache.artifacts import record
from onepass.cache.cluster.identity import Identity
from onepass.cache.provenance import digest_array, digest_json
from onepass.data.images import decode_row
from onepass.data.pack import BAD_IMAGE, Geometry, source_digest
from onepass.data.sources.base import Item, Request, Source, Survey

ROOMS = ("onepass.cache", "onepass.data")
TRIED = 4  # images that all machines decode to the same pixels
TRIED_SIDE = 32  # px


@record
class Place:
    """Where the images are.

    Attributes:
        kind: One of `onepass.data.sources.SOURCES`.
        requests: As `open_source` takes them, with absolute paths.
    """

    kind: str
    requests: tuple[Request, ...]


@record
class Look:
    """Images to be looked at: `onepass.data.look.look_at`.

    Attributes:
        place: Where they are.
        items: Which.
        alike: What all have in common, where that is known.
        threads: Of the worker; as many as it has cores, where none are named.
    """

    place: Place
    items: tuple[int, ...]
    alike: Survey | None
    threads: int | None


@record
class Decoding:
    """Images to be decoded.

    Attributes:
        place: Where they are.
        items: Which; they make up one shard.
        geometry: What the rows are to look like.
        folder: Where the shards lie, beside their plan.
        threads: As those of `Look`.
        processes: That decode at a time and share the memory of this machine; 0 for workers of a cluster.
    """

    place: Place
    items: tuple[int, ...]
    geometry: Geometry
    folder: Path
    threads: int | None
    processes: int


def absolute(request: Request) -> Request:
    """Return a request that means the same in every working directory."""
    return replace(
        request,
        source=_absolute(request.source) if request.source else request.source,
        images=_absolute(request.images) if request.images else "",
        raw=request.raw.resolve(),
        scratch=request.scratch.resolve() if request.scratch else None,
    )


def identity(source: Source) -> Identity:
    """Return what this process is, which sees the images and decodes the first of them."""
    origins = [origin.digest for origin in source.origins]
    return Identity.here(
        ROOMS,
        {
            "the list of the images": digest_json([origins, len(source.items)])[:12],
            "what the first images decode to": digest_json(
                [_tried(i) for i in source.items[:TRIED]]
            )[:12],
        },
    )


def _tried(item: Item) -> list[str]:
    try:
        content = item.read()
        row = decode_row(content, item.name, TRIED_SIDE, 3, "stretch")
        return [source_digest(content).tobytes().hex(), digest_array(row)]
    except BAD_IMAGE:
        return ["cannot be used"]


def _absolute(place: str) -> str:
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place
