"""Thousands of changed, cut and made-up inputs for every reader: no traceback, no hang, no bomb.

    python benchmarks/fuzz.py [--cases 10000] [--seed 0] [--reader NAME]

One process a reader. An input that fails is kept in `tests/fuzz_inputs/<reader>/`, where `make test` tries
it from then on. The last columns are the slowest input and how far the process grew.
"""

import argparse
import faulthandler
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from common import ROOT, machine

sys.path.insert(0, str(ROOT / "tests"))

HANG = 60  # seconds after which the process ends itself and says where it was


def fuzz(name: str, count: int, seed: int) -> int:
    """Try `count` inputs on one reader and print a line of a table; return how many failed."""
    from fuzz import INPUTS, READERS, attempt, cases

    from onepass.cache.provenance import digest_bytes

    warnings.simplefilter("ignore")
    reader, outcomes, slowest = READERS[name], Counter[str](), 0.0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for content in reader.seeds():
            attempt(reader, content, Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for content in cases(name, count, seed):
            faulthandler.dump_traceback_later(HANG, exit=True)
            start = time.monotonic()
            try:
                outcomes[attempt(reader, content, Path(folder))] += 1
            except AssertionError as error:
                outcomes["failed"] += 1
                path = INPUTS / name / digest_bytes(content)[:12]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                print(f"{path}: {error}", file=sys.stderr)
            slowest = max(slowest, time.monotonic() - start)
    faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000
    print(
        f"| {name} | {count:,} | {outcomes['read']:,} | {outcomes['refused']:,} | {outcomes['failed']:,} | "
        f"{slowest:.2f} s | {grown:.0f} MB | {time.monotonic() - begin:.0f} s |",
        flush=True,
    )
    return outcomes["failed"]


def main() -> int:
    """Parse the flags, fuzz, return 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", default=[])
    flags = parser.parse_args()
    from fuzz import READERS

    print(f"{machine()}\n")
    print("| reader | inputs | read | refused | failed | slowest | grown by | in all |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    failed = 0
    for name in flags.reader or READERS:
        process = multiprocessing.get_context("spawn").Process(
            target=_one, args=(name, flags.cases, flags.seed)
        )
        process.start()
        process.join()
        failed += process.exitcode != 0
    return int(failed > 0)


def _one(name: str, count: int, seed: int) -> None:
    sys.exit(fuzz(name, count, seed) > 0)


if __name__ == "__main__":
    sys.exit(main())
