"""Both notebooks run as they are, with a small network and little time, in a kernel of their own."""

import json
import re
import sys
from pathlib import Path

import nbformat
import numpy as np
import processes
import pytest
from nbclient import NotebookClient
from PIL import Image

from conftest import ROOT

TESTS = Path(__file__).parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# A kernel is forked from where everything is imported, and knows the small network.
FORKED = """
import os, sys
sys.path.insert(0, sys.argv[1])
import processes
kernel = "import ipykernel.kernelapp; ipykernel.kernelapp.launch_new_instance()"
inline = "module://matplotlib_inline.backend_inline"
words = ("-c", kernel, "-f", sys.argv[2])
done = processes.run(*words, cwd=os.getcwd(), PROGRAM="1", TINY_BACKBONE="1", MPLBACKEND=inline)
sys.exit(done.stderr if done.returncode else 0)
"""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes.begin()
    folder = tmp_path / "jupyter" / "kernels" / "forked"
    folder.mkdir(parents=True)
    words = [sys.executable, "-c", FORKED, str(TESTS), "{connection_file}"]
    spec = {"argv": words, "display_name": "forked", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))


def executed(name: str, folder: Path, **parameters: object) -> str:
    """Run a notebook in a folder, with other parameters; return all that its cells print."""
    notebook = nbformat.read(ROOT / "notebooks" / name, 4)
    cells = {tag: c for c in notebook.cells for tag in c.metadata.get("tags", [])}
    cells["parameters"].source += "".join(f"\n{k} = {v!r}" for k, v in parameters.items())
    if "install" in cells:  # what is tested is the checkout
        notebook.cells.remove(cells["install"])
    folder.mkdir(exist_ok=True)
    where = {"metadata": {"path": str(folder)}}
    patience = {"startup_timeout": 600, "timeout": 600}  # seconds: the machine may be busy
    NotebookClient(notebook, kernel_name="forked", resources=where, **patience).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs if output.get("name") == "stdout")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_valid_small_and_says_nothing_of_one_machine(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    text = path.read_text(encoding="utf-8")
    assert len(text) < 600_000
    assert re.findall(r"/(?:root|home|tmp|work|Users)/\S*", re.sub(r'"image/png": "[^"]*"', "", text)) == []  # fmt: skip
    for cell in notebook.cells:
        assert all(output.output_type != "error" for output in cell.get("outputs", []))


def test_the_quickstart_is_committed_with_its_pictures() -> None:
    notebook = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", 4)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


@pytest.mark.slow
def test_the_quickstart_runs(tmp_path: Path, kernel: None) -> None:
    place = tmp_path / "quickstart"
    printed = executed("quickstart.ipynb", place, DATASET="digits", BACKBONE="tiny", SIZE=16)
    assert "tiny@16 (1797, 16) float16 computed" in printed
    assert (place / "runs" / "digits" / "report.html").exists()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A competition's folder: two classes to learn, and pictures to name."""
    random = np.random.default_rng(0)
    for number in range(80):
        name = ("red", "blue")[number % 2] if number < 60 else ""
        path = tmp_path / "images" / ("train" if name else "test") / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60, (16, 16, 3), dtype=np.uint8)
        pixels[..., 2 * (number % 2)] += 120
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


def state(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(p.relative_to(folder)): p.stat() for p in sorted(folder.rglob("*"))}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


@pytest.mark.slow
def test_a_kaggle_session_stops_in_time_and_the_next_one_ends_with_a_submission(
    tmp_path: Path, kernel: None, images: Path
) -> None:
    given = {"IMAGES": str(images), "BACKBONES": ["tiny"], "SIZE": 16, "EPOCHS": 1}
    first, second = tmp_path / "first", tmp_path / "second"
    printed = executed("kaggle.ipynb", first, **given, EARLIER="nothing", HOURS=0)
    assert "the first session" in printed and "80 images decoded" in printed
    assert "Work is left" in printed and not (first / "submission.csv").exists()

    before = state(first)
    printed = executed("kaggle.ipynb", second, **given, EARLIER=str(first), HOURS=1)
    assert "0 images decoded, 80 carried over" in printed and "Work is left" not in printed
    assert state(first) == before  # it was only read
    lines = (second / "submission.csv").read_text().splitlines()
    assert lines[0] == "Id,Category" and len(lines) == 21
    answers = dict(line.split(",") for line in lines[1:])
    assert all(answers[f"test/{n}.png"] == ("red", "blue")[n % 2] for n in range(60, 80))
