"""Models that travel: the model folder, and networks for other programs, each with its example."""

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import picture_store
import pytest
from PIL import Image

import onepass
from conftest import fields_of
from onepass.__main__ import run
from onepass.cache.errors import CorruptFileError, InvalidInputError, UsageError
from onepass.classify.leaderboard.board import Leaderboard
from onepass.predict.example import FITS, RUNTIMES, example_text
from onepass.predict.model_files import FORMATS
from onepass.predict.model_folder import ModelRecord
from onepass.predict.pixel_classifier import PictureGeometry

pytestmark = pytest.mark.slow
PACKAGES = {
    "onnx": ("tf2onnx", "onnx", "onnxruntime"),
    "litert": ("ai_edge_litert",),
    "openvino": ("openvino",),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    with picture_store.opened(tmp_path_factory) as found:
        yield found


def flags(places: dict[str, Path]) -> list[str]:
    return [f"--{name.replace('_', '-')}={path}" for name, path in places.items()]


def exported(places: dict[str, Path], out: Path, *models: str, formats: Any = ("folder",)) -> Path:
    """Export; return the folder of the files, or the model folder where that is the only format."""
    words = ["predict", "export", *models, "--out", str(out), "--format", *formats]
    assert run([*words, *flags(places)]) == 0
    return next(out.glob("*-folder")) if tuple(formats) == ("folder",) else out


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """200 pictures of every kind, none of them a row: JPEG with EXIF 1 to 8, grey, CMYK, alpha, 16 bits, …"""
    folder = tmp_path_factory.mktemp("new")
    made = []
    for number in range(200):
        kind = picture_store.KINDS[number % len(picture_store.KINDS)]
        made.append(folder / f"{number:03d} {kind}{picture_store.suffix(kind)}")
        # // : each kind comes with each class, and EXIF with each of its eight turns
        made[-1].write_bytes(picture_store.picture(kind, number % 3, 7000 + number // 10))
    return made


@pytest.mark.parametrize(
    "models",
    [("birds",), ("birds/logistic",), ("birds/knn",), ("birds/r1",), ("birds/average",), ("birds", "birds/r1")],
    ids=" ".join,
)  # fmt: skip
def test_a_model_folder_says_the_same_without_store_and_results(
    places, files, tmp_path, models: tuple[str, ...]
) -> None:
    expected = onepass.load_predictor(*models, abstain=0.1, **places)(files)
    folder = exported(places, tmp_path / "out", *models).rename(tmp_path / "moved")
    gone = {"cache_dir": tmp_path / "none", "runs_dir": tmp_path / "none"}
    found = onepass.load_predictor(str(folder), abstain=0.1, **gone)
    said = found(files)
    np.testing.assert_array_equal(said.probabilities, expected.probabilities)
    np.testing.assert_array_equal(said.novelty, expected.novelty)
    assert said.open_because == expected.open_because
    assert said.class_names == list(picture_store.CLASSES)
    with pytest.raises(UsageError, match="without its data set: expected new pictures"):
        found.predict_split("val")


@pytest.mark.parametrize("model", ["birds/logistic", "birds/r1"])
def test_a_model_folder_answers_by_its_operating_point(places, files, tmp_path, model: str) -> None:
    """Decisions, card and record go along; --at none gives the most probable class."""
    at = {"at": "sensitivity=0.6", "positive": "jay"}
    expected = onepass.load_predictor(model, **at, **places)(files)
    words = ["--at", at["at"], "--positive", at["positive"]]
    folder = exported(places, tmp_path / "out", model, *words).rename(tmp_path / "moved")
    found = onepass.load_predictor(str(folder))
    assert found.point and found.point == ModelRecord.read(folder / "model.json").about.point
    np.testing.assert_array_equal(found(files).classes, expected.classes)
    assert (expected.classes != expected.probabilities.argmax(axis=1)).any()
    plain = onepass.load_predictor(str(folder), at="none")(files)
    np.testing.assert_array_equal(plain.classes, expected.probabilities.argmax(axis=1))
    assert (
        "Operating point sensitivity=0.6: jay from a probability"
        in (folder / "MODEL_CARD.md").read_text()
    )
    with pytest.raises(UsageError, match="operating point of a model folder"):
        onepass.load_predictor(str(folder), **at)


def test_models_that_travel_answer_for_the_mix_they_were_exported_for(
    places, files, tmp_path, capsys
) -> None:
    """Probabilities of folder and network, card, and another mix in place of it."""
    model, asked = "birds/logistic", {"prior": "jay:0.02"}
    out = exported(places, tmp_path / "out", model, "--prior=jay:0.02", formats=("folder", "keras"))
    (folder,), (network,) = out.glob("*-folder"), out.glob("*.keras")
    expected = onepass.load_predictor(model, **asked, **places)
    found = onepass.load_predictor(str(folder))
    assert found.prior == expected.prior and found.prior.used[2] == 0.02
    np.testing.assert_array_equal(
        found(files[:40]).probabilities, expected(files[:40]).probabilities
    )
    split = expected.predict_split("val")
    by_network = FORMATS["keras"].run(network, expected.dataset.pixels[split.rows])
    np.testing.assert_allclose(by_network, split.probabilities, atol=1e-3)
    card = (folder / "MODEL_CARD.md").read_text()
    assert "for the mix of classes in use, as given:" in card and "jay 2 %" in card
    score = ModelRecord.read(folder / "model.json").about.facts.validation
    plain = onepass.load_predictor(model, **places).predict_split("val")
    right = plain.classes == expected.dataset.labels[split.rows]
    assert score and score.top1 == right.mean()  # of the training mix, which that of validation is
    words = ["predict", str(folder), *map(str, files), "--prior=estimate", "--copy-to"]
    capsys.readouterr()
    assert run([*words, str(tmp_path / "sorted"), f"--out={tmp_path / 'a.csv'}"]) == 0
    assert "estimated on 200 images" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    by_class = {row["class_name"]: float(row["prior"]) for row in rows}
    assert sum(by_class.values()) == pytest.approx(1, abs=1e-5)
    assert min(by_class.values()) > 0.1  # a third of each
    assert all(list((tmp_path / "sorted" / name).iterdir()) for name in by_class)
    with pytest.raises(InvalidInputError, match="expected at least 50 images"):
        onepass.load_predictor(str(folder), prior="estimate")(files[:40])


def test_the_command_takes_a_model_folder(places, files, tmp_path, capsys) -> None:
    folder = exported(places, tmp_path / "out", "birds")
    known = ModelRecord.read(folder / "model.json").about
    score = known.facts.validation
    assert score and score.rows == 30 and score.interval[0] < score.top1 <= score.interval[1]
    card = (folder / "MODEL_CARD.md").read_text()
    assert (
        f"top-1 {score.top1:.1%}" in card
        and "great tit" in card
        and known.facts.made_by.created in card
    )
    capsys.readouterr()
    words = ["predict", str(folder), str(files[0].parent), f"--out={tmp_path / 'o.csv'}"]
    assert run([*words, f"--cache-dir={tmp_path}", f"--runs-dir={tmp_path}"]) == 0
    assert "200 pictures by birds/" in capsys.readouterr().out
    for more, why in (
        ([], "predicts new pictures"),
        (["birds", "a.jpg"], "stands alone"),
        (["a.jpg", "--views", "flip"], "leave --views"),
    ):
        assert run(["predict", str(folder), *more, *flags(places)]) == 2
        assert why in capsys.readouterr().err


def test_a_model_folder_that_was_changed_is_refused(places, tmp_path) -> None:
    folder = exported(places, tmp_path / "out", "birds/r1", "birds/logistic")
    for number, file in enumerate(sorted(path for path in folder.rglob("*.*") if path.is_file())):
        damaged = Path(shutil.copytree(folder, tmp_path / f"damaged {number}"))
        inside = damaged / file.relative_to(folder)
        content = bytearray(inside.read_bytes())
        content[len(content) // 2] ^= 1
        inside.write_bytes(content)
        with pytest.raises(CorruptFileError):
            onepass.load_predictor(str(damaged))
        inside.unlink()
        if inside.name != "model.json":
            with pytest.raises(CorruptFileError, match="no such file"):
                onepass.load_predictor(str(damaged))
            inside.symlink_to("/dev/zero")
            with pytest.raises(CorruptFileError, match="a pipe or a device"):
                onepass.load_predictor(str(damaged))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "weights/../../secret", "a\\..\\b"])
def test_a_strangers_model_folder_reads_nothing_outside(places, tmp_path, name: str) -> None:
    folder = exported(places, tmp_path / "out", "birds/r1")
    value = fields_of(folder / "model.json")
    (weights,) = [name for name in value["files"] if name.startswith("weights/")]
    value["files"][name] = value["files"].pop(weights)
    value["model"]["weights"] = name
    (folder / "model.json").write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match="leads out of the folder"):
        onepass.load_predictor(str(folder))
    del value["files"][name]
    (folder / "model.json").write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match="is not among its files"):
        onepass.load_predictor(str(folder))
    value["about"]["name"] = "../../evil"
    (folder / "model.json").write_text(json.dumps(value))
    with pytest.raises(CorruptFileError, match=r"model.*expected"):
        onepass.load_predictor(str(folder))


