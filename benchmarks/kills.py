"""SIGKILL at random moments of every command that writes; the same command again must end as if nothing had been.

    python benchmarks/kills.py [--kills 100] [--seed 0] [--stage NAME]

A table: how many kills landed while the command ran, and how many ends differed from an undisturbed one in a
row, a figure, a file too many or too few (0 is expected everywhere).
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from campaign import STAGES, Copy, Stage, Volatile, contents, finished, onepass, stages
from common import machine

HANG = 60.0  # seconds over its usual time; another campaign may run beside


def kill_once(stage: Stage, copy: Copy, wait: float) -> bool:
    """Begin a command in a copy of the folder before it and kill it; tell whether it still ran."""
    copy.restore()
    process = onepass(copy.work, *stage.words)
    time.sleep(wait)
    landed = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return landed


def wrong(stage: Stage, copy: Copy, expected: dict, volatile: Volatile, usual: float) -> list[str]:
    """Run a killed command again; return what is other than it should be."""
    code, _, err, took = finished(copy.work, *stage.words)
    told = [f"exit code {code}: {err.strip().splitlines()[-1:]}"] if code else []
    told += ["traceback"] if "Traceback" in err else []
    told += [f"took {took:.0f} s"] if took > 3 * usual + HANG else []
    return told + ([] if code else volatile.differences(copy.contents(), expected))


def main() -> int:
    """Parse the flags, kill, return 1 where an end differed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="that land, for each stage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stage", action="append", choices=[stage.name for stage in STAGES])
    flags = parser.parse_args()
    draw, failed = random.Random(flags.seed), 0
    print(
        f"{machine()}\n\n| stage | kills | undisturbed | ends that differ |\n| --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        known, volatile = stages(root, flags.stage)
        for stage, before, after, usual in known:
            expected, kills, bad, tries, span = contents(after), 0, 0, 0, usual
            copy = Copy(before, root / "x")
            while kills < flags.kills and tries < 5 * flags.kills:
                tries += 1
                landed = kill_once(stage, copy, draw.uniform(0, span))
                span *= 1.01 if landed else 0.95  # with the load of the machine
                if not landed:
                    continue
                kills += 1
                told = wrong(stage, copy, expected, volatile, usual)
                bad += bool(told)
                if not kills % 20:
                    print(f"{stage.name}: {kills} kills, {bad} differ", file=sys.stderr, flush=True)
                for line in told[:5]:
                    print(f"{stage.name}, kill {kills}: {line[:300]}", file=sys.stderr, flush=True)
            print(f"| {stage.name} | {kills} | {usual:.1f} s | {bad} |", flush=True)
            failed += bad
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
