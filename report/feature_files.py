"""The feature files of a data set, with what their extraction measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepass.cache.errors import OnepassError
from onepass.cache.features import ExtractionRecord, FeatureKey, list_features
from onepass.cache.made_by import MadeBy
from onepass.cache.rowfile import RowFile
from onepass.cache.stores import AnyStore
from onepass.data.dataset import ImageDataset
from onepass.report.numbers import percent


@dataclass(frozen=True, slots=True)
class FeatureFile:
    """One feature file of the store.

    Attributes:
        key: What its vectors depend on besides the images.
        contents: Identity of the images in their order (hex).
        rows: Images.
        dim: Length of a vector.
        bytes: Size on disk.
        computed: Rows that the last extraction computed; 0 where it was not measured.
        rate: Rows per second of that extraction; 0 where it was not measured.
        bound: What limited the extraction.
        devices: What it ran on, and how busy its GPUs were.
        digest: Of its vectors (hex).
        made_by: Who wrote it, when and with what.
    """

    key: FeatureKey
    contents: str
    rows: int
    dim: int
    bytes: int
    computed: int
    rate: float
    bound: str
    devices: str
    digest: str
    made_by: MadeBy

    @property
    def seconds(self) -> float:
        """Time of the last extraction; 0 where it was not measured."""
        return self.computed / self.rate if self.rate else 0.0

    @property
    def forward_pass(self) -> tuple[Any, ...]:
        """What files that came out of the same forward passes have in common."""
        key = self.key
        return self.made_by.command, key.backbone, key.weights, key.size, key.view, key.precision

    @classmethod
    def open(cls, path: Path) -> "FeatureFile":
        """Read a file's facts.

        Raises:
            CorruptFileError: It is damaged.
        """
        rows = RowFile.open(path)
        extraction = ExtractionRecord.of(rows) or ExtractionRecord(0.0, 0, [], "")
        return cls(
            key=FeatureKey.of(rows),
            contents=rows.inputs["contents"],
            rows=rows.layout.rows,
            dim=rows.columns["features"].shape[1],
            bytes=path.stat().st_size,
            computed=extraction.computed_rows,
            rate=extraction.rows_per_second,
            bound=extraction.bound,
            devices=devices_text(extraction.devices, extraction.gpu_use),
            digest=rows.digest,
            made_by=rows.made_by,
        )


def devices_text(devices: Sequence[str], gpu_use: float | None) -> str:
    """Return devices in words, with the use of the GPUs, 0 … 1, where it is known."""
    busy = [] if gpu_use is None else [f"GPU use {percent(gpu_use)}"]
    return ", ".join([*devices, *busy])


def feature_files(store: AnyStore, dataset: ImageDataset) -> tuple[list[FeatureFile], list[str]]:
    """Return the data set's feature files by name, and which were left out and why."""
    files, notes = [], []
    for path in list_features(store, dataset.name):
        try:
            found = FeatureFile.open(path)
        except OnepassError as error:
            notes.append(str(error))
            continue
        if found.contents == dataset.contents:
            files.append(found)
        else:
            notes.append(f"{path}: of other images than the data set has now.")
    return files, notes
