"""Every command in docs/commands.md and docs/errors.md is given, on small pictures and by tiny networks, in one process.

The console blocks of the page are compared with what is printed by tests/test_readme.py.
"""

import io
import json
import os
import re
import shlex
import shutil
import tarfile
import time
import traceback
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image
from test_readme import BLOCK, PAGES, pictures

from onepass.__main__ import run as onepass

# Beginnings (patterns) of lines that are only parsed, and why.
NOT_RUN = {
    "run my-images": "README.md has it, and it is run there",
    "run solar-cells": "minutes, on all solar cells: `make demo`, which the release checklist asks for",
    "data prepare solar-cells": "10 s of decoding: tests/test_data_packages.py does it",
    "data prepare tiny-imagenet$": "it needs the network: tests/test_data_tiny_imagenet.py serves an archive",
    "data prepare hf://": "it needs a download: tests/test_data_hugging_face.py makes one by the library",
    "data prepare tfds://": "it needs a download: tests/test_data_tensorflow_datasets.py makes one",
    "extract --dataset birds --backbone dinov2_small": "it needs the network: tests/test_extract_backbones_kerashub.py",
    "extract --dataset birds --backbone hf://": "it needs the network: tests/test_extract_backbones_handles.py",
    "extract --dataset birds --backbone vgg16 --weights": "its digest is cut short: tests/test_extract_backbones_weights.py",
    ".* --executor (dask|ray) ": "the address of a cluster: tests/test_extract_cluster.py, tests/test_data_cluster.py, tests/test_predict_cluster.py",
    "finetune --dataset birds --coordinator": "several hosts: tests/test_finetune_hosts.py",
    "finetune --dataset birds --log": "tests/test_finetune_log.py gives it and reads what it wrote",
    "finetune --dataset birds --learning-rate auto": "tests/test_finetune.py: the rate is looked for once",
    "finetune ablate": "thirty runs: its example in --help is run, tests/test_help_examples.py",
    "predict export birds/a --format keras": "every format, written and read back: tests/test_predict_export.py",
}  # fmt: skip
# Lines of other programs, and why they are not run.
OTHER = {
    "dask ": "a cluster: tests/test_extract_cluster.py",
    "ray ": "the same",
    "srun ": "Slurm",
    "python benchmarks/de2020.py": "tests/test_benchmarks_de2020.py",
    "mkdir -p serving": "for the container in the next line",
    "docker ": "a container",
    'echo "{': "the server in it",
    "  curl ": "the same",
    "make ": "this is one of them",
}
# What a line is given as here: other networks, less of the work.
SMALLER = (
    (r"^(run .*)", r"\1 --backbone efficientnet_lite0"),
    (r"resnet50|xception", "efficientnet_lite1"),
    (r"block13_sepconv2_act", "relu1"),
    (r"last:40", "last:2"),
    (r"--epochs \d+", "--epochs 1"),
    (r"^finetune (?!errors)(?!.*--epochs)(.*)", r"finetune \1 --epochs 1"),
    (r"^finetune (?=--)(.*)", r"finetune \1 --rows 16 --batch 8 --run RUN"),
    (r"^(finetune find-lr .*) --epochs 1", r"\1 --batch 8"),
    (r"--folds 5 --repeats 10", "--folds 3 --repeats 2 --head ridge"),
    (r"^(classify --dataset birds)$", r"\1 --head ridge logistic"),
    (r"^predict birds (new/ --abstain.*)", r"predict birds/a \1"),  # what can be explained
    (r" five-crop --weights", " --weights"),
    (r" --logits", ""),  # they need the real network's last layer
    (r"sensitivity=0.9\d", "sensitivity=0.6"),  # which few images can promise
    (r"^(data similar .*)", r"\1 --features efficientnet_lite0@224"),
    (r"^(doctor --images .*)", r"\1 --seconds 0.5"),
)
# What stands between the lines: what the page shows in its console blocks, or takes for granted.
BEFORE = {
    "data show solar-cells": ("data prepare cells --name solar-cells",),
    "extract --list-backbones": (
        "extract --dataset birds --backbone efficientnet_lite0 efficientnet_lite1 --size 224",
        "extract --dataset birds --backbone efficientnet_lite2 --size 260",
        "extract --dataset birds --backbone efficientnet_lite2 --size 260 --view flip",
        "extract --dataset digits --backbone efficientnet_lite0 --size 40",
        "extract --dataset solar-cells --backbone efficientnet_lite0",
        "extract --dataset tiny-imagenet --backbone efficientnet_lite0 efficientnet_lite1",
    ),
    "classify ensemble --dataset birds": (
        "classify --dataset birds --head ridge logistic --features efficientnet_lite0@224 efficientnet_lite1@224",
        "classify --dataset tiny-imagenet --head ridge",
        "classify inspect --dataset birds",
    ),
}  # fmt: skip
CLASSES = ("functional", "defective")


