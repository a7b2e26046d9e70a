"""The three tables of De (2020), filled from what the stages left on disk, beside the paper's numbers.

    python benchmarks/de2020.py [--dataset tiny-imagenet] [--cache-dir cache/store] [--runs-dir runs]

It trains nothing: it reads the leaderboard, the sweeps (`onepass classify sweep`) and the finished runs of
fine-tuning (`onepass finetune --recipe de2020`, `de2020-dense2` or `de2020-sgd`) of one data set, prints the
tables and writes `runs/<data set>/tables.json`. The paper's numbers lie in `de2020.json`, in per cent, null
where they are not known; they are of Tiny ImageNet, so beside another data set they are left out.

`tables.json` holds `dataset`, `title`, `source` and `note` of the paper, `made_by`, and three lists of rows.
All shares are 0 … 1, null where there is none; what begins with `paper_` is the paper's own.

- `backbones`: {`backbone`, `size`, `features`, `head`, `val`, `interval`, `paper_val`}: the best head,
  by selection accuracy, on each frozen backbone and size
- `heads`: {`head`, `features`, `epoch`, `train`, `selection`, `paper_train`, `paper_val`}: the best head of
  each sweep after so many epochs; ours are evaluated on the selection split, which the paper had not
- `finetune`: {`run`, `backbone`, `size`, `recipe`, `before`, `train`, `val`, `interval`, `paper_before`,
  `paper_val`, `paper_test`}: each finished run beside the probe that it started from
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import common  # noqa: F401  (finds the package in a checkout)

from onepass.cache.artifacts import to_json
from onepass.cache.errors import OnepassError
from onepass.cache.files import write_json
from onepass.cache.made_by import MadeBy
from onepass.classify.leaderboard.board import Leaderboard
from onepass.classify.search.sweep_record import SweepRecord
from onepass.data.dataset import open_dataset
from onepass.finetune.session.runs import finished_runs

PAPER = Path(__file__).with_name("de2020.json")
EPOCHS = (10, 15, 20)  # those of the paper's table of heads
# Which columns of a table say which rows belong together, and its heading.
TABLES = {
    "backbones": (("backbone",), "Table 1: frozen backbones, the best head on each"),
    "heads": (
        ("head", "epoch"),
        "Table 2: heads by epoch (ours on the selection split, the paper's on its validation split)",
    ),
    "finetune": (("backbone",), "Table 3: fine-tuning (before: the frozen probe)"),
}
Row = dict[str, Any]


def paper(kind: str) -> dict[str, Any]:
    """Return what `de2020.json` holds; for another data set, its tables without numbers.

    Args:
        kind: Of the data set, such as "tiny-imagenet".
    """
    known: dict[str, Any] = json.loads(PAPER.read_text())
    if kind == known["kind"]:
        return known
    tables = {
        name: [{c: row[c] if c in TABLES[name][0] else None for c in row} for row in rows]
        for name, rows in known["tables"].items()
    }
    return {**known, "source": "", "note": f"De (2020) has no numbers on {kind}", "tables": tables}


def make_tables(store: Path, runs: Path, name: str) -> dict[str, Any]:
    """Fill the tables of a data set, write them, and return what the file holds.

    Raises:
        MissingFileError: There is no leaderboard yet.
        StaleError: It was made from another state of the data set.
    """
    dataset = open_dataset(store, name)
    folder = runs / dataset.name
    board = Leaderboard.load(folder, dataset.name, dataset.digest)
    theirs = paper(dataset.record.kind or dataset.name)
    ours = {
        "backbones": backbone_rows(board),
        "heads": head_rows(folder / "sweeps", dataset.digest),
        "finetune": run_rows(folder / "finetune", dataset.digest),
    }
    tables = {
        "dataset": dataset.name,
        **{word: theirs[word] for word in ("title", "source", "note")},
        **{table: beside(ours[table], theirs["tables"][table], TABLES[table][0]) for table in ours},
        "made_by": to_json(MadeBy.now()),
    }
    write_json(folder / "tables.json", tables)
    return tables


def beside(ours: list[Row], theirs: list[Row], same: tuple[str, ...]) -> list[Row]:
    """Put the paper's numbers beside our rows of the same name; what only it has comes last.

    Args:
        ours: Rows with all our columns.
        theirs: The paper's, in per cent.
        same: The columns that say which rows belong together.
    """
    numbers = [name for name in theirs[0] if name not in same]
    found = {
        tuple(row[name] for name in same): {
            f"paper_{name}": None if row[name] is None else row[name] / 100 for name in numbers
        }
        for row in theirs
    }
    none = {f"paper_{name}": None for name in numbers}
    rows = [{**row, **found.get(tuple(row[name] for name in same), none)} for row in ours]
    seen = {tuple(row[name] for name in same) for row in ours}
    blank = dict.fromkeys(ours[0] if ours else ())
    return rows + [
        {**blank, **dict(zip(same, key, strict=True)), **values}
        for key, values in found.items()
        if key not in seen
    ]


def backbone_rows(board: Leaderboard) -> list[Row]:
    """Return the best head of each frozen backbone and size, by backbone and size."""
    best: dict[str, Row] = {}
    for probe in board.ranked:
        if len(probe.keys) != 1 or probe.features_text in best:
            continue
        key = probe.keys[0]
        best[probe.features_text] = {
            "backbone": key.backbone, "size": key.size, "features": probe.features_text,
            "head": probe.head, "val": probe.val_top1, "interval": probe.val_interval,
        }  # fmt: skip
    return sorted(best.values(), key=lambda row: (row["backbone"], row["size"], row["features"]))


def head_rows(folder: Path, digest: str) -> list[Row]:
    """Return the best head of each sweep after as many epochs as the paper's heads had.

    Training accuracy is that of the steps of the epoch, with dropout, as Keras prints it.
    """
    sweeps = [SweepRecord.read(path) for path in sorted(folder.glob("*.json"))]
    rows = [
        {
            "head": sweep.head, "features": sweep.features_text, "epoch": point.epoch,
            "train": point.train_accuracy, "selection": point.selection_accuracy,
        }
        for sweep in sweeps
        if sweep.dataset_digest == digest
        for point in sweep.best.history
        if point.epoch in EPOCHS
    ]  # fmt: skip
    return sorted(rows, key=lambda row: (row["head"], row["features"], row["epoch"]))


def run_rows(folder: Path, digest: str) -> list[Row]:
    """Return the finished runs of this state of the data set, by name."""
    return [
        {
            "run": run.name, "backbone": run.identity.key.backbone, "size": run.identity.key.size,
            "recipe": result.recipe, "before": result.probe_top1,
            "train": result.history[-1].accuracy if result.history else None,
            "val": result.val_top1, "interval": result.val_interval,
        }
        for run in finished_runs(folder)
        if (result := run.result) and run.identity.dataset_digest == digest
    ]  # fmt: skip


def tables_text(tables: dict[str, Any]) -> str:
    """Return the three tables, ours beside the paper's."""
    lines: list[str] = []
    for name, (_, title) in TABLES.items():
        columns = [column for column in tables[name][0] if column != "features" or name == "heads"]
        rows = [[_cell(row.get(column)) for column in columns] for row in tables[name]]
        heads = [column.replace("_", " ") for column in columns]
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        lines.append(title)
        for row in (heads, *rows):
            padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(padded).rstrip())
        lines.append("")
    lines.append(f"{tables['title']}: {tables['source'] or tables['note']}")
    return "\n".join(lines + ([f"Note: {tables['note']}"] if tables["source"] else []))


def _cell(value: Any) -> str:
    """Return a value of a table: shares as per cents, nothing as a dash."""
    if isinstance(value, float):
        return f"{100 * value:.1f} %"
    if isinstance(value, list | tuple):
        return " … ".join(f"{100 * bound:.1f}" for bound in value)
    return "-" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--dataset", default="tiny-imagenet")
    parser.add_argument("--cache-dir", type=Path, default=Path("cache/store"))
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    flags = parser.parse_args(arguments)
    try:
        print(tables_text(make_tables(flags.cache_dir, flags.runs_dir, flags.dataset)))
    except OnepassError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return error.exit_code
    print(f"File: {flags.runs_dir / flags.dataset / 'tables.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
