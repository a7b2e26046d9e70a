"""The disk is full, or read-only, at one write of a command after the other.

    python benchmarks/full_disk.py [--every 1] [--first 0] [--stage NAME]

strace lets one system call after the other fail: writes for want of space, new files, folders and renames as on a
read-only disk too. The command must end with one line that says so, or do without what it could not write; the same
command again must end as if nothing had been.
"""

import argparse
import math
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path

from campaign import STAGES, Copy, Stage, Volatile, contents, finished, stages
from common import machine
from power_loss import Call, Disk, calls, plain, traced

ERRORS = {
    "write": ("ENOSPC",), "pwrite64": ("ENOSPC",), "mkdir": ("ENOSPC", "EROFS"),
    "rename": ("ENOSPC", "EROFS"), "openat": ("ENOSPC", "EROFS"),
}  # fmt: skip
WITHOUT, MAPS = (
    "the frozen layers are computed in each step",
    "~map",
)  # then their outputs are not kept


def writes(disk: Disk, made: list[Call]) -> list[Call]:
    """Return the calls that write below the folder."""
    changing = [call for call in made if disk.apply(call.name, call.arguments, call.result)]
    return [call for call in changing if call.name in ERRORS]


def outcome(
    stage: Stage, copy: Copy, call: Call, error: str, expected: dict, volatile: Volatile
) -> str:
    """Let one call of a command fail, then run it again; return in a word or a line how that ended.

    `missed`: another call was hit, that of a thread that shared the number or of files that are not the user's.
    """
    copy.restore()
    work = copy.work
    inject = f"inject={call.name}:error={error}:when={call.number}"
    (code, err), made = traced(work, stage.words, work.parent / "trace", "-e", inject)
    # strace counts the calls of each thread: another's may have been hit too, such as TensorFlow's of /dev/urandom
    hit = [
        (work / one.place).is_relative_to(work)
        for one in made
        if (one.name, one.number, one.result) == (call.name, call.number, -1)
    ]
    first, last = err, (err.strip().splitlines() or [""])[-1]
    died = "Traceback" in err or code not in (0, 1)
    if not any(hit) or (died and not all(hit)):
        return "missed"
    if died:
        return f"exit code {code}: {last}"
    if code and not any(word in last.lower() for word in ("full", "space", "read-only")):
        return f"another reason is given: {last}"
    again, _, err, _ = finished(work, *stage.words)
    if again or "Traceback" in err:
        return f"again: exit code {again}: {(err.strip().splitlines() or [''])[-1]}"
    told = volatile.differences(copy.contents(), expected)
    if WITHOUT in first:
        told = [
            one for one in told if not (MAPS in one and one.endswith(": lost")) and not _close(one)
        ]
    return f"again: {told[:3]}" if told else "said" if code else "did without"


def _close(told: str) -> bool:
    """Tell whether a number differs by the error of float32 only: layers that are computed in another batch."""
    numbers = re.search(r": ([\d.]+) instead of ([\d.]+)$", told)
    return bool(numbers) and math.isclose(float(numbers[1]), float(numbers[2]), rel_tol=1e-6)


def main() -> int:
    """Parse the flags, let writes fail, return 1 where a command did not end as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="one write of so many")
    parser.add_argument("--first", type=int, default=0, help="writes that are passed over before")
    parser.add_argument("--stage", action="append", choices=[stage.name for stage in STAGES])
    flags = parser.parse_args()
    failed = 0
    print(f"{machine()}\n\n| command | writes | tried | said so | did without | missed | failed |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary).resolve()
        known, volatile = stages(root, flags.stage)
        for stage, before, after, _ in known:
            expected, work, counts = contents(after), root / "x", Counter[str]()
            copy = Copy(before, work)
            disk = Disk(work)
            written = writes(disk, calls(work, stage.words, root / "trace"))
            for call in written[flags.first :: flags.every]:
                for error in ERRORS[call.name]:
                    end = outcome(stage, copy, call, error, expected, volatile)
                    known_end = end in ("said", "did without", "missed")
                    counts[end if known_end else "failed"] += 1
                    if not known_end:
                        place = plain(call.arguments)[:160]
                        print(f"{stage.name}, {error} at {call.name}({place}): {end[:400]}", file=sys.stderr, flush=True)  # fmt: skip
            ends = " | ".join(
                str(counts[end]) for end in ("said", "did without", "missed", "failed")
            )
            print(f"| {stage.name} | {len(written)} | {counts.total()} | {ends} |", flush=True)
            failed += counts["failed"]
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
