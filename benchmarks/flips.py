"""One bit turned in every kind of file, then the command that reads it: refused by name, mended, or without effect.

    python benchmarks/flips.py [--flips 500] [--first 0] [--seed 0] [--kind NAME]

`same`: the command gave what it gives with the whole file. `mended`: it did the work again and the file is as it
was. `told`: it went on without the file and named it. `refused`: exit code 1 and one line that names the file. Anything
else is a failure, told with its bit: also a death, more than `HANG` seconds and more than `PEAK` bytes.

A hundred of each kind after the other, so that a campaign that is ended has counts for all; `--first 200` goes on
with the 201st bit. A command that makes no network is given again and again in one process.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import zipfile
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from campaign import (
    CLASSIFY,
    EXTRACT,
    HANG,
    LIMIT,
    STAGES,
    Copy,
    Volatile,
    contents,
    finished,
    flat,
    onepass,
    up_to,
)
from common import ROOT, machine
from processes import Process

ENDS = ("refused", "mended", "told", "same")
ROUND = 100  # flips of a kind before the next
PEAK = 1_000_000_000  # bytes that a command may take more than with the whole file
RUN = "runs/x/finetune/a"
FOLDER = f"{RUN}/export/x-a-folder"
WORDS = {stage.name: stage.words for stage in STAGES}
SWEEP, FINETUNE, FROZEN = WORDS["sweep"], WORDS["finetune"], WORDS["frozen"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file and the command that reads it.

    Attributes:
        name: Its name in the table.
        pattern: Of the files, below the user's folder.
        words: The command.
        state: The stage after which it is tried; a killed stage where it ends with "killed".
        error: What the refusal must name besides the file itself.
    """

    name: str
    pattern: str
    words: tuple[str, ...]
    state: str = "report"
    error: tuple[str, ...] = ()

    @property
    def makes_network(self) -> bool:
        """Whether the command may start TensorFlow: each is then a process of its own."""
        return self.words[0] in ("extract", "finetune") or "new" in self.words or self.name in MAPS


