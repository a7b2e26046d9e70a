"""What computes a network: Keras or OpenVINO, chosen once for a file and kept."""

import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import picture_store
import processes
import pytest
import tiny_backbone
from test_extract_backbones_kerashub import TINY, _save
from test_extract_carry_over import After, feature_file, prepare, run, vectors

import onepass
from conftest import refused
from onepass.__main__ import run as main
from onepass.cache.errors import UsageError
from onepass.cache.features import FeatureKey, extract_flags, resolve_features
from onepass.cache.rows import parts_folder
from onepass.data.dataset import open_dataset
from onepass.extract.backbones import registry
from onepass.extract.backbones.registry import WeightsChoice, build_backbone, find_backbone
from onepass.extract.backend import as_list, tensorflow_graph
from onepass.extract.config import ExtractConfig
from onepass.extract.engines import openvino_engine
from onepass.extract.engines.engine import (
    ConversionError,
    Engine,
    compiler,
    distance,
    in_place_of,
)
from onepass.extract.jobs import asked_precision
from onepass.extract.network.model import build_extractor
from onepass.extract.stream import extractor
from onepass.predict.model_folder import ModelRecord

needs_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="OpenVINO is not installed"
)
BY_OPENVINO = "openvino_float32"  # every processor computes in float32
OURS = f"tiny@16={BY_OPENVINO}"


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with tiny_backbone.installed():
        yield


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `auto` take OpenVINO in float32 for the smallest job, however slow."""
    for name, value in {"FASTEST_ON_CPU": BY_OPENVINO, "CONVERTING_PAYS": 0, "FASTER": 0}.items():
        monkeypatch.setattr(extractor, name, value)


def states(store: Path, **flags: Any) -> dict[str, tuple[str, int, int]]:
    """Extract; return what became of each file: state, rows computed, rows carried over."""
    flags = {"engine": "auto", **flags}
    return {f.key: (f.state, f.computed, f.carried) for f in run(store, **flags).files}


# ---- names ----


def test_a_precision_says_engine_and_numbers() -> None:
    said = {
        "float32": ("keras", "float32", "float32"),
        "mixed_bfloat16": ("keras", "mixed_bfloat16", "mixed_bfloat16"),
        "openvino_bfloat16": ("openvino", "bfloat16", "float32"),
    }
    for precision, (name, numbers, policy) in said.items():
        found = Engine.of(precision)
        assert (found.name, found.numbers, found.policy) == (name, numbers, policy)
        assert found.precision == precision
    assert str(Engine.of("openvino_bfloat16")) == "OpenVINO in bfloat16"


def test_the_flags_of_a_key_ask_for_its_own_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "obstacle", lambda numbers: "")
    for precision in ("openvino_bfloat16", "openvino_float32", "mixed_bfloat16"):
        words = extract_flags(FeatureKey("tiny", "none:0", 16, precision=precision))[4:]
        flags = dict(zip([w.removeprefix("--") for w in words[::2]], words[1::2], strict=True))
        config = ExtractConfig(dataset="a", backbone=("tiny",), **{"engine": "auto", **flags})
        assert asked_precision(config) == precision


def test_what_cannot_be_computed_here_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_engine, "obstacle", lambda numbers: "not here")
    asked = ExtractConfig(dataset="a", backbone=("tiny",), engine="openvino", precision="bfloat16")
    with refused(UsageError, r"--engine openvino --precision bfloat16: not here"):
        asked_precision(asked)
    with refused(UsageError, r"--precision bfloat16: expected .*mixed_bfloat16.* --engine keras"):
        ExtractConfig(dataset="a", backbone=("tiny",), engine="keras", precision="bfloat16")
    monkeypatch.setenv("ONEPASS_ENGINE", "torch")
    with refused(UsageError, r"ONEPASS_ENGINE=torch: expected auto, keras, openvino"):
        ExtractConfig(dataset="a", backbone=("tiny",))


SIGNALLED = """
import faulthandler, os, signal
faulthandler.enable()
import tiny_backbone
from onepass.extract.engines.openvino_engine import convert, obstacle
assert not obstacle("float32")
model = tiny_backbone.network(16)
first, second = (convert(model, "float32")(size) for size in (2, 4))
del first, second
signal.signal(signal.SIGTERM, lambda number, frame: print("asked"))
os.kill(os.getpid(), signal.SIGTERM)
"""


@needs_openvino
def test_a_signal_is_heard_after_several_networks_were_compiled() -> None:
    """Python's handlers run on the stack that OpenVINO chose for signals."""
    done = processes.run("-c", SIGNALLED, PROGRAM="1")
    assert (done.returncode, done.stdout) == (0, "asked\n"), done.stderr


