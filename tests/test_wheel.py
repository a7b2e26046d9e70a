"""The wheel: what `pip install` gives, used from an empty folder far from any checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
ROOMS = PROJECT["tool"]["setuptools"]["package-dir"]


def test_the_list_of_packages_is_that_of_the_folders() -> None:
    """Otherwise a wheel would lack a folder that every checkout has."""
    top = [ROOT / "onepass", *(ROOT / folder for folder in ROOMS.values())]
    folders = [path.parent for room in top for path in room.rglob("__init__.py")]
    names = [".".join(folder.relative_to(ROOT).parts) for folder in folders]
    found = {name if name == "onepass" else f"onepass.{name}" for name in names}
    assert set(PACKAGES) == found and len(PACKAGES) == len(found)
    without = [
        f for room in top for f in room.rglob("*.py") if not (f.parent / "__init__.py").exists()
    ]
    assert without == []


def test_a_checkout_uses_its_own_files_installed_or_not() -> None:
    code = "import onepass.cache.rows as rows; print(rows.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert Path(done.stdout.strip()) == ROOT / "cache" / "rows.py", done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: building leaves folders beside the sources."""
    copy = tmp_path_factory.mktemp("sources")
    for name in ("onepass", *ROOMS.values()):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("store", "raw", "__pycache__")
        )
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(copy / "dist"), str(copy)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = (copy / "dist").glob("*.whl")
    return made


@pytest.fixture(scope="module")
def onepass(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Run a program of a fresh environment with the wheel in it, from an empty folder.

    The environment borrows the dependencies (2 GB) of the one that runs the tests.
    """
    place = tmp_path_factory.mktemp("fresh")
    environment, home = place / "environment", place / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, str(wheel)], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    hidden = ("PYTHONPATH", "ONEPASS_CACHE", "ONEPASS_RUNS")
    clean = {name: value for name, value in os.environ.items() if name not in hidden}

    def run(program: str, *words: str) -> str:
        command = [str(environment / "bin" / program), *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=home, env=clean)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_wheel_holds_one_package_and_says_that_it_is_typed(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"onepass"}
    assert "onepass/py.typed" in names
    held = {name.rpartition("/")[0].replace("/", ".") for name in names if name.endswith(".py")}
    assert held == set(PACKAGES)
    for data in ("extract/backbones/applications.csv", "data/imagenet_wnids.txt"):
        assert f"onepass/{data}" in names
    kept = [p for room in ROOMS.values() for p in (ROOT / room / "templates").rglob("*.*")]
    assert kept and all(f"onepass/{p.relative_to(ROOT)}" in names for p in kept)


@pytest.mark.slow
def test_from_images_to_the_page_in_an_empty_folder(onepass: Callable[..., str]) -> None:
    where = "import onepass, pathlib; print(onepass.__file__); print(pathlib.Path.cwd())"
    file, home = map(Path, onepass("python", "-c", where).splitlines())
    assert file.parent.parent.name == "site-packages" and ROOT not in file.parents
    names = [path.name for path in file.parent.parent.iterdir()]
    assert not {"data", "cache", "extract", "classify"} & set(names)

    onepass("onepass", "data", "prepare", "digits")
    onepass("onepass", "extract", "--dataset", "digits", "--backbone", "efficientnet_lite0", "--size", "32")  # fmt: skip
    onepass("onepass", "classify", "--dataset", "digits", "--head", "ridge")
    onepass("onepass", "report")
    assert (home / "cache/store/digits/features/efficientnet_lite0@32.h5").is_file()
    assert (home / "runs/digits/leaderboard.json").is_file()
    assert (home / "runs/digits/report.html").is_file()
    assert sorted(path.name for path in home.iterdir()) == ["cache", "runs"]

    public = "import onepass; print(len(onepass.open_dataset('digits').names), sorted(onepass.__all__) == sorted(dir(onepass)))"
    assert onepass("python", "-c", public) == "1797 True\n"
    assert "usage: onepass" in onepass("onepass", "--help")
