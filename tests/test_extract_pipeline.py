"""Extraction end to end on real images: row-exact, resumable, and honest about what it found."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import processes
import pytest
from stored import store_dataset

from onepass.cache.commandline.command import STOPPED
from onepass.cache.features import open_features
from onepass.cache.made_by import How
from onepass.cache.progress import ProgressUpdate, progress_to
from onepass.cache.rows import RowFile, RowWriter, ShardKind, parts_folder, recipe_of
from onepass.data.dataset import open_dataset

BASE = [
    "--dataset",
    "digits",
    "--backbone",
    "efficientnet_lite0",
    "--batch",
    "32",
    "--shard-rows",
    "64",
]
# Of 1,300 weights, in many small shards: where what counts is not what is computed.
TINY = ["--dataset", "digits", "--backbone", "tiny", "--batch", "16", "--shard-rows", "16"]
pytestmark = pytest.mark.slow


def run(store: Path, *words: str) -> subprocess.CompletedProcess:
    return processes.run(*words, "--cache-dir", str(store))


def extract(store: Path, *flags: str) -> dict:
    done = run(store, "extract", *BASE, "--json", *flags)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the digits and their vectors at 32 and 40 px, extracted without interruption."""
    folder = tmp_path_factory.mktemp("store")
    assert run(folder, "data", "prepare", "digits").returncode == 0
    result = extract(folder, "--size", "32", "40")
    assert [file["state"] for file in result["files"]] == ["computed", "computed"]
    return folder


def with_pixels(store: Path, tmp_path: Path) -> Path:
    """A fresh store with the same pixels."""
    (tmp_path / "digits").mkdir(parents=True)
    for name in ("pixels.h5", "manifest.h5"):
        os.link(store / "digits" / name, tmp_path / "digits" / name)
    return tmp_path


FEW = 200  # rows where what they are is compared, not how many they are


def with_few(store: Path, tmp_path: Path) -> Path:
    """A fresh store with the first digits as the data set `some`."""
    store_some(with_pixels(store, tmp_path), slice(FEW))
    return tmp_path


def store_some(store: Path, rows: slice) -> None:
    """Store some of the digits as a data set of its own, `some`."""
    whole = open_dataset(store, "digits")
    labels, split, names = (column[rows] for column in (whole.labels, whole.split, whole.names))
    store_dataset(store, "some", whole.pixels[rows], labels, split, names, whole.class_ids)


def features(store: Path, key: str, name: str = "digits") -> np.ndarray:
    return np.asarray(open_features(store / name / "features" / f"{key}.h5").X)


def test_rows_are_what_the_model_gives_for_them_alone(store: Path) -> None:
    from onepass.extract.backbones.registry import find_backbone
    from onepass.extract.backend import as_list
    from onepass.extract.network.model import build_extractor

    pixels = RowFile.open(store / "digits" / "pixels.h5").columns["pixels"]
    model = build_extractor(find_backbone("efficientnet_lite0"), 32, pixels.shape[1:])
    rows = [0, 1, 63, 64, 1000, 1796]
    vectors = np.asarray(as_list(model(np.asarray(pixels[rows]), training=False))[0])
    stored = features(store, "efficientnet_lite0@32")
    assert stored.shape == (1797, 1280) and stored.dtype == np.float16
    np.testing.assert_allclose(stored[rows], vectors, atol=3e-3, rtol=2e-3)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.1  # so that a wrong order would be seen


def test_each_vector_says_of_which_image_it_is(store: Path) -> None:
    pixels = RowFile.open(store / "digits" / "pixels.h5")
    rows = RowFile.open(store / "digits" / "features" / "efficientnet_lite0@32.h5")
    np.testing.assert_array_equal(rows.columns["content"], pixels.columns["content"])
    assert rows.side == {} and rows.inputs["contents"] == open_dataset(store, "digits").contents


def test_a_second_run_does_nothing_and_says_so(store: Path) -> None:
    result = extract(store, "--size", "32")
    assert result["files"][0]["state"] == "cached"
    assert result["files"][0]["computed"] == 0


