"""What a change of a data set came to, in words."""

from collections.abc import Iterable

import numpy as np

from onepass.cache.features import SPLITS
from onepass.data.manifest import EXCLUDED, GROUP, RESERVED, Manifest, true_labels

SHOWN = 20  # rows that are named, of each kind of change


def changes_between(before: Manifest | None, after: Manifest, row: np.ndarray) -> list[str]:
    """Say what is different, one line for each kind of change.

    Args:
        before: The data set as it was; None for none.
        after: As it is.
        row: (N,) int64, which row of `before` each of its rows was, -1 for a new one.
    """
    if before is None:
        return [f"{len(after.names):,} images of {len(after.class_ids):,} classes"]
    known = np.flatnonzero(row >= 0)
    was = row[known]
    counts = {
        "added": len(row) - len(known),
        "removed": len(before.names) - len(known),
        "held out": len(after.record.held_out) - len(before.record.held_out),
    }
    what = [f"images {word}: {count:,}" for word, count in counts.items() if count > 0]
    for verb, more, fewer in (("added", after, before), ("removed", before, after)):
        if names := [n for n in more.class_ids if n not in set(fewer.class_ids)]:
            what.append(f"classes {verb}: {', '.join(names[:SHOWN])}{', …' * (len(names) > SHOWN)}")
    if before.record.geometry != after.record.geometry:
        what.append(_geometry(before, after))
    old, new = _class_of(before)[was], _class_of(after)[known]
    what += _rows("labels", after, known, old, new)
    old, new = _split_of(before)[was], _split_of(after)[known]
    what += _rows("splits", after, known, old, new)
    renamed = sum(before.names[b] != after.names[a] for b, a in zip(was, known, strict=True))
    if renamed:
        what.append(f"names changed: {renamed:,}")
    if not (counts["added"] or counts["removed"]):
        what += _columns(before, after)
    if not what and before.digest != after.digest:
        what.append("order, or names of classes")
    return what


def changes_since(manifest: Manifest, digest: str) -> list[str]:
    """Return what changed since a data set had a digest (hex), in words; nothing where it never had it."""
    states = [change.digest for change in manifest.history]
    if digest not in states:
        return []
    last = len(states) - 1 - states[::-1].index(digest)
    return [what for change in manifest.history[last + 1 :] for what in change.what]


def _class_of(manifest: Manifest) -> np.ndarray:
    return np.array([*manifest.class_ids, "unknown"], object)[true_labels(manifest)]


def _split_of(manifest: Manifest) -> np.ndarray:
    return np.array([*SPLITS, "excluded"], object)[np.minimum(manifest.split, EXCLUDED)]


def _rows(
    kind: str, after: Manifest, rows: np.ndarray, old: Iterable[str], new: Iterable[str]
) -> list[str]:
    """Say of which rows something changed from what to what."""
    changed = [
        f"{after.names[row]}: {a} → {b}" for row, a, b in zip(rows, old, new, strict=True) if a != b
    ]
    if not changed:
        return []
    more = ", …" * (len(changed) > SHOWN)
    return [f"{kind} changed: {len(changed):,} ({', '.join(changed[:SHOWN])}{more})"]


def _columns(before: Manifest, after: Manifest) -> list[str]:
    """Say which of the groups and the further columns of the source are others."""
    names = sorted({*before.columns, *after.columns} - RESERVED - {GROUP})
    changed = [
        name
        for name in (GROUP, *names)
        if not np.array_equal(before.columns.get(name, ()), after.columns.get(name, ()))
    ]
    groups = ["groups"] if GROUP in changed else []
    further = [name for name in changed if name != GROUP]
    return groups + ([f"columns changed: {', '.join(further)}"] if further else [])


def _geometry(before: Manifest, after: Manifest) -> str:
    old, new = before.record.geometry, after.record.geometry
    names = [key for key in new if old.get(key) != new[key] and key != "native"]
    return "; ".join(f"{key}: {old.get(key)}, now {new[key]}" for key in names) or "geometry"
