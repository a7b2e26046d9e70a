"""What new images cost: seconds, and the share of computing all of them, for 1, 100 and 10,000 among 60,000.

    python benchmarks/incremental.py [--rows 60000] [--new 1 100 10000] [--size 128]

One run, one machine. All rows are prepared from a folder of JPEG files and extracted once; that is the
whole. Then images are added to the folder, and the same two commands run again in processes of their own,
so that Python's start and the building of the model count. Last, one file is moved to another class, and
nothing is added. The last line is JSON: for each number of new images, seconds of `data prepare` and of
`extract`, images decoded and computed, and the share of the whole.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, machine, write_jpegs

NAME = "bench"


def onepass(*words: str) -> tuple[float, dict]:
    """Run a command in a process of its own; return seconds and what it says of itself."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "onepass", *words, "--json"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return time.monotonic() - begin, json.loads(done.stdout)


def both(folder: Path, store: Path, size: int) -> dict:
    """Prepare and extract; return what it took."""
    places = ("--cache-dir", str(store))
    prepared, said = onepass("data", "prepare", "folder", "--source", str(folder), "--name", NAME, *places)  # fmt: skip
    words = ("--dataset", NAME, "--backbone", "efficientnet_lite0", "--size", str(size))
    extracted, result = onepass("extract", *words, *places)
    (file,) = result["files"]
    return {
        "prepare_s": round(prepared, 1), "extract_s": round(extracted, 1),
        "decoded": said["new"], "computed": file["computed"], "carried": file["carried"],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--new", type=int, nargs="+", default=[1, 100, 10_000])
    parser.add_argument("--size", type=int, default=128)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name) / "images", Path(name) / "store"
        more = Path(name) / "more"
        print(write_jpegs(more, arguments.rows + sum(arguments.new)))
        waiting = iter(sorted(more.rglob("*.*"), key=lambda path: path.name[::-1]))

        def add(count: int) -> None:
            for _ in range(count):
                path = next(waiting)
                target = folder / path.relative_to(more)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.rename(target)

        add(arguments.rows)
        results = {"all": both(folder, store, arguments.size)}
        print("all", results["all"], flush=True)
        whole = results["all"]["prepare_s"] + results["all"]["extract_s"]
        for count in [*arguments.new, 0]:
            add(count)
            if not count:
                first, second = sorted(path for path in (folder / "train").iterdir())[:2]
                moved = next(first.iterdir())
                moved.rename(second / ("moved-" + moved.name))
            found = both(folder, store, arguments.size)
            found["share"] = round((found["prepare_s"] + found["extract_s"]) / whole, 4)
            results[str(count) if count else "one moved to another class"] = found
            print(count, found, flush=True)
        print(json.dumps(results))


if __name__ == "__main__":
    main()