def shards(home: Path) -> None:
    pictures(home, (), 26, 5)
    for number in range(13):
        with tarfile.open(home / f"birds-{number:03}.tar", "w") as tar:
            for k in (2 * number, 2 * number + 1):
                for name, content in (
                    ("jpg", (home / f"{k}.jpg").read_bytes()),
                    ("cls", str(k % 2).encode()),
                ):
                    entry = tarfile.TarInfo(f"{k:03}.{name}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def table(home: Path) -> None:
    pictures(home, (), 40, 4)
    lines = [f"{n}.jpg,{('dark', 'bright')[n % 2]}" for n in range(40)]
    (home / "birds.csv").write_text("\n".join(["file,label", *lines]))


def arrays(home: Path) -> None:
    random = np.random.default_rng(6)
    images, labels = random.integers(0, 256, (40, 8, 8, 3), np.uint8), np.arange(40) % 2
    np.savez(home / "bloodmnist.npz", train_images=images, train_labels=labels)


# Lines with a source and a store of their own: beginning → what makes the source.
ALONE: dict[str, Callable[[Path], None]] = {
    "run birds.csv": table,
    "data prepare birds.csv": table,
    "data prepare 'birds-": shards,
    "data prepare bloodmnist.npz": arrays,
    "data prepare birds --hold-back": lambda home: pictures(home / "birds", CLASSES, 140, 7),
}


def fill(home: Path) -> None:
    """Make what the lines read."""
    for folder, names, count in (("train", ("dark", "bright"), 64), ("test", (), 4)):
        pictures(home / "my-images" / folder, names, count, len(names))
    pictures(home / "cells", CLASSES, 64, 2)
    pictures(home / "more" / "train", ("dark", "bright"), 8, 3)
    shutil.make_archive(str(home / "more-images"), "zip", home / "more")
    pictures(home / "new", (), 3, 8)
    shutil.make_archive(str(home / "phone"), "zip", home / "new")
    shutil.copy(home / "new" / "0.jpg", home / "new.jpg")
    shutil.copy(home / "new" / "1.jpg", home / "one.png")
    (home / "list.csv").write_text("photo\nnew/0.jpg\nnew/1.jpg\n")
    with zipfile.ZipFile(home / "tiny-imagenet-200.zip", "w") as archive:
        top, wnids = "tiny-imagenet-200", ("n01", "n02")
        archive.writestr(f"{top}/wnids.txt", "\n".join(wnids))
        archive.writestr(f"{top}/words.txt", "n01\tgoldfish\nn02\tcrane\n")
        pictures(home / "tiny", wnids, 80, 9)
        for n, path in enumerate(sorted((home / "tiny").rglob("*.jpg"))):
            wnid, name = path.parent.name, f"{n}.JPEG"
            kind = ("train", "train", "val", "test")[n % 4]
            inside = f"train/{wnid}/images/{wnid}_{name}" if kind == "train" else f"{kind}/images/{kind}_{name}"  # fmt: skip
            Image.open(path).resize((64, 64)).save(path)
            archive.write(path, f"{top}/{inside}")
        truth = [f"val_{n}.JPEG\t{('n01', 'n02')[n >= 40]}\t0\t1\t2\t3\n" for n in range(2, 80, 4)]
        archive.writestr(f"{top}/val/val_annotations.txt", "".join(truth))


def lines_of(page: str) -> list[str]:
    """Return the lines of the plain shell blocks of a page."""
    blocks = [body for _, language, body in BLOCK.findall(PAGES[page]) if language == "sh"]
    return [line for body in blocks for line in body.splitlines() if line.strip()]


def given(line: str, board: Path, run: str) -> list[str]:
    """Return the words of a line as it is given here."""
    for pattern, smaller in SMALLER:
        line = re.sub(pattern, smaller, line)
    for head in set(re.findall(r"(\w+)-[0-9a-f]{12}", line)):
        probes = [p["id"] for p in json.loads(board.read_text())["results"] if p["head"] == head]
        line = re.sub(rf"{head}-[0-9a-f]{{12}}", probes[-1], line)
    return shlex.split(line.replace("RUN", run), comments=True)


def give(*lines: str) -> int:
    """Give each line in this process, and say how it ended and how long it took; return how many failed."""
    home, alone, runs, failed = Path.cwd(), 0, iter("abcdefghijklmnop"), 0
    fill(home)
    for line in lines:
        maker = next((make for start, make in ALONE.items() if line.startswith(start)), None)
        for one in (*BEFORE.get(line, ()), line):
            place = home
            if maker:
                place, alone = home / f"alone{alone}", alone + 1
                place.mkdir()
                maker(place)
            os.chdir(place)
            board = home / "runs/birds/leaderboard.json"
            begin = time.process_time()
            try:
                words = given(one, board, next(runs) if one.startswith("finetune --") else "")
                code = onepass(words)
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException:
                traceback.print_exc()
                code = 1
            print(f"GAVE {code} {time.process_time() - begin:.2f} s {one}", flush=True)
            failed += bool(code)
    return failed


def to_run(lines: Sequence[str]) -> list[str]:
    """Return the commands of lines without their comments, but for those that are only parsed."""
    own = [line.removeprefix("onepass ").split("  #")[0].split(" # ")[0].strip() for line in lines if line.startswith("onepass ")]  # fmt: skip
    return [line for line in own if not any(re.match(start, line) for start in NOT_RUN)]


def test_every_line_of_every_page_is_run_or_left_out_with_a_reason() -> None:
    every = [line for page in PAGES for line in lines_of(page)]
    others = [line for line in every if "onepass " not in line]
    assert [line for line in others if not line.startswith((*OTHER, "python3 -m venv", "pip install"))] == []  # fmt: skip
    assert all(any(line.startswith(start) for line in every) for start in OTHER)
    own = [line.partition("onepass ")[2].split("  #")[0].strip() for line in every]
    assert all(any(re.match(start, line) for line in own) for start in NOT_RUN)
    pages = {page for page in PAGES if any(line.startswith("onepass ") for line in lines_of(page))}
    assert pages == {"README.md", "docs/commands.md"}  # the first is run by tests/test_readme.py


def test_python_that_needs_a_server_or_a_data_set_is_python() -> None:
    """Of docs/serving.md and docs/errors.md; that of the other pages is run by tests/test_readme.py."""
    bodies = [
        (page, body)
        for page in PAGES
        for marked, language, body in BLOCK.findall(PAGES[page])
        if language == "python" and not marked and page != "README.md"
    ]
    assert {page for page, _ in bodies} <= {"docs/serving.md", "docs/errors.md", "CONTRIBUTING.md"}
    for page, body in bodies:
        compile(body, page, "exec")


@pytest.mark.slow
def test_the_commands_of_the_page_work_one_after_the_other(tmp_path: Path) -> None:
    lines = to_run(lines_of("docs/commands.md"))
    assert len(lines) > 55
    done = processes.run(
        *lines, cwd=tmp_path, TINY_BACKBONE="all", ONEPASS_ENGINE="keras", PLAIN_FIGURES="1",
        CALL=f"{__name__}:give",
    )  # fmt: skip
    gave = re.findall(r"^GAVE (\d+) \S+ s (.*)$", done.stdout, re.MULTILINE)
    failed = [line for code, line in gave if code != "0"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("onepass ")]
    assert done.returncode == 0 and not failed, "\n".join([*failed, *errors])
    assert (tmp_path / "answers.csv").exists() and (tmp_path / "similar.png").exists()
    assert len(list((tmp_path / "sorted").rglob("*.jpg"))) == 3
