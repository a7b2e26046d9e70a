"""Whether extraction needs more memory for more rows: peak RSS on 6,000 rows and on 60,000.

    python benchmarks/memory.py [--size 32]

The many rows are all of Tiny ImageNet (or 60,000 of noise where it is absent), the few a tenth of them.
Each extraction runs in a process of its own. The last line is JSON, in MB.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, machine, prepare, tiny_imagenet, write_jpegs

FEW, MANY = 6_000, 60_000


def make(folder: Path, rows: int) -> Path:
    """Prepare a data set of that many rows in a store of its own."""
    store = folder / f"store-{rows}"
    if rows == MANY and tiny_imagenet():
        from onepass.data.config import PrepareConfig
        from onepass.data.prepare import prepare_dataset

        prepare_dataset(
            PrepareConfig(
                kind="tiny-imagenet", source=(str(tiny_imagenet()),), name="bench", cache_dir=store
            )
        )
    else:
        write_jpegs(folder / f"jpeg-{rows}", rows)
        prepare(folder / f"jpeg-{rows}", store)
    return store


def peak(store: Path, size: int) -> float:
    """Return the peak RSS (MB) of an extraction in a fresh process."""
    words = [
        "--dataset",
        "bench",
        "--backbone",
        "efficientnet_lite0",
        "--size",
        str(size),
        "--cache-dir",
        str(store),
    ]
    process = subprocess.Popen([sys.executable, "-m", "extract", *words, "--batch", "64"], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the extraction ended with status {status}")
    return usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        few, many = (peak(make(Path(name), rows), options.size) for rows in (FEW, MANY))
    print(
        f"peak RSS: {few:.0f} MB for {FEW:,} rows, {many:.0f} MB for {MANY:,}: {many / few:.3f} times"
    )
    print(json.dumps({"few_mb": round(few, 1), "many_mb": round(many, 1)}))


if __name__ == "__main__":
    main()