def test_layers_poolings_views_and_logits_are_keys_of_their_own(
    store: Path, tmp_path: Path
) -> None:
    fresh = with_few(store, tmp_path)
    flags = [
        "--dataset",
        "some",
        "--size",
        "32",
        "--layer",
        "",
        "block2_add",
        "--pooling",
        "avg",
        "max",
        "--view",
        "",
        "flip",
        "--logits",
    ]
    names = {file["key"]: file["dim"] for file in extract(fresh, *flags)["files"]}
    base = "efficientnet_lite0@32"
    plain = {
        base: 1280,
        base + "~max": 1280,
        base + ":block2_add": 24,
        base + ":block2_add~max": 24,
        base + "~logits": 1000,
    }
    flipped = {k.replace("~", "+flip~") if "~" in k else k + "+flip": v for k, v in plain.items()}
    assert set(names) == set(plain) | set(flipped)
    plain_view, flipped_view = (features(fresh, key, "some") for key in (base, base + "+flip"))
    np.testing.assert_array_equal(plain_view, features(store, base)[:FEW])
    assert np.abs(flipped_view - plain_view).max() > 0.1
    opened = open_features(fresh / "some" / "features" / f"{base}.h5")
    assert opened.logits is not None and opened.logits.shape == (FEW, 1000)


def committed(path: Path) -> int:
    """How many shards of an unfinished file there are."""
    return len(list(parts_folder(path).glob("shard-*.h5")))


@pytest.mark.parametrize("carried", [0, 900])
def test_kills_leave_the_same_bits_and_lose_a_shard_each_at_most(
    store: Path, tmp_path: Path, carried: int
) -> None:
    """They land while rows are computed, copied and committed."""

    def start(store: Path, name: str = "digits") -> processes.Process:
        words = ["extract", *TINY, "--dataset", name, "--size", "32", "--json"]
        return processes.start(*words, "--cache-dir", str(store), TINY_BACKBONE="1")

    def fresh(folder: Path) -> Path:
        """A store with the digits, and with the vectors of some of them under another name."""
        place = with_pixels(store, folder)
        if carried:
            store_some(place, slice(carried - 1, None, -1))
            out, err = start(place, "some").communicate()
            assert json.loads(out)["files"][0]["state"] == "computed", err
        return place

    def ended(process: processes.Process) -> dict:
        out, err = process.communicate()
        assert process.returncode == 0, err
        return json.loads(out)["files"][0]

    whole, killed = fresh(tmp_path / "whole"), fresh(tmp_path / "killed")
    report = ended(start(whole))
    distinct = len(np.unique(open_dataset(whole, "digits").content, axis=0))
    new = report["computed"]
    assert new == distinct - report["carried"] and report["equal"] == 1797 - distinct
    assert (report["carried"] > 0.95 * carried) if carried else report["carried"] == 0
    path = killed / "digits" / "features" / "tiny@32.h5"
    random = np.random.default_rng(0)
    landed, there = [], 0
    for number in range(6):
        process = start(killed)
        while "compiled" not in process.stderr.readline():
            assert process.poll() is None
        while number % 2 and committed(path) == there:  # every other one after it has committed
            assert process.poll() is None
        time.sleep(random.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL and not path.exists()
        now = committed(path)
        assert now >= there  # nothing committed is ever lost
        landed.append(now > there)
        there = now
    assert sum(landed) >= 3, "the kills did not land inside the extraction"
    assert ended(start(killed))["computed"] == new - there * 16  # only what was missing
    assert features(killed, "tiny@32").tobytes() == features(whole, "tiny@32").tobytes()
    RowFile.open(path).verify()


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "time limit"])
def test_asked_to_stop_it_ends_cleanly_and_resumes_later(
    store: Path, tmp_path: Path, how: str
) -> None:
    fresh = with_pixels(store, tmp_path)
    path = fresh / "digits" / "features" / "tiny@128.h5"
    words = ["extract", *TINY, "--size", "128", "--json", "--cache-dir", str(fresh)]
    limit = ["--time-limit", "0.01s"] if how == "time limit" else []
    process = processes.start(*words, *limit, TINY_BACKBONE="1")
    while not limit and not committed(path):
        assert process.poll() is None
        time.sleep(0.02)
    if not limit:
        process.send_signal(getattr(signal, how))
    out, err = process.communicate()
    assert process.returncode == STOPPED, err
    result = json.loads(out)
    assert result["stopped"] == how and result["files"][0]["state"] == "unfinished"
    listed = run(fresh, "cache", "list").stdout
    assert limit or ("unfinished" in listed and "the same command resumes" in listed)
    assert bool(result["files"][0]["rows"]) != bool(limit)
    resumed = json.loads(processes.run(*words, TINY_BACKBONE="1").stdout)["files"][0]
    assert resumed["state"] == "computed"
    assert limit or resumed["computed"] <= 1797 - result["files"][0]["rows"]