# ---- the choice ----


@needs_openvino
def test_auto_takes_what_agrees_and_says_why(tmp_path: Path, eager: None, said: Any) -> None:
    prepare(tmp_path, range(40))
    assert states(tmp_path) == {OURS: ("computed", 40, 0)}
    assert "OpenVINO in float32: " in said.text and "of it on the first batch" in said.text
    states(tmp_path, engine="keras")
    ours, keras = vectors(tmp_path, key=OURS), vectors(tmp_path)
    assert distance(ours, keras) < 1e-3
    (found,) = resolve_features(tmp_path, "a", [OURS])
    assert found.keys[0].precision == BY_OPENVINO


@needs_openvino
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"AGREES": -1}, "differs by 0.0% on the first batch"),
        ({"FASTER": 1e9}, "times as fast"),
        ({"CONVERTING_PAYS": 1e9}, "40 images are done before a conversion"),
    ],
)
def test_auto_stays_with_keras_and_says_why(
    tmp_path: Path, eager: None, said: Any, monkeypatch: pytest.MonkeyPatch, change: dict, why: str
) -> None:
    for name, value in change.items():
        monkeypatch.setattr(extractor, name, value)
    prepare(tmp_path, range(40))
    assert states(tmp_path) == {"tiny@16": ("computed", 40, 0)}
    assert "Keras in float32: " in said.text and why in said.text


@needs_openvino
def test_auto_stays_with_keras_where_a_network_cannot_be_converted(
    tmp_path: Path, eager: None, said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: Any) -> Any:
        raise ValueError("no such operation\nand more")

    monkeypatch.setattr(openvino_engine.load_openvino(), "convert_model", fail)
    prepare(tmp_path, range(40))
    assert states(tmp_path) == {"tiny@16": ("computed", 40, 0)}
    assert "OpenVINO cannot take it (no such operation)" in said.text


@needs_openvino
@pytest.mark.parametrize(("first", "key"), [("keras", "tiny@16"), ("openvino", OURS)])
def test_auto_goes_on_with_what_is_stored(
    tmp_path: Path, eager: None, first: str, key: str
) -> None:
    prepare(tmp_path, range(40))
    flags = {"precision": "float32"} if first == "openvino" else {}
    stopped = run(tmp_path, engine=first, stop=After(1), **flags)
    assert stopped.stopped and stopped.files[0].rows == 16
    assert states(tmp_path) == {key: ("computed", 24, 0)}  # begun
    assert states(tmp_path) == {key: ("cached", 0, 0)}  # finished
    assert set(states(tmp_path, view=("flip",))) == {key.replace("tiny@16", "tiny@16+flip")}
    prepare(tmp_path, range(30, 70))
    assert states(tmp_path) == {key: ("computed", 30, 10)}  # stale
    assert not parts_folder(feature_file(tmp_path, key="tiny@16")).exists()


@needs_openvino
def test_vectors_of_two_engines_are_never_in_one_file(tmp_path: Path, eager: None) -> None:
    prepare(tmp_path, range(40))
    states(tmp_path, engine="keras")
    assert states(tmp_path, engine="openvino", precision="float32") == {OURS: ("computed", 40, 0)}
    assert vectors(tmp_path).shape == vectors(tmp_path, key=OURS).shape


@needs_openvino
def test_finished_vectors_need_no_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    prepare(tmp_path, range(40))
    states(tmp_path, engine="openvino", precision="float32")
    monkeypatch.setattr(openvino_engine, "obstacle", lambda numbers: "it is not installed")
    assert states(tmp_path) == {OURS: ("cached", 0, 0)}
    prepare(tmp_path, range(41))
    assert states(tmp_path) == {"tiny@16": ("computed", 41, 0)}
    assert "Keras in float32: it is not installed" in said.text


@needs_openvino
def test_a_key_without_its_precision_means_the_only_file(tmp_path: Path) -> None:
    prepare(tmp_path, range(40))
    states(tmp_path, engine="openvino", precision="float32")
    (found,) = resolve_features(tmp_path, "a", ["tiny@16"])
    assert found.text == OURS
    states(tmp_path, engine="keras")
    (found,) = resolve_features(tmp_path, "a", ["tiny@16"])
    assert found.text == "tiny@16"


