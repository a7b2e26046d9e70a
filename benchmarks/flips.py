"""One bit turned in every kind of file, then the command that reads it: refused by name, mended, or without effect.

    python benchmarks/flips.py [--flips 500] [--seed 0] [--kind NAME]

`same`: the command gave what it gives with the whole file. `mended`: it did the work again and the file is as it
was. `told`: it went on without the file and named it. `refused`: exit code 1 and one line that names the file. Anything else is a failure, told with its bit.
"""

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from campaign import (
    CLASSIFY,
    EXTRACT,
    HANG,
    STAGES,
    Volatile,
    contents,
    finished,
    flat,
    onepass,
    up_to,
)
from common import machine

ENDS = ("refused", "mended", "told", "same")
RUN = "runs/x/finetune/a"
FOLDER = f"{RUN}/export/x-a-folder"
SWEEP = next(stage.words for stage in STAGES if stage.name == "sweep")
FINETUNE = next(stage.words for stage in STAGES if stage.name == "finetune")


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


RIDGE = (*CLASSIFY[: CLASSIFY.index("--head") + 1], "ridge")
RESPLIT = ("predict", "x/a", "x/ridge", "--split", "val")
REPORT = ("report", "--dataset", "x")
HEAD = "runs/x/heads/ridge-*"
HISTORY = "runs/x/history/*"
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
    Kind("left_out.npz", "runs/x/heads/*/left_out.npz", ("predict", "x", "new")),
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
)  # fmt: skip


def states(root: Path, kinds: list[Kind]) -> dict[str, Path]:
    """Return the user's folder after each stage that is needed, and after stages killed in their middle."""
    folder, found = root / "x", {}
    folder.mkdir(parents=True)
    for stage in up_to([kind.state.removesuffix(" killed") for kind in kinds]):
        if stage.before:
            stage.before(folder)
        if stage.name in ("extract", "finetune"):
            found[f"{stage.name} killed"] = _killed(
                root / f"{stage.name} killed", folder, stage.words
            )
        code, _, err, _ = finished(folder, *stage.words)
        if code:
            raise SystemExit(f"{stage.name}: exit code {code}: {err}")
        found[stage.name] = root / stage.name
        shutil.copytree(folder, found[stage.name])
    return found


def _killed(target: Path, folder: Path, words: tuple[str, ...]) -> Path:
    """Copy a folder and kill a command in it once it has committed something."""
    work = folder.parent / "work"
    while True:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(folder, work)
        process = onepass(work, *words)
        while process.poll() is None:
            if [*work.rglob("shard-*.h5"), *work.rglob("epoch-001.npz")]:
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
    path.write_bytes(data)
    return f"{path.name}, byte {place:,}, bit {bit}"


class Trial:
    """A kind of file in a folder of its own, and what its command does with the whole file."""

    def __init__(self, kind: Kind, state: Path, work: Path) -> None:
        self.kind, self.state, self.work = kind, state, work
        self.volatile = Volatile()
        said, after, seconds = [], [], []
        for _ in range(2):
            code, out, err, took = self._run(None)
            if code:
                raise SystemExit(f"{kind.name}: exit code {code}: {err}")
            said.append({"": flat(json.loads(out))})
            after.append(contents(work))
            seconds.append(took)
        self.volatile.learn(said[0], said[1])
        self.volatile.learn(after[0], after[1])
        self.said, self.after, self.usual = said[0], after[0], max(seconds)

    def _run(self, draw: random.Random | None) -> tuple[int, str, str, float]:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.state, self.work)
        self.path = sorted(self.work.glob(self.kind.pattern))[0]
        self.bit = flip(self.path, draw) if draw else ""
        return finished(self.work, *self.kind.words, "--json")

    def outcome(self, draw: random.Random) -> str:
        """Flip a bit and run the command; return "same", "mended", "refused" or what went wrong."""
        before = draw.getstate()
        code, out, err, took = self._run(draw)
        if took > 3 * self.usual + HANG:  # the machine may have been busy
            draw.setstate(before)
            code, out, err, took = self._run(draw)
        last = (err.strip().splitlines() or [""])[-1]
        if "Traceback" in err:
            return f"traceback: {last}"
        if took > 3 * self.usual + HANG:
            return f"took {took:.0f} s, twice"
        named = (re.escape(self.path.name), *self.kind.error)
        if code == 1:
            return "refused" if any(re.search(n, last) for n in named) else f"unnamed: {last}"
        if code:
            return f"exit code {code}: {last}"
        name = str(self.path.relative_to(self.work))
        found, expected = contents(self.work, without=name), dict(self.after)
        whole = {name: expected.pop(name)} if name in expected else {}
        said = self.volatile.differences({"": flat(json.loads(out))}, self.said)
        told = self.volatile.differences(found, expected)
        if not said and not told:
            return "same"
        if not told and self._is_as_it_was(name, whole):
            return "mended"
        return "told" if any(re.search(n, err) for n in named) else f"silent: {(said + told)[:3]}"

    def _is_as_it_was(self, name: str, whole: dict) -> bool:
        try:
            found = contents(self.work, only=name)
        except Exception:  # whatever a reader of the damaged file raises
            return False
        return not self.volatile.differences(found, whole)


def main() -> int:
    """Parse the flags, flip, return 1 where something was silent, a traceback or a hang."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=500, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=[kind.name for kind in KINDS])
    flags = parser.parse_args()
    failed = 0
    print(
        f"{machine()}\n\n| file | flips | refused | mended | told | same | failed | command |\n| --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    with tempfile.TemporaryDirectory() as folder:
        kinds = [kind for kind in KINDS if not flags.kind or kind.name in flags.kind]
        found = states(Path(folder), kinds)
        for kind in kinds:
            draw, counts = random.Random(f"{flags.seed} {kind.name}"), Counter[str]()
            trial = Trial(kind, found[kind.state], Path(folder) / "x")
            for _ in range(flags.flips):
                outcome = trial.outcome(draw)
                known = outcome in ENDS
                counts[outcome if known else "failed"] += 1
                if not known:
                    print(f"{kind.name}, {trial.bit}: {outcome[:300]}", file=sys.stderr, flush=True)
            ends = " | ".join(str(counts[end]) for end in (*ENDS, "failed"))
            print(
                f"| {kind.name} | {flags.flips} | {ends} | {' '.join(kind.words[:3])} |",
                flush=True,
            )
            failed += counts["failed"]
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
