"""A data set in numbers, and what preparing it came to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from onepass.cache.commandline.advice import command_of
from onepass.cache.commandline.terminal import one_line
from onepass.cache.features import FeatureKey, extract_flags, parse_key_text
from onepass.cache.progress import human_bytes, human_seconds
from onepass.data.archive import DANGLING, NO_FILE
from onepass.data.dataset import EXCLUDED, SPLITS, ImageDataset
from onepass.data.record import SkippedImage

SHOWN_CLASSES = 10


@dataclass(frozen=True, slots=True)
class Summary:
    """A data set in numbers.

    Attributes:
        name: Its name in the store.
        path: Its file.
        splits: Images of each split, and those that are excluded, where there are any.
        classes: How many classes there are.
        class_names: The names of the first ten.
        fewest: Training images of the smallest class.
        most: Training images of the largest class.
        shape: Height, width (px) and channels.
        bytes: Size of the file.
        digest: Identity of its content (hex).
        problem: Whether it is damaged or unreadable, and why; the numbers are empty then.
    """

    name: str
    path: Path
    splits: dict[str, int]
    classes: int
    fewest: int
    most: int
    shape: list[int]
    bytes: int
    digest: str
    class_names: list[str] = field(default_factory=list)
    problem: str = ""


PreparedState = Literal["prepared", "cached", "stopped", "dry-run"]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What `prepare_dataset` did.

    Attributes:
        state: "cached" where nothing had to be changed; "stopped" where work is left, which the same
            command resumes; "dry-run" where only the numbers were asked for.
        name: Name in the store.
        summary: What lies there, in numbers; None where the run was stopped or dry.
        new: Rows whose file no data set of the store had.
        carried: Rows that were copied, or stayed.
        equal: Rows whose content an earlier row has too.
        changed: What is different from before, one line for each kind of change.
        said: What else may surprise.
        skipped: Images that cannot be used, left out ("name") and the reason ("why").
        left_out: How many files of the source are no rows, by kind, these images among them.
        geometry: What may surprise in the size of the rows; "" for nothing.
        to_extract: How many images each feature file lacks that is of other images than these, by key.
        seconds: How long it took.
    """

    state: PreparedState
    name: str
    summary: Summary | None = None
    new: int = 0
    carried: int = 0
    equal: int = 0
    changed: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    skipped: list[SkippedImage] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    geometry: str = ""
    to_extract: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def stopped(self) -> bool:
        """Whether work is left, which the same command resumes."""
        return self.state == "stopped"


def summarise(dataset: ImageDataset) -> Summary:
    """Return a data set in numbers."""
    train = np.bincount(dataset.labels[dataset.rows("train")], minlength=len(dataset.class_ids))
    return Summary(
        name=dataset.name,
        path=dataset.path,
        splits=_count_splits(dataset),
        classes=len(dataset.class_ids),
        fewest=int(train.min()) if len(train) else 0,
        most=int(train.max(initial=0)),
        shape=list(dataset.pixels.shape[1:]),
        bytes=dataset.path.stat().st_size,
        digest=dataset.digest,
        class_names=list(dataset.class_names[:SHOWN_CLASSES]),
    )


def _count_splits(dataset: ImageDataset) -> dict[str, int]:
    counts = {name: len(dataset.rows(name)) for name in SPLITS}
    excluded = int(np.sum(dataset.split == EXCLUDED))
    return counts | ({"excluded": excluded} if excluded else {})


def summary_lines(s: Summary) -> list[str]:
    """Return a data set's numbers as indented lines for people."""
    height, width, channels = s.shape
    images = " + ".join(f"{count:,} {split}" for split, count in s.splits.items() if count)
    each = f"{s.fewest:,}" if s.fewest == s.most else f"{s.fewest:,} to {s.most:,}"
    kind = "RGB" if channels == 3 else "grey"
    more = ", …" if s.classes > len(s.class_names) else ""
    named = f"{s.classes} ({', '.join(map(one_line, s.class_names))}{more}), {each} training {'image' if s.most == 1 else 'images'} each"
    return [
        f"  images    {images}, {height} x {width} px, {kind}",
        f"  classes   {named if s.classes else 'none: images without labels'}",
        f"  file      {s.path} ({human_bytes(s.bytes)}, digest {s.digest[:8]})",
    ]


def prepared_text(prepared: Prepared) -> str:
    """Return what a person reads after `prepare`."""
    if prepared.state == "stopped":
        return f"{prepared.name}: stopped; what is packed is kept, and the same command resumes"
    rows = f"{prepared.new:,} new, {prepared.carried:,} carried over, {prepared.equal:,} equal to another"
    if prepared.summary is None:
        lines = [f"{prepared.name}: to be prepared", f"  rows      {rows}"]
        return "\n".join([*lines, *_surprises(prepared)])
    if prepared.state == "cached":
        head = f"{prepared.name}: already prepared from the same images; nothing to do"
    else:
        head = f"{prepared.name}: prepared in {human_seconds(prepared.seconds)}"
    lines = [head, *summary_lines(prepared.summary), f"  rows      {rows}"]
    lines += [f"  changed   {one_line(line)}" for line in prepared.changed]
    lines += _surprises(prepared)
    if prepared.skipped:
        first = ", ".join(one_line(image.name) for image in prepared.skipped[:3])
        more = ", …" if len(prepared.skipped) > 3 else ""
        lines.append(f"  bad       {first}{more} (each with the reason: data show)")
    for count in sorted(set(prepared.to_extract.values())):
        keys = [key for key, lacks in prepared.to_extract.items() if lacks == count]
        what = f"images new to {', '.join(keys)}: {count:,}"
        copied = f"nothing new to {', '.join(keys)}: rows are copied"
        lines.append(f"  extract   {what if count else copied}")
    return "\n".join([*lines, f"Next: {_next(prepared)}"])


def _surprises(prepared: Prepared) -> list[str]:
    lines = [f"  note      {one_line(line)}" for line in prepared.said]
    if prepared.geometry:
        lines.append(f"  geometry  {prepared.geometry}")
    if prepared.left_out:
        lines.append(f"  left out  {left_out_text(prepared.left_out)}")
    return lines


def _next(prepared: Prepared) -> str:
    """Return the command that brings a feature file up to date, or makes the first."""
    for text in prepared.to_extract:
        parts = parse_key_text(text)
        key = FeatureKey(**{**parts, "weights": "", "size": int(parts["size"])})  # type: ignore[arg-type]
        return command_of("extract", prepared.name, extract_flags(key))
    return command_of("extract", prepared.name)


def left_out_by_kind(files: Mapping[str, int], skipped: Sequence[SkippedImage]) -> dict[str, int]:
    """Return how many files of a source are no rows, by kind: other files, and images that cannot be used."""
    found = Counter(files)
    for image in skipped:
        kinds = {DANGLING: "dangling link", NO_FILE: "missing"}
        found[next((kind for why, kind in kinds.items() if why in image.why), "undecodable")] += 1
    return dict(found.most_common())


def left_out_text(left_out: Mapping[str, int]) -> str:
    """Return what was left out in words: `20 .heic, 3 without a suffix, 12 in @eaDir`."""
    return ", ".join(f"{count:,} {one_line(kind)}" for kind, count in left_out.items())