MAPS = ("activation_maps.npz",)
RIDGE = (*CLASSIFY[: CLASSIFY.index("--head") + 1], "ridge")
RESPLIT = ("predict", "x/a", "x/ridge", "--split", "val")
REPORT = ("report", "--dataset", "x")
HEAD = "runs/x/heads/ridge-*"
HISTORY = "runs/x/history/*"
PARTS = "store/x/features/*~map*.parts"
MIGRATE = ("cache", "migrate")
HELD_OUT = ("predict", "y/ridge", "--split", "val")
KINDS = (
    Kind("pixels.h5", "store/x/pixels.h5", ("data", "verify", "x")),
    Kind("manifest.h5", "store/x/manifest.h5", ("data", "verify", "x")),
    Kind("features", "store/x/features/*.h5", ("cache", "verify")),
    Kind("features, by a head", "store/x/features/*.h5", (*RIDGE, "--seed", "1"), error=(r"tiny@16",)),
    Kind("shard", "store/x/features/*.parts/shard-*.h5", EXTRACT, "extract killed"),
    Kind("plan.json", "store/x/features/*.parts/plan.json", EXTRACT, "extract killed"),
    Kind("leaderboard.json", "runs/x/leaderboard.json", RIDGE, "classify"),
    Kind("scorings.jsonl", "runs/x/scorings.jsonl", RIDGE, "classify"),
    Kind("head.json", f"{HEAD}/head.json", ("predict", "x/ridge", "--split", "val"), error=("ridge-",)),
    Kind("arrays.npz of a head", f"{HEAD}/arrays.npz", ("predict", "x/ridge", "--split", "val"), error=("ridge-",)),
    Kind("probabilities.npz", f"{HEAD}/probabilities.npz", RESPLIT, error=("ridge-",)),
    Kind("calibration.json", "runs/x/heads/centroid-*/calibration.json", REPORT, "curve"),
    Kind("left_out.npz", "runs/x/heads/*/left_out.npz", ("predict", "x#1", "new")),
    Kind("leaderboard.json of history", f"{HISTORY}/leaderboard.json", RIDGE, "classify again"),
    Kind("validation.npz of history", f"{HISTORY}/validation.npz", RIDGE, "classify again"),
    Kind("sweep", "runs/x/sweeps/*.json", SWEEP, "sweep"),
    Kind("transferability.json", "runs/x/transferability.json", ("classify", "transfer", "--dataset", "x"), "transfer"),
    Kind("inspection.json", "runs/x/inspection.json", REPORT, "curve"),
    Kind("folds.json", "runs/x/folds.json", REPORT, "curve"),
    Kind("curve.json", "runs/x/curve.json", REPORT, "curve"),
    Kind("activation_maps.npz", "runs/x/activation_maps.npz", REPORT),
    Kind("figures/index.json", "runs/x/figures/index.json", REPORT),
    Kind("errors.json", f"{RUN}/errors.json", REPORT, "curve"),
    Kind("record of predictions", f"{RUN}/val.csv.json", REPORT, "curve"),
    Kind("result.json of a run", f"{RUN}/result.json", ("predict", "x/a", "--split", "val")),
    Kind("val_logits.npz", f"{RUN}/val_logits.npz", ("predict", "x/a", "--split", "val")),
    Kind("selection_logits.npz", f"{RUN}/selection_logits.npz", ("predict", "x/a", "--split", "val")),
    Kind("config.json of a run", f"{RUN}/config.json", FINETUNE, "finetune"),
    Kind("weights.npz of a run", f"{RUN}/weights.npz", ("predict", "x/a", "new")),
    Kind("vectors.npz of a run", f"{RUN}/vectors.npz", ("predict", "x/a", "new")),
    Kind("start.npz", f"{RUN}/start.npz", FINETUNE, "finetune killed"),
    Kind("checkpoint.npz", f"{RUN}/checkpoint.npz", FINETUNE, "finetune killed"),
    Kind("weights of an epoch", f"{RUN}/epochs/*.npz", FINETUNE, "finetune killed"),
    Kind("model.json", f"{FOLDER}/model.json", ("predict", FOLDER, "new")),
    Kind("weights of a model folder", f"{FOLDER}/weights/*.npz", ("predict", FOLDER, "new")),
    Kind("novelty.npz", f"{FOLDER}/novelty.npz", ("predict", FOLDER, "new")),
    Kind("MODEL_CARD.md", f"{FOLDER}/MODEL_CARD.md", ("predict", FOLDER, "new")),
    Kind("shard of maps", f"{PARTS}/shard-*.h5", FROZEN, "frozen unfinished"),
    Kind("plan.json of maps", f"{PARTS}/plan.json", FROZEN, "frozen unfinished"),
    Kind("state of a sweep", "runs/x/sweeps/*.npz", SWEEP, "sweep killed"),
    Kind("run.json", "runs/y/run.json", WORDS["run"], "run"),
    Kind("operating_point.json", "runs/y/heads/ridge-*/operating_point.json", HELD_OUT, "point"),
    Kind("held_out.json", "runs/y/held_out.json", ("report", "--dataset", "y"), "held out"),
    Kind("held-out picture", "store/y/held-out/*.png", ("data", "verify", "y"), "held out"),
    Kind("pixels.h5 of format 1", "store/colours/pixels.h5", MIGRATE, "format 1"),
    Kind("features of format 1", "store/colours/features/tiny@16.h5", MIGRATE, "format 1"),
)  # fmt: skip


def states(root: Path, kinds: list[Kind]) -> dict[str, Path]:
    """Return the user's folder after each stage that is needed, and after stages killed in their middle."""
    folder, found = root / "x", {}
    folder.mkdir(parents=True)
    wanted = [kind.state for kind in kinds]
    if "format 1" in wanted:
        found["format 1"] = root / "format 1"
        with zipfile.ZipFile(ROOT / "tests" / "fixtures" / "before_the_package.zip") as archive:
            archive.extractall(found["format 1"])
    for stage in up_to([state.removesuffix(" killed").removesuffix(" unfinished") for state in wanted]):  # fmt: skip
        if stage.before:
            stage.before(folder)
        if f"{stage.name} killed" in wanted:
            target = root / f"{stage.name} killed"
            patterns = [kind.pattern for kind in kinds if kind.state == target.name]
            found[target.name] = _killed(target, folder, stage.words, patterns)
        code, _, err, _ = finished(folder, *stage.words)
        if code:
            raise SystemExit(f"{stage.name}: exit code {code}: {err}")
        found[stage.name] = root / stage.name
        shutil.copytree(folder, found[stage.name])
        if f"{stage.name} unfinished" in wanted:  # it trains again, and reads what it kept
            found[f"{stage.name} unfinished"] = root / f"{stage.name} unfinished"
            shutil.copytree(folder, found[f"{stage.name} unfinished"])
            shutil.rmtree(found[f"{stage.name} unfinished"] / "runs" / "x" / "finetune" / "b")
    return found


