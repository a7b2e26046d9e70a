"""What interruptions cost: kills at random moments, SIGTERM, a time limit, a full disk, a lost shard.

    python benchmarks/resume.py [--kills 100] [--rows 40000] [--size 32]

Every case extracts the same rows with EfficientNet-Lite0 and compares the bits with those of an
uninterrupted run. The extra work of the kills is the time from each run's last commit to its kill, counted
in shards at the pace of the time before it. The last line is JSON.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import ROOT, machine, prepare, write_jpegs

SHARD_ROWS = 512


class Runs:
    """Extractions of one data set, each in a store of its own."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.key = f"efficientnet_lite0@{size}"

    def fresh(self, name: str) -> Path:
        """Return a store with the data set and nothing else."""
        store = self.folder / name
        (store / "bench").mkdir(parents=True)
        for file in ("pixels.h5", "manifest.h5"):
            os.link(self.folder / "pixels" / "bench" / file, store / "bench" / file)
        return store

    def start(self, store: Path, *flags: str, limit: int = 0) -> subprocess.Popen:
        """Start an extraction; `limit` caps the size of the files it may write (bytes)."""
        words = [
            "--dataset",
            "bench",
            "--backbone",
            "efficientnet_lite0",
            "--size",
            str(self.size),
            "--json",
        ]
        fixed = ["--batch", "64", "--shard-rows", str(SHARD_ROWS), "--cache-dir", str(store)]
        command = [sys.executable, "-m", "extract", *words, *fixed, *flags]

        def cap() -> None:
            if limit:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            preexec_fn=cap,
        )

    def wait_until_it_computes(self, process: subprocess.Popen) -> None:
        """Return when the plan's table is printed: rows are computed from there on."""
        while not process.stderr.readline().startswith(self.key + " "):
            if process.poll() is not None:
                return

    def shards(self, store: Path) -> int:
        """Committed shards of the unfinished file."""
        return len(list((store / "bench" / "features" / f"{self.key}.h5.parts").glob("shard-*.h5")))

    def commits(self, store: Path) -> list[float]:
        """When each shard of the unfinished file was committed (seconds since the epoch)."""
        parts = store / "bench" / "features" / f"{self.key}.h5.parts"
        return [shard.stat().st_mtime for shard in parts.glob("shard-*.h5")]

    def finish(self, store: Path, *flags: str) -> tuple[dict, str]:
        """Run to the end; return the report and the last line of standard error."""
        out, err = self.start(store, *flags).communicate()
        return json.loads(out)["files"][0], (err.strip().splitlines() or [""])[-1]

    def path(self, store: Path) -> Path:
        """Where the finished file lies."""
        return store / "bench" / "features" / f"{self.key}.h5"

    def bits(self, store: Path) -> bytes:
        """The stored vectors."""
        from onepass.cache.features import open_features

        return np.asarray(open_features(self.path(store)).X).tobytes()


def kill_often(runs: Runs, kills: int, rate: float, rows: int, expected: bytes) -> dict:
    """Kill extractions that often at random moments; one that ends in spite of it is compared and begun anew."""
    random = np.random.default_rng(0)
    lost = useful = 0.0
    identical, done, finished, store = True, 0, 0, runs.fresh("killed-0")
    while done < kills:
        process = runs.start(store)
        runs.wait_until_it_computes(process)
        before, begin = runs.shards(store), time.time()
        time.sleep(random.uniform(0, 4.0 * rows / rate / kills))
        process.send_signal(signal.SIGKILL)
        killed = time.time()
        done += process.wait() == -signal.SIGKILL
        if runs.path(store).exists():
            finished += 1
            identical &= runs.bits(store) == expected
            store = runs.fresh(f"killed-{finished}")
            continue
        after = runs.shards(store)
        assert after >= before, "a committed shard was lost"
        last = max([begin, *runs.commits(store)])
        useful, lost = useful + last - begin, lost + max(0.0, killed - last)
        if done % 10 == 0:
            print(
                f"{done} kills, {after} shards committed, {finished} extractions finished",
                flush=True,
            )
    report, _ = runs.finish(store)
    identical &= runs.bits(store) == expected
    extra = lost / max(useful, 1e-9) * (finished + 1) * -(-rows // SHARD_ROWS)
    print(
        f"{kills} SIGKILLs: {extra:.1f} shards of extra work; the last run computed {report['computed']} rows"
    )
    return {
        "kills": kills,
        "extra_shards": round(extra, 1),
        "extractions": finished + 1,
        "identical": identical,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--rows", type=int, default=40_000)
    parser.add_argument("--size", type=int, default=32)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(write_jpegs(folder / "jpeg", options.rows))
        prepare(folder / "jpeg", folder / "pixels")
        runs = Runs(folder, options.size)
        whole, _ = runs.finish(store := runs.fresh("whole"))
        expected, rate = runs.bits(store), whole["computed"] / whole["seconds"]
        print(f"uninterrupted: {rate:.0f} rows/s")

        result = kill_often(runs, options.kills, rate, options.rows, expected)

        def check(case: str, store: Path, said: str) -> None:
            runs.finish(store)
            result[case] = runs.bits(store) == expected
            print(
                f"{case}: {'identical' if result[case] else 'DIFFERENT'} after going on; it had said: {said}",
                flush=True,
            )

        for case in ("SIGTERM", "SIGINT"):
            process = runs.start(store := runs.fresh(case))
            runs.wait_until_it_computes(process)
            process.send_signal(getattr(signal, case))
            out, _ = process.communicate()
            check(
                case, store, f"exit {process.returncode}, stopped by {json.loads(out)['stopped']}"
            )
        report, _ = runs.finish(store := runs.fresh("time limit"), "--time-limit", "5s")
        check("time limit", store, f"{report['state']}, {report['rows']} rows are there")
        process = runs.start(store := runs.fresh("full disk"), limit=8_000_000)
        _, err = process.communicate()
        check("full disk", store, f"exit {process.returncode}, {err.strip().splitlines()[-1]}")
        process = runs.start(store := runs.fresh("removed shard"))
        runs.wait_until_it_computes(process)
        time.sleep(4 * SHARD_ROWS / rate)
        process.send_signal(signal.SIGTERM)
        process.communicate()
        next((store / "bench" / "features").glob("*.parts/shard-*.h5")).unlink()
        check("removed shard", store, "(nothing: a shard file was deleted)")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