def test_changed_weights_are_noticed_before_more_is_computed(store: Path, tmp_path: Path) -> None:
    """Stored rows that this machine would not compute are an error, not a mixture."""
    fresh = with_pixels(store, tmp_path)
    begin(fresh, store, "efficientnet_lite0@32", np.float16(1.2))
    refused = run(fresh, "extract", *BASE, "--size", "32")
    assert refused.returncode == 1 and refused.stdout == ""
    last = refused.stderr.strip().splitlines()[-1]
    assert (
        "was stored by an earlier run and comes out" in last
        and "cache delete digits/efficientnet_lite0@32" in last
    )


def begin(fresh: Path, store: Path, key: str, factor: np.float16 = np.float16(1)) -> None:
    """Leave a run that has committed the first 64 rows of another store's file, times a factor."""
    done = RowFile.open(store / "digits" / "features" / f"{key}.h5")
    kind = ShardKind(done.layout.columns, "content", recipe_of(done))
    content = np.asarray(done.columns["content"])
    path = fresh / "digits" / "features" / f"{key}.h5"
    with RowWriter(path, kind, content, shard_rows=64, how=How(batch=32)) as writer:
        rows = writer.missing[0]
        writer.write(
            rows, {"features": done.columns["features"][rows] * factor, "content": content[rows]}
        )


def test_another_split_or_seed_computes_nothing(store: Path, tmp_path: Path) -> None:
    """Labels, splits and names are not part of a vector."""
    fresh = with_pixels(store, tmp_path)
    words = ["extract", *TINY, "--size", "16", "--json", "--cache-dir", str(fresh)]
    assert processes.run(*words, TINY_BACKBONE="1").returncode == 0
    before = open_dataset(fresh, "digits")
    done = run(fresh, "data", "prepare", "digits", "--seed", "1", "--resplit")
    assert done.returncode == 0, done.stderr
    assert before.digest != open_dataset(fresh, "digits").digest
    (file,) = json.loads(processes.run(*words, TINY_BACKBONE="1").stdout)["files"]
    assert file["computed"] == 0 and file["state"] in ("cached", "carried over")


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--backbone", "efficientnet_light0"], 1, "efficientnet_lite0"),
        (["--size", "8"], 1, "32"),
        (["--dataset", "digit"], 1, "digits"),
        (["--view", "flop"], 1, "view 'flop'"),
        (["--layer", "block2_ad", "--size", "32"], 1, "block2_add"),
        (["--pooling", "median"], 2, "avg, max, gem, avg+max"),
        (["--weights", "nowhere.weights.h5"], 1, "nowhere.weights.h5"),
        (["--dtype", "float8"], 2, "float16"),
        (["--time-limit", "soon"], 2, "8h45m"),
    ],
)
def test_bad_input_is_one_clear_line(store: Path, flags: list[str], code: int, said: str) -> None:
    done = run(store, "extract", *BASE, *flags)
    assert done.returncode == code and "Traceback" not in done.stderr
    assert said in done.stderr.strip().splitlines()[-1]


