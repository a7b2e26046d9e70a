"""The library: called from a worker thread, with progress and a stop, silent, and short of speech."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest

import onepass
from onepass.cache.errors import MissingFileError, Remedy, UsageError
from onepass.cache.rows import RowFile

IN_A_THREAD = """
import json, sys, threading
import onepass

found, updates = {}, []

def work():
    here = {"cache_dir": sys.argv[1]}
    found["prepared"] = onepass.prepare_dataset("digits", progress=updates.append, **here).state
    flags = {"size": 32, "batch": 256, "shard_rows": 64, "progress": updates.append, **here}
    stop = onepass.StopRequest()
    stop.ask("enough for today")
    stopped = onepass.extract_features("digits", "tiny", stop=stop, **flags)
    found["stopped"] = [stopped.stopped, stopped.files[0].state, stopped.files[0].rows]
    done = onepass.extract_features("digits", ["tiny"], **flags)
    found["done"] = [done.stopped, done.files[0].state, done.files[0].rows]
    found["shape"] = onepass.open_features("digits", "tiny@32", **here).X.shape

worker = threading.Thread(target=work)
worker.start()
worker.join()
found["labels"] = sorted({update.label for update in updates})
found["last"] = [updates[-1].done, updates[-1].total, updates[-1].finished]
found["handlers"] = __import__("logging").getLogger("onepass").handlers
print(json.dumps(found))
"""


@pytest.mark.slow
def test_a_worker_thread_prepares_and_extracts_and_nothing_is_printed(tmp_path: Path) -> None:
    done = processes.run("-c", IN_A_THREAD, str(tmp_path), PROGRAM="1", TINY_BACKBONE="1")
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done
    assert "onepass" not in done.stderr and "digits" not in done.stderr, done.stderr
    assert json.loads(done.stdout) == {
        "prepared": "prepared",
        "stopped": ["enough for today", "unfinished", 0],
        "done": ["", "computed", 1797],
        "shape": [1797, 16],
        "labels": ["looking at files", "packing", "tiny@32"],
        "last": [1797, 1797, True],
        "handlers": [],
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    onepass.prepare_dataset("digits", cache_dir=str(folder))
    return folder


def test_a_data_set_says_itself_in_one_line(store: Path) -> None:
    digits = onepass.open_dataset("digits", cache_dir=store)
    assert repr(digits) == (
        f"<ImageDataset digits: 1,797 images of 8 × 8 × 1, 10 classes, digest {digits.digest[:8]}>"
    )
    rows = repr(RowFile.open(digits.path))
    assert (
        rows.startswith(f"<RowFile {digits.path}: pixels (1797, 8, 8, 1) uint8") and len(rows) < 300
    )


def test_features_say_themselves_in_one_line(store: Path) -> None:
    from onepass.cache.features import FeatureKey, FeatureSet

    digits = onepass.open_dataset("digits", cache_dir=store)
    key = FeatureKey("toy", "sha256:0", 8)
    X = np.zeros((1797, 1280), np.float16)
    features = FeatureSet(
        X, "digits", digits.contents, (key,), "0123456789", None, Path("toy@8.h5")
    )
    assert repr(features) == "<FeatureSet toy@8 of digits: 1,797 × 1,280 float16, digest 01234567>"


def test_what_is_missing_is_said_without_a_command(store: Path) -> None:
    with pytest.raises(MissingFileError) as error:
        onepass.open_features("digits", cache_dir=store)
    assert "onepass" not in str(error.value).replace(str(store), "")
    assert error.value.remedy == Remedy("extract", "digits")


def test_an_unknown_keyword_names_the_known_ones(store: Path) -> None:
    with pytest.raises(UsageError, match=r"colour: expected one of .*max_side"):
        onepass.prepare_dataset("digits", colour="red", cache_dir=store)


def test_every_public_name_is_there_and_described() -> None:
    for name in onepass.__all__:
        assert getattr(onepass, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = onepass.nothing


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: onepass.prepare_dataset("folder", source=3),
            r"source: expected .*str.*, received \(3,\)",
        ),
        (
            lambda: onepass.extract_features("d", "b", size="big"),
            "size: expected .*int.*, received",
        ),
        (
            lambda: onepass.finetune_network("d", epochs=[1]),
            r"epochs: expected .*int.*, received \[1\]",
        ),
    ],
)
def test_a_value_of_another_type_is_a_usage_error(call: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        call()
