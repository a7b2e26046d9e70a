"""What it costs to grow a data set: 60,000 rows carried over and 50,000 computed, against 50,000 alone.

    python benchmarks/growth.py [--size 64] [--rounds 3]

Needs both zips of Tiny ImageNet side by side (ONEPASS_TINY_IMAGENET names the first). Alternating, each
extraction in a process of its own: (a) the data set of both zips, of which the features of the first are
stored; (b) the images of the second alone, in another store. Then the vectors are compared: those carried
over with those of the first zip, those computed in (a) with those of (b). The last line is JSON.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import ROOT, machine, tiny_imagenet


def onepass(*words: str) -> float:
    """Run a command in a process of its own; return its seconds."""
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "onepass", *words], cwd=ROOT, check=True, capture_output=True
    )
    return time.monotonic() - begin


def same_share(some: Path, others: Path) -> float:
    """Return the share of the images in both files whose vectors are equal to the bit."""
    from onepass.cache.content import find
    from onepass.cache.rowfile import RowFile

    one, two = (RowFile.open(path).columns for path in (some, others))
    place = find(two["content"], one["content"])
    both = place >= 0
    first, second = np.asarray(one["features"])[both], two["features"][place[both]]
    return float((first.view(np.uint16) == second.view(np.uint16)).all(axis=1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    first = tiny_imagenet()
    if first is None:
        raise SystemExit("Tiny ImageNet is not here; name its zip with ONEPASS_TINY_IMAGENET")
    rest = first.with_name("tiny-imagenet-200-rest.zip")
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grown, alone = ("--cache-dir", f"{name}/grown"), ("--cache-dir", f"{name}/alone")
        extract = ("extract", "--backbone", "efficientnet_lite0", "--size", str(arguments.size), "--batch", "64")  # fmt: skip
        prepare = ("data", "prepare", "tiny-imagenet", "--source", str(first))
        file = f"features/efficientnet_lite0@{arguments.size}.h5"
        onepass(*prepare, *grown)
        onepass(*extract, "--dataset", "tiny-imagenet", *grown)
        kept = shutil.copyfile(folder / "grown/tiny-imagenet" / file, folder / "first.h5")
        onepass(*prepare, str(rest), *grown)
        onepass("data", "prepare", "folder", "--source", str(rest), "--name", "rest", *alone)
        rounds = []
        for _ in range(arguments.rounds):
            shutil.copyfile(kept, folder / "grown/tiny-imagenet" / file)
            carried = onepass(*extract, "--dataset", "tiny-imagenet", *grown)
            (folder / "alone/rest" / file).unlink(missing_ok=True)
            computed = onepass(*extract, "--dataset", "rest", *alone)
            rounds.append(round(carried / computed, 3))
            print(f"carried over and computed {carried:.1f} s, computed alone {computed:.1f} s: {rounds[-1]}", flush=True)  # fmt: skip
        both, other = folder / "grown/tiny-imagenet" / file, folder / "alone/rest" / file
        print(json.dumps({
            "ratios": rounds, "median": float(np.median(rounds)),
            "carried_bit_equal": same_share(kept, both), "computed_bit_equal": same_share(other, both),
        }))  # fmt: skip


if __name__ == "__main__":
    main()