def _killed(target: Path, folder: Path, words: tuple[str, ...], patterns: list[str]) -> Path:
    """Copy a folder and kill a command in it once it has written a file of each pattern."""
    work = folder.parent / "work"
    while True:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder, work)
        process = onepass(work, *words)
        while process.poll() is None:
            if all([*work.glob(pattern)] for pattern in patterns):
                process.send_signal(signal.SIGKILL)
            time.sleep(0.005)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            shutil.move(work, target)
            return target


def flip(path: Path, draw: random.Random) -> str:
    """Turn one bit of a file; return which."""
    data = bytearray(path.read_bytes())
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    data[place] ^= 1 << bit
    path.unlink()  # this process may still have it mapped
    path.write_bytes(data)
    return f"{path.name}, byte {place:,}, bit {bit}"


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did: its exit code, output, errors, seconds and the most bytes that it took."""

    code: int
    out: str
    err: str
    seconds: float
    peak: int


def here(words: tuple[str, ...]) -> Done:
    """Give a command in this process."""
    from onepass.__main__ import run

    out, err, start = io.StringIO(), io.StringIO(), time.monotonic()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = run(words)
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Done(code, out.getvalue(), err.getvalue(), time.monotonic() - start, peak)


def forked(words: tuple[str, ...]) -> Done:
    """Give a command in a process of its own."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        done = here(words)
        with os.fdopen(theirs, "w") as pipe:
            json.dump([done.code, done.out, done.err, done.seconds, done.peak], pipe)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    died = os.waitstatus_to_exitcode(status)
    return Done(died, "", f"died: {died}", 0.0, 0) if died else Done(*json.loads(answer))


class Trial:
    """A kind of file in a folder of its own, and what its command does with the whole file."""

    def __init__(self, kind: Kind, state: Path, work: Path) -> None:
        self.kind, self.copy, self.work = kind, Copy(state, work), work
        os.chdir(work)
        self.volatile = Volatile()
        whole, said, after = [], [], []
        for _ in range(2):
            self.copy.restore()
            done = self._command()
            if done.code:
                raise SystemExit(f"{kind.name}: exit code {done.code}: {done.err}")
            whole.append(done)
            said.append({"": flat(json.loads(done.out))})
            after.append(contents(work))
        self.volatile.learn(said[0], said[1])
        self.volatile.learn(after[0], after[1])
        self.said, self.after = said[0], after[0]
        self.slow = 3 * max(done.seconds for done in whole) + HANG
        self.peak = max(done.peak for done in whole) + PEAK

    def _command(self) -> Done:
        words = (*self.kind.words, "--json")
        return forked(words) if self.kind.makes_network else here(words)

    def _flipped(self, name: str) -> Done:
        self.copy.restore()
        self.path = sorted(self.work.glob(self.kind.pattern))[0]
        self.bit = flip(self.path, random.Random(name))
        return self._command()

    def outcome(self, name: str) -> str:
        """Flip the bit of that name and give the command; return one of `ENDS` or what went wrong."""
        done = self._flipped(name)
        if done.seconds > self.slow:  # the machine may have been busy
            done = self._flipped(name)
        last = (done.err.strip().splitlines() or [""])[-1]
        if "Traceback" in done.err:
            return f"traceback: {last}"
        if done.seconds > self.slow:
            return f"took {done.seconds:.0f} s, twice"
        if done.peak > self.peak:
            return f"took {done.peak:,} bytes"
        named = (re.escape(self.path.name), *self.kind.error)
        if done.code == 1:
            return "refused" if any(re.search(n, last) for n in named) else f"unnamed: {last}"
        if done.code:
            return f"exit code {done.code}: {last}"
        name = str(self.path.relative_to(self.work))
        found, expected = self.copy.contents(without=name), dict(self.after)
        whole = {name: expected.pop(name)} if name in expected else {}
        said = self.volatile.differences({"": flat(json.loads(done.out))}, self.said)
        told = self.volatile.differences(found, expected)
        if not said and not told:
            return "same"
        if not told and self._is_as_it_was(name, whole):
            return "mended"
        left = any(
            "left instead of" in one for one in said
        )  # `cache migrate` names it in its result
        where = done.err + done.out if left else done.err
        return "told" if any(re.search(n, where) for n in named) else f"silent: {(said + told)[:3]}"

    def _is_as_it_was(self, name: str, whole: dict) -> bool:
        try:
            found = contents(self.work, only=name)
        except Exception:  # whatever a reader of the damaged file raises
            return False
        return not self.volatile.differences(found, whole)