def linear_stack(places: dict[str, Path]) -> str:
    """The ensemble of which every member is a network."""
    dataset = onepass.open_dataset("birds", cache_dir=places["cache_dir"])
    board = Leaderboard.load(places["runs_dir"] / "birds", "birds", dataset.digest)
    (name,) = [
        line.id
        for line in board.results
        if line.head == "stack" and all(board.find(m).head != "knn" for m in line.members)
    ]
    return f"birds/{name}"


# A stack of probes and an average with a run hold every kind of head and network.
ABROAD = [
    ("birds/logistic", "onnx"),
    *(("linear stack", name) for name in [*RUNTIMES, "saved_model-files"]),
    *(("birds/r1 birds/lda", name) for name in RUNTIMES),
]
OUTSIDE = """
import contextlib, io, json, os, runpy, sys
said = []
for folder, program, files in json.load(sys.stdin):
    os.chdir(folder)
    sys.argv = [program, *files]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        runpy.run_path(program, run_name="__main__")
    said.append(out.getvalue())
assert "onepass" not in sys.modules
print(json.dumps(said))
"""


def names_of(places: dict[str, Path], models: str) -> list[str]:
    return [linear_stack(places)] if models == "linear stack" else models.split()


def installed(example: str) -> bool:
    return all(find_spec(name) for name in PACKAGES.get(example, ()))