def test_jax_gives_the_vectors_of_tensorflow(store: Path, tmp_path: Path) -> None:
    """Within two units in the last place of float16, which is what rounding may do to nearly equal sums."""
    fresh = with_few(store, tmp_path)
    words = [*BASE, "--dataset", "some", "--size", "32", "--cache-dir", str(fresh)]
    quick = "--xla_backend_optimization_level=0"  # to compile, which takes longer than 200 rows
    done = processes.run("extract", *words, KERAS_BACKEND="jax", XLA_FLAGS=quick)
    assert done.returncode == 0 and "computed, 200 of 200 rows" in done.stdout, done
    theirs = features(store, "efficientnet_lite0@32")[:FEW]
    ours = features(fresh, "efficientnet_lite0@32", "some")
    np.testing.assert_allclose(
        ours.astype(np.float32), theirs.astype(np.float32), rtol=2e-3, atol=2e-3
    )


def test_a_feature_too_large_for_float16_is_named(store: Path) -> None:
    from onepass.cache.errors import InvalidInputError
    from onepass.extract.stream.worker import _to_storage

    vectors, rows = np.ones((3, 4), np.float32), np.array([7, 101, 3])
    vectors[1, 2] = 70000
    with pytest.raises(
        InvalidInputError, match=r"row 101: float16 cannot hold a feature of 70000; .*float32"
    ):
        _to_storage(vectors, "float16", rows, "k")
    vectors[1, 2] = np.nan
    with pytest.raises(InvalidInputError, match=r"row 101: .* check its image"):
        _to_storage(vectors, "float32", rows, "k")
    assert _to_storage(vectors[:1], "float16", rows[:1], "k").dtype == np.float16


def test_weights_from_a_local_file_give_identical_vectors_under_a_key_of_their_own(
    store: Path, tmp_path: Path
) -> None:
    from onepass.cache.provenance import digest_file
    from onepass.extract.backbones.registry import build_backbone, find_backbone

    fresh, file = with_few(store, tmp_path), tmp_path / "saved.weights.h5"
    build_backbone(find_backbone("efficientnet_lite0"), 32).save_weights(file)
    digest = digest_file(file)
    flags = ["--dataset", "some", "--size", "32", "--weights", str(file)]
    report = extract(fresh, *flags, "--weights-sha256", digest)["files"][0]
    assert report["key"] == f"efficientnet_lite0@32#{digest[:8]}"
    assert (
        features(fresh, report["key"], "some").tobytes()
        == features(store, "efficientnet_lite0@32")[:FEW].tobytes()
    )
    refused = run(
        fresh, "extract", *BASE, *flags, "--weights-sha256", "0" * 64, "--layer", "block2_add"
    )
    assert refused.returncode == 1
    assert digest in refused.stderr.splitlines()[-1] and "0" * 64 in refused.stderr.splitlines()[-1]


def test_the_use_of_the_gpus_is_shown_and_recorded_where_it_is_known(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onepass.extract import pipeline
    from onepass.extract.config import ExtractConfig
    from onepass.extract.stream import executors
    from onepass.extract.stream.gpu_use import GpuUse, nvml_reader

    def recorded(folder: Path, name: str) -> float | None:
        path = folder / name / "features" / "efficientnet_lite0@32.h5"
        return RowFile.open(path).attributes["extraction"]["gpu_use"]

    if nvml_reader(1) is None:
        assert recorded(store, "digits") is None
    monkeypatch.setattr(executors, "watch_gpus", lambda count: GpuUse(lambda: 0.97, period=0.001))
    seen: list[ProgressUpdate] = []
    config = ExtractConfig(
        dataset="some",
        backbone=("efficientnet_lite0",),
        size=(32,),
        batch=32,
        cache_dir=with_few(store, tmp_path),
    )
    with progress_to(seen.append):
        (report,) = pipeline.extract_features(config).files
    assert report.gpu_use == recorded(tmp_path, "some") == pytest.approx(0.97)
    notes = [update.note for update in seen]
    assert any("bound by " in note and "GPU 97 %" in note for note in notes), notes