def attempts(name: str, state: str, work: str, seed: str, first: str, end: str) -> int:
    """Print the outcome of each flip of a kind, a line each; called in a process of its own."""
    kind = next(kind for kind in KINDS if kind.name == name)
    fork = multiprocessing.get_context(
        "fork"
    )  # for files of format 1, whose reader starts at once then
    multiprocessing.get_context = lambda method=None: fork
    trial = Trial(kind, Path(state), Path(work))
    print("ready", flush=True)
    for number in range(int(first), int(end)):
        outcome = trial.outcome(f"{seed} {name} {number}")
        print(json.dumps([outcome, trial.bit]), flush=True)
    return 0


def outcomes(kind: Kind, state: Path, work: Path, seed: int, first: int, end: int) -> Counter[str]:
    """Count how the flips of a kind end; a process that dies or hangs in one is begun again after it."""
    counts = Counter[str]()
    while first < end:
        words = (kind.name, str(state), str(work), str(seed), str(first), str(end))
        process = onepass(work.parent, *words, CALL="flips:attempts")
        silence = _after_silence(process)
        ready = process.stdout.readline()
        for line in process.stdout:
            silence.cancel()
            silence = _after_silence(process)
            outcome, bit = json.loads(line)
            _count(counts, kind, outcome, bit)
            first += 1
        silence.cancel()
        _, err = process.communicate()
        if not ready:
            raise SystemExit(f"{kind.name}: {process.returncode}: {err}")
        if process.returncode:
            _count(
                counts, kind, f"died or hung: {process.returncode} {err[-200:]}", f"flip {first}"
            )
            first += 1
    return counts


def _after_silence(process: Process) -> threading.Timer:
    timer = threading.Timer(LIMIT, process.send_signal, (signal.SIGKILL,))
    timer.start()
    return timer


def _count(counts: Counter[str], kind: Kind, outcome: str, bit: str) -> None:
    counts[outcome if outcome in ENDS else "failed"] += 1
    if outcome not in ENDS:
        print(f"{kind.name}, {bit}: {outcome[:300]}", file=sys.stderr, flush=True)


def main() -> int:
    """Parse the flags, flip, return 1 where something was silent, a traceback or a hang."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=500, help="of each kind of file")
    parser.add_argument("--first", type=int, default=0, help="how many of them are done already")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=[kind.name for kind in KINDS])
    flags = parser.parse_args()
    kinds = [kind for kind in KINDS if not flags.kind or kind.name in flags.kind]
    counts = {kind.name: Counter[str]() for kind in kinds}
    with tempfile.TemporaryDirectory() as folder:
        found = states(Path(folder), kinds)
        for first in range(flags.first, flags.flips, ROUND):
            end = min(flags.flips, first + ROUND)
            for kind in kinds:
                counts[kind.name] += outcomes(
                    kind, found[kind.state], Path(folder) / "x", flags.seed, first, end
                )
                print(f"{end}: {row(kind, counts[kind.name])}", file=sys.stderr, flush=True)
    print(f"{machine()}\n\n| file | flips | {' | '.join(ENDS)} | failed | command |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in kinds:
        print(row(kind, counts[kind.name]))
    return int(any(count["failed"] for count in counts.values()))


def row(kind: Kind, counts: Counter[str]) -> str:
    """Return a line of the table."""
    ends = " | ".join(str(counts[end]) for end in (*ENDS, "failed"))
    return f"| {kind.name} | {counts.total()} | {ends} | {' '.join(kind.words[:3])} |"


if __name__ == "__main__":
    sys.exit(main())
