"""`onepass doctor`: why there is no GPU, what a file system can do, and what the rates mean."""

import errno
import fcntl
import json
import mmap
from dataclasses import replace
from pathlib import Path

import processes
import pytest

from onepass.cache.file_system import try_file_system
from onepass.doctor import DRIVER, by_size_class, why_no_gpu
from onepass.extract.backbones.registry import find_backbone

NVIDIA = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1"


@pytest.mark.parametrize(
    ("backend", "driver", "visible", "packages", "said"),
    [
        ("tensorflow", "", None, [], f"no NVIDIA driver is loaded ({DRIVER} is not there)"),
        ("tensorflow", NVIDIA, "", ["nvidia-cudnn-cu12"], "CUDA_VISIBLE_DEVICES='' hides all GPUs; unset it"),
        ("jax", NVIDIA, "-1", ["jax-cuda12-plugin"], "CUDA_VISIBLE_DEVICES='-1' hides all GPUs; unset it"),
        ("tensorflow", NVIDIA, None, [], 'without CUDA; run: pip install "onepass[cuda]"'),
        ("tensorflow", NVIDIA, None, ["jax-cuda12-plugin"], 'run: pip install "onepass[cuda]"'),
        ("jax", NVIDIA, None, ["nvidia-cudnn-cu12"], 'run: pip install "onepass[jax-cuda]"'),
        ("jax", NVIDIA, "7", ["jax-cuda12-plugin"], "CUDA_VISIBLE_DEVICES='7' names none that jax can use"),
        ("tensorflow", NVIDIA, None, ["nvidia-cudnn-cu12"], "though driver and packages are there (NVRM version"),
    ],
)  # fmt: skip
def test_why_there_is_no_gpu(
    backend: str, driver: str, visible: str | None, packages: list[str], said: str
) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert said in why_no_gpu(backend, driver, environment, packages)


def test_a_file_system_is_really_tried_and_nothing_is_left(tmp_path: Path) -> None:
    found = try_file_system(tmp_path / "store" / "that" / "is" / "not" / "there")
    assert found.problem == "" and found.free > 0 and found.path.is_absolute()
    assert list(tmp_path.iterdir()) == []


def test_locks_that_do_not_work_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *given: None)
    assert try_file_system(tmp_path).problem == "a lock does not keep others out"

    def refuse(*given: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert (
        "files cannot be locked ([Errno 37] No locks available)" in try_file_system(tmp_path).locks
    )


def test_memory_maps_that_do_not_work_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*given: object, **options: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    found = try_file_system(tmp_path)
    assert found.locks == "" and "cannot be mapped into memory" in found.maps


def test_size_classes_hold_every_backbone_once_the_smallest_first() -> None:
    lite0 = find_backbone("efficientnet_lite0")
    sizes = (30.0, 5.0, 99.0, 1200.0, 24.0)
    specs = [replace(lite0, name=f"b{n}", weights_mb=mb) for n, mb in enumerate(sizes)]
    groups = [[spec.weights_mb for spec in group] for group in by_size_class(specs)]
    assert groups == [[5.0, 24.0], [30.0, 99.0], [1200.0]]


@pytest.mark.slow
def test_the_command_says_what_is_here_and_for_how_long(tmp_path: Path) -> None:
    """On digits: their number is what the time is told for."""
    places = ("--cache-dir", str(tmp_path / "store"), "--runs-dir", str(tmp_path / "runs"))
    env = {"TINY_BACKBONE": "1", "ONEPASS_ENGINE": "keras", "CUDA_VISIBLE_DEVICES": "-1"}
    assert processes.run("data", "prepare", "digits", *places[:2]).returncode == 0
    done = processes.run("doctor", "--json", "--seconds", "0.5", *places, **env)
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["images"] == 1797 and found["leftovers"] == 0
    assert "efficientnet_lite0" in found["weights"] and found["store"]["locks"] == ""
    rate = found["rates"][0]
    assert rate["backbone"] == "tiny" and rate["why"] == "as asked for"
    assert rate["timed"] == 0.5 and "tiny at 16 px: " in done.stderr
    assert rate["seconds"] == pytest.approx(1797 / rate["rate"])
    text = processes.run("doctor", "--quick", *places, **env).stdout
    assert "locks and memory maps work" in text and "\nrate " not in text