# ---- the networks ----


@needs_openvino
def test_openvino_reports_nothing_to_anybody() -> None:
    compiler(build_extractor(find_backbone("tiny"), 16, (16, 16, 3)), BY_OPENVINO)(4)
    assert sys.modules["openvino_telemetry"] is None


def both(model: Any, *inputs: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return what OpenVINO and Keras compute in float32."""
    batch = len(inputs[0])
    ours, keras = (
        [np.asarray(array) for array in compiler(model, precision)(batch)(*inputs)]
        for precision in (BY_OPENVINO, "float32")
    )
    return ours, keras


@needs_openvino
@pytest.mark.parametrize("view", ["", "flip", "random:3"])
def test_every_view_and_pooling_is_computed_alike(view: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 20, 24, 1), np.uint8)
    outputs = [("", "avg"), ("conv0", "gem"), ("", "avg+max")]
    model = build_extractor(find_backbone("tiny"), 16, (20, 24, 1), outputs, view=view)
    boxes = np.array([[0.1, 0.2, 0.5, 0.6, number % 2] for number in range(4)], np.float32)
    ours, keras = both(model, pixels, *([boxes] if len(model.inputs) > 1 else []))
    assert [one.shape for one in ours] == [(4, 16), (4, 8), (4, 32)]
    assert max(distance(a, b) for a, b in zip(ours, keras, strict=True)) < 1e-4


@needs_openvino
def test_steps_may_be_asked_from_several_threads_before_they_are_waited_for() -> None:
    model = build_extractor(find_backbone("tiny"), 16, (16, 16, 3))
    batches = np.random.default_rng(0).integers(0, 256, (12, 4, 16, 16, 3), np.uint8)
    step = compiler(model, BY_OPENVINO)(4)
    waiting = [step(batch)[0] for batch in batches]
    for batch, later in zip(batches, waiting, strict=True):
        np.testing.assert_array_equal(np.asarray(later), np.asarray(step(batch)[0]))


# The smallest of every family.
FAMILIES = (
    "convnexttiny", "densenet121", "efficientnet_lite0", "efficientnetb0", "efficientnetv2b0", "inceptionresnetv2",
    "inceptionv3", "mobilenet", "mobilenetv2", "mobilenetv3small", "nasnetmobile", "resnet50", "resnet50v2", "vgg16",
    "xception",
)  # fmt: skip


def beginning(name: str) -> keras.Model:
    """Return a network as far as its last new kind of layer: what follows is more of the same."""
    spec = find_backbone(name)
    with keras.StatelessScope(initialize_variables=False):  # without weights, which take long
        whole = build_backbone(spec, spec.min_size, "none")
    kinds: dict[tuple, Any] = {}
    for layer in whole.layers:
        config = layer.get_config()
        options = ("strides", "padding", "activation", "groups")
        kinds.setdefault((type(layer), *(str(config.get(option)) for option in options)), layer)
    last = [*kinds.values()][-1]
    return keras.models.clone_model(keras.Model(whole.input, last.output))


@needs_openvino
@pytest.mark.slow
@pytest.mark.parametrize("name", [*FAMILIES, *TINY])
def test_every_family_of_backbones_converts_or_says_that_it_does_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, weights = find_backbone(name), WeightsChoice("none")
    size = spec.min_size
    if name in TINY:
        _save(tmp_path, name)
        size, weights = TINY[name][1], WeightsChoice(tmp_path)
    else:
        network = beginning(name)
        monkeypatch.setattr(registry, "build_backbone", lambda *choice: network)
    model = build_extractor(spec, size, (32, 32, 3), weights=weights, inference=True)
    random = np.random.default_rng(0)
    for variable in model.get_layer("backbone").weights:
        if len(variable.shape) == 1:  # away from 0 and 1, so that one left out shows
            variable.assign(variable + random.uniform(0, 1, variable.shape))
    pixels = random.integers(0, 256, (2, 32, 32, 3), np.uint8)
    if name.startswith("swin"):
        with refused(ConversionError, "OpenVINO cannot take it .*; use --engine keras"):
            compiler(model, BY_OPENVINO)(2)
        return
    (ours,), keras = compiler(model, BY_OPENVINO)(2)(pixels), np.asarray(model(pixels))
    assert np.abs(keras).max() > 1e-3
    assert distance(np.asarray(ours), keras) < 2e-3


@needs_openvino
def test_a_batch_in_several_requests_has_the_bits_and_the_order_of_one() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 20, 3), np.uint8)
    model = build_extractor(find_backbone("tiny"), 16, (20, 20, 3), inference=True)
    compiled = compiler(model, BY_OPENVINO)
    (whole,), one = compiled(20)(pixels), compiled(1)
    alone = [np.asarray(one(pixels[i : i + 1])[0]) for i in range(20)]
    np.testing.assert_array_equal(np.asarray(whole), np.concatenate(alone))
    assert len(np.unique(np.asarray(whole), axis=0)) == 20


@needs_openvino
def test_bfloat16_begins_where_the_map_is_narrowest_whatever_else_is_asked_for() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), np.uint8)
    for outputs in ([("", "avg")], [("conv0", "avg"), ("", "avg"), ("", "gem")]):
        model = build_extractor(find_backbone("tiny"), 16, (20, 20, 3), outputs, inference=True)
        first, rest = openvino_engine._cut(model)
        assert first.outputs[0].shape == (None, 8, 8, 8)
        for found, whole in zip(
            as_list(rest(as_list(first([pixels])))), as_list(model(pixels)), strict=True
        ):
            np.testing.assert_array_equal(np.asarray(found), np.asarray(whole))


# ---- new pictures ----


@pytest.fixture(scope="module")
def birds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A data set and a probe on vectors of OpenVINO, in bfloat16 where the processor has it."""
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed")
    folder = tmp_path_factory.mktemp("engines")
    places = {"cache_dir": folder / "store", "runs_dir": folder / "runs"}
    store = {"cache_dir": places["cache_dir"]}
    picture_store.write_pictures(folder / "birds")
    with tiny_backbone.installed():
        onepass.prepare_dataset(
            "folder", source=str(folder / "birds"), name="birds", max_side=24, **store
        )
        onepass.extract_features("birds", "tiny", size=(16,), engine="openvino", **store)
        onepass.run_probes("birds", head=("logistic",), **places)
    return places


def test_pictures_are_computed_as_the_rows_were(birds: dict[str, Path], said: Any) -> None:
    predictor = onepass.load_predictor("birds/logistic", engine="auto", **birds)
    dataset = predictor.dataset
    rows = dataset.rows("val")
    pictures = predictor.on_pictures()
    found = pictures.judge(pictures.arrays(np.asarray(dataset.pixels[rows])))
    stored = predictor.predict_split("val").probabilities
    np.testing.assert_allclose(found.probabilities, stored, atol=1e-6)
    assert "in place of" not in said.text


def test_keras_stands_in_where_openvino_is_missing(
    birds: dict[str, Path], said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_engine, "obstacle", lambda numbers: "it is not installed")
    predictor = onepass.load_predictor("birds/logistic", engine="auto", **birds)
    pictures, dataset = predictor.on_pictures(), predictor.dataset
    found = pictures.judge(pictures.arrays(np.asarray(dataset.pixels[dataset.rows("val")])))
    assert "Keras in float32 computes in place of OpenVINO" in said.text
    assert np.abs(found.probabilities - predictor.predict_split("val").probabilities).mean() < 0.05
    with refused(UsageError, "--engine openvino: it is not installed"):
        in_place_of("float32", "openvino")


def test_a_model_that_travels_says_its_engine_and_files_are_checked_in_float32(
    birds: dict[str, Path], tmp_path: Path, said: Any
) -> None:
    words = ["predict", "export", "birds/logistic", "--engine", "auto", "--out", str(tmp_path)]
    places = [f"--{name.replace('_', '-')}={path}" for name, path in birds.items()]
    assert main([*words, "--format", "folder", "keras", *places]) == 0
    assert "compute in float32, and the model's vectors are of OpenVINO" in said.text
    (folder,) = tmp_path.glob("*-folder")
    (backbone,) = ModelRecord.read(folder / "model.json").backbones
    assert Engine.of(backbone.specs[0].precision).name == "openvino"
    dataset = open_dataset(birds["cache_dir"], "birds")
    pixels = np.asarray(dataset.pixels[dataset.rows("val")])
    here, there = (
        onepass.load_predictor(name, engine="auto", **where).on_pictures()
        for name, where in (("birds/logistic", birds), (str(folder), {}))
    )
    for one, other in zip(here.forward(pixels[:64]), there.forward(pixels[:64]), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_a_graph_leaves_no_code_in_the_folder_for_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph = tensorflow_graph(lambda number: number + 1)
    assert int(graph(1)) == 2 and not list(tmp_path.iterdir())