def shown_to(example: str, files: list[Path]) -> list[Path]:
    """Every kind of picture, and EXIF with each of its eight turns; a SavedModel reads two kinds itself."""
    if example == "saved_model-files":
        return [file for file in files if file.suffix in (".jpg", ".png")]
    return files[:80]


@pytest.fixture(scope="module")
def abroad(places, files, tmp_path_factory) -> dict[tuple[str, str], tuple[Path, str]]:
    """The folder of each example and what it says, in ONE process without the checkout on its path."""
    there = [one for one in ABROAD if installed(one[1])]
    folders = {}
    for models in dict.fromkeys(models for models, _ in there):
        formats = [name for of, name in there if of == models and name in RUNTIMES]
        folders[models] = exported(
            places, tmp_path_factory.mktemp("out"), *names_of(places, models), formats=formats
        )
    asked = [
        (str(folders[of]), f"example-{name}.py", list(map(str, shown_to(name, files))))
        for of, name in there
    ]
    done = subprocess.run(
        [sys.executable, "-I", "-c", OUTSIDE],
        input=json.dumps(asked), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    return {one: (folders[one[0]], text) for one, text in zip(there, said, strict=True)}


@pytest.mark.parametrize(("models", "example"), ABROAD)
def test_each_format_says_what_predict_says_of_files_from_disk(
    places, files, abroad, models: str, example: str
) -> None:
    if not installed(example):
        pytest.skip(f"needs {', '.join(PACKAGES[example])}")
    folder, said = abroad[models, example]
    shown = shown_to(example, files)
    expected = onepass.load_predictor(*names_of(places, models), **places)(shown)
    program = (folder / f"example-{example}.py").read_text()
    assert "import onepass" not in program and program.count("\n") <= 30
    lines = [line.split("\t") for line in said.splitlines()]
    assert [line[0] for line in lines] == [str(file) for file in shown]
    itself = example == "saved_model-files"
    assert ("PIL" in program) != itself
    # a grey level that another library rounds otherwise moves this untrained network by 0.001
    most = 1e-4 if itself else 2e-3
    found = np.array([json.loads(line[2]) for line in lines])
    np.testing.assert_allclose(found, expected.probabilities, atol=most)
    first, second = np.sort(expected.probabilities, axis=1)[:, :-3:-1].T
    decided = first - second > most  # of the others either is right
    same = np.array([line[1] for line in lines]) == np.array(expected.class_names)[expected.classes]
    assert np.all(same[decided]) and decided.mean() > 0.9


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad", "pad mean", "pad reflect"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_example_decodes_as_prepare_does(files, tmp_path, fit: str, channels: int) -> None:
    geometry = PictureGeometry(26, channels, fit)
    program = example_text("onnx", "m.onnx", geometry).replace("import onnxruntime", "")
    space: dict[str, Any] = {}
    exec(program.split("names = ")[0], space)  # its own text
    large = tmp_path / "large.jpg"
    Image.effect_noise((1664, 840), 60).convert("RGB").save(large, quality=80)
    for file in [*files[:60], large]:
        np.testing.assert_array_equal(
            space["decode"](file), geometry.pixels(file.read_bytes(), file.name), err_msg=file.name
        )
    assert fit.split()[0] in FITS


def test_a_head_that_is_no_network_goes_by_folder_only(places, tmp_path, capsys) -> None:
    for model in ("birds/knn", "birds/majority"):
        words = ["predict", "export", model, "--format", "keras", "--out", str(tmp_path / "o")]
        assert run([*words, *flags(places)]) in (1, 2)
        said = capsys.readouterr().err
        assert "--format folder" in said or "looks at pictures" in said
        assert not (tmp_path / "o").exists()
