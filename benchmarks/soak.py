"""Hours of everything at once: images come, go and change their class while commands read, write and are killed.

    python benchmarks/soak.py [--minutes 60] [--seed 0]

One user changes the folder, prepares, extracts, trains, predicts; a second one extracts at another size; two
readers compare each vector that the store serves with that of a store made at one go. Half of the users' commands
are killed at a random moment and run again. Printed: commands, kills, rows served and compared, rows that were
wrong and commands that ended in another way than they should (0 and 0 are expected).
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from campaign import CLASSIFY, EXTRACT, KEY, PREPARE, finished, onepass, write_images
from common import machine

POOL = 90  # images in all
LEAST = 4  # of a class in a split
OTHER_SIZE = tuple("24" if word == "16" else word for word in EXTRACT)
WORK = (
    (CLASSIFY, 4),
    (("classify", "ensemble", "--dataset", "x"), 1),
    (("classify", "inspect", "--dataset", "x"), 1),
    (("predict", "x", "new", "--out", "answers.csv"), 2),
    (("predict", "x", "--split", "val"), 2),
    (("finetune", "--dataset", "x", "--epochs", "1", "--batch", "12", "--run", "a", "--checkpoint-every", "1s"), 1),
    (("report", "--dataset", "x"), 1),
)  # fmt: skip
# One line each that a command may end with because somebody else was at work.
PASSING = (
    "is being written",
    "in use by",
    "is prepared",
    "changed",
    "extract",
    "classify",
    "another",
    "again",
)


def served(folder: Path) -> list[tuple[bytes, np.ndarray]]:
    """Return content and vector of each row that a store has."""
    from onepass.cache.rowfile import RowFile

    columns = RowFile.open(folder / "store" / "x" / "features" / f"{KEY}.h5").columns
    return [
        (c.tobytes(), row) for c, row in zip(columns["content"], columns["features"], strict=True)
    ]


class Soak:
    """The folder, its users and what they saw."""

    def __init__(self, root: Path, seed: int, minutes: float) -> None:
        self.folder, self.draw, self.end = (
            root / "soak",
            random.Random(seed),
            time.monotonic() + 60 * minutes,
        )
        self.counts, self.lock = Counter[str](), threading.Lock()
        self.expected = self._expected(root / "pool")
        self.waiting = sorted((root / "pool" / "images").rglob("*.png"))
        self.draw.shuffle(self.waiting)
        for place in [f"{split}/{label}" for split in ("train", "val") for label in "abc"] * LEAST:
            self._take(place)
        write_images(self.folder / "new", {"a": 6}, seed=9)

    def _expected(self, pool: Path) -> dict[bytes, np.ndarray]:
        """Return the vector of each image of the pool by its content, from a store made at one go."""
        write_images(pool / "images", {f"train/{c}": POOL // 3 for c in "abc"})
        for words in (PREPARE, EXTRACT):
            code, _, err, _ = finished(pool, *words)
            if code:
                raise SystemExit(err)
        return {content: row.copy() for content, row in served(pool)}

    def _take(self, place: str) -> None:
        path = self.waiting.pop()
        target = self.folder / "images" / place / f"{path.parent.name}-{path.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)

    def change(self) -> None:
        """Add, remove, rename or relabel an image."""
        folders = sorted((self.folder / "images").glob("*/*"))
        spare = [path for folder in folders for path in sorted(folder.iterdir())[LEAST:]]
        what = self.draw.choice(["add", "add", "remove", "move"])
        place = f"{self.draw.choice(['train', 'val'])}/{self.draw.choice('abc')}"
        if what == "add" and self.waiting:
            self._take(place)
        elif spare:
            path = self.draw.choice(spare)
            self.waiting.append(
                path.rename(self.folder / path.name)
            ) if what == "remove" else path.rename(self.folder / "images" / place / path.name)
        self.count(what)

    def count(self, what: str, number: int = 1) -> None:
        """Count from any thread."""
        with self.lock:
            self.counts[what] += number

    def command(self, words: tuple[str, ...], draw: random.Random, usual: float = 4.0) -> None:
        """Run a command, killed before in one of two cases, to its end."""
        if draw.random() < 0.5:
            process = onepass(self.folder, *words)
            time.sleep(draw.uniform(0, usual))
            if process.poll() is None:
                self.count("kills")
            process.send_signal(signal.SIGKILL)
            process.communicate()
        code, _, err, _ = finished(self.folder, *words)
        last = (err.strip().splitlines() or [""])[-1]
        self.count("commands")
        if (
            "Traceback" in err
            or code not in (0, 1, 75)
            or (code == 1 and not any(p in last for p in PASSING))
        ):
            self.count("ended wrongly")
            print(f"{' '.join(words[:3])}: {code} {last[:300]}", file=sys.stderr, flush=True)
        elif code:
            self.count("had to wait for another")

    def user(self) -> None:
        """Change something and do all the work again."""
        while time.monotonic() < self.end:
            for _ in range(self.draw.randint(1, 4)):
                self.change()
            self.command(PREPARE, self.draw)
            self.command(EXTRACT, self.draw)
            work, weights = zip(*WORK, strict=True)
            for words in self.draw.choices(work, weights, k=2):
                self.command(words, self.draw)

    def second_user(self) -> None:
        """Extract at another size, again and again."""
        draw = random.Random(1)
        while time.monotonic() < self.end:
            self.command(OTHER_SIZE, draw)
            time.sleep(draw.uniform(0, 2))

    def reader(self) -> None:
        """Compare what the store serves with what it must be."""
        from onepass.cache.errors import OnepassError

        while time.monotonic() < self.end:
            time.sleep(0.2)
            try:
                rows = served(self.folder)
            except OnepassError:
                continue
            wrong = [
                not np.allclose(row, self.expected[c], rtol=1e-5, atol=1e-6) for c, row in rows
            ]
            self.count("wrong rows", sum(wrong))
            self.count("rows served and compared", len(rows))

    def conclude(self) -> None:
        """Bring everything to its end once more, and look for what is lost or left over."""
        again = [
            words for words, _ in WORK if words[0] != "finetune"
        ]  # its run is of an earlier state
        for words in (PREPARE, EXTRACT, OTHER_SIZE, *again, ("cache", "verify")):
            code, _, err, _ = finished(self.folder, *words)
            if code:
                self.count("ended wrongly")
                print(
                    f"at the end: {' '.join(words[:3])}: {err.strip().splitlines()[-1:]}",
                    file=sys.stderr,
                )
        self.end = time.monotonic() + 0.5
        self.reader()
        left = [
            p
            for p in self.folder.rglob("*")
            if p.name.startswith(".tmp-") or p.name.endswith((".parts", ".lock"))
        ]
        left = [p for p in left if "finetune" not in p.parts]
        self.count("left over", len(left))
        if left:
            print(f"left over: {left[:5]}", file=sys.stderr)


def main() -> int:
    """Parse the flags, soak, return 1 where a row was wrong or a command ended wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        finished(Path(folder), "data", "list")  # starts the process that others are forked from
        soak = Soak(Path(folder), flags.seed, flags.minutes)
        threads = [
            threading.Thread(target=work)
            for work in (soak.user, soak.second_user, soak.reader, soak.reader)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        soak.conclude()
    print(f"{machine()}, {flags.minutes:g} minutes, seed {flags.seed}")
    wanted = (
        "commands",
        "kills",
        "add",
        "remove",
        "move",
        "had to wait for another",
        "rows served and compared",
    )
    for name in (*wanted, "wrong rows", "ended wrongly", "left over"):
        print(f"  {name}: {soak.counts[name]:,}")
    return int(any(soak.counts[name] for name in ("wrong rows", "ended wrongly", "left over")))


if __name__ == "__main__":
    sys.exit(main())
