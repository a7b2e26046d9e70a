"""The report's three tables with our numbers in them: `runs/<data set>/tables.json`.

`dataset`, `title` and `source` and `note` of the report, `made_by`, and three lists of rows. All shares
are 0 … 1, null where there is none; what begins with `report_` is the report's own.

- `backbones`: {`backbone`, `size`, `features`, `head`, `val`, `interval`, `report_val`}: the best head,
  by selection accuracy, on each frozen backbone and size
- `heads`: {`head`, `features`, `epoch`, `train`, `selection`, `report_train`, `report_val`}: the best head
  of each sweep after so many epochs; ours are judged on the selection split, which the report had not
- `finetune`: {`run`, `backbone`, `size`, `recipe`, `before`, `train`, `val`, `interval`, `report_before`,
  `report_val`, `report_test`}: each finished run beside the probe that it started from
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onepass.cache.files import read_json, write_json
from onepass.cache.provenance import made_by
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.references import report_numbers
from onepass.data.dataset import open_dataset
from onepass.finetune.config import TablesConfig
from onepass.finetune.session.runs import finished_runs

EPOCHS = (10, 15, 20)  # those of the report's table of heads
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tables:
    """The three tables.

    Attributes:
        path: Of `tables.json`.
        dataset: Name of the data set.
        title, source, note: Of the report.
        backbones, heads, finetune: Rows, as the module describes them.
    """

    path: Path
    dataset: str
    title: str
    source: str
    note: str
    backbones: list[Row]
    heads: list[Row]
    finetune: list[Row]


def make_tables(config: TablesConfig) -> Tables:
    """Fill the report's tables from what the stages left on disk, and write them.

    Raises:
        MissingFileError: There is no leaderboard yet.
        StaleError: It was made from another state of the data set.
    """
    dataset = open_dataset(config.store, config.dataset)
    folder = config.runs / dataset.name
    board = Leaderboard.load(folder, dataset.name, dataset.digest)
    report = report_numbers(dataset.record.get("kind", dataset.name))
    theirs = report["tables"]
    tables = Tables(
        path=folder / "tables.json", dataset=dataset.name,
        title=report["title"], source=report["source"], note=report["note"],
        backbones=_beside(_backbones(board), theirs["backbones"], ("backbone",)),
        heads=_beside(_heads(folder, dataset.digest), theirs["heads"], ("head", "epoch")),
        finetune=_beside(_finetune(folder, dataset.digest), theirs["finetune"], ("backbone",)),
    )  # fmt: skip
    rows = {name: getattr(tables, name) for name in ("backbones", "heads", "finetune")}
    words = {name: getattr(tables, name) for name in ("dataset", "title", "source", "note")}
    write_json(tables.path, {**words, **rows, "made_by": made_by()})
    return tables


def _beside(ours: list[Row], theirs: list[Row], same: tuple[str, ...]) -> list[Row]:
    """Put the report's numbers beside our rows of the same name; what only it has comes last.

    Args:
        ours: Rows with all our columns.
        theirs: The report's, in per cent.
        same: The columns that say which rows belong together.
    """
    numbers = {f"report_{name}": None for row in theirs for name in row if name not in same}
    found = {
        tuple(row[name] for name in same): {
            f"report_{name}": None if row[name] is None else row[name] / 100
            for name in row
            if name not in same
        }
        for row in theirs
    }
    rows = [{**row, **numbers, **found.get(tuple(row[n] for n in same), {})} for row in ours]
    seen = {tuple(row[name] for name in same) for row in ours}
    blank = dict.fromkeys(ours[0] if ours else ())
    return rows + [
        {**blank, **dict(zip(same, key, strict=True)), **values}
        for key, values in found.items()
        if key not in seen
    ]


def _backbones(board: Leaderboard) -> list[Row]:
    """Return the best head of each frozen backbone and size, by backbone and size."""
    best: dict[str, Row] = {}
    for probe in board.ranked:
        if len(probe.keys) != 1 or probe.features_text in best:
            continue
        key = probe.keys[0]
        best[probe.features_text] = {
            "backbone": key["backbone"], "size": key["size"], "features": probe.features_text,
            "head": probe.head, "val": probe.val_top1, "interval": probe.val_interval,
        }  # fmt: skip
    return sorted(best.values(), key=lambda row: (row["backbone"], row["size"], row["features"]))


def _finetune(folder: Path, digest: str) -> list[Row]:
    """Return the finished runs of this state of the data set, by name."""
    return [
        {
            "run": run.name, "backbone": run.identity.key.backbone, "size": run.identity.key.size,
            "recipe": result.recipe, "before": result.probe_top1,
            "train": result.history[-1].accuracy if result.history else None,
            "val": result.val_top1, "interval": result.val_interval,
        }
        for run in finished_runs(folder / "finetune")
        if (result := run.result) and run.identity.dataset_digest == digest
    ]  # fmt: skip


def _heads(folder: Path, digest: str) -> list[Row]:
    """Return the best head of each sweep after as many epochs as the report's heads had.

    Training accuracy is that of the steps of the epoch, with dropout, as Keras prints it.
    """
    rows = []
    for path in sorted((folder / "sweeps").glob("*.json")):
        sweep = read_json(path)
        if sweep["dataset_digest"] != digest:
            continue
        best = min(sweep["heads"], key=lambda head: head["rank"])
        after = {entry["epoch"]: entry for entry in best["history"]}
        rows += [
            {
                "head": sweep["head"], "features": " & ".join(sweep["features"]), "epoch": epoch,
                "train": after[epoch]["train_accuracy"],
                "selection": after[epoch]["selection_accuracy"],
            }
            for epoch in EPOCHS
            if epoch in after
        ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["head"], row["features"], row["epoch"]))
