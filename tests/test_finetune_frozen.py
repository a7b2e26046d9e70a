"""Frozen layers: where they end, and their outputs as rows of the store, which change nothing of a run."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest

from onepass.cache.commandline.command import DONE, STOPPED
from onepass.cache.errors import OutOfSpaceError
from onepass.cache.features import WHOLE_MAP, FeatureKey, stored_precisions
from onepass.cache.locks import exclusive
from onepass.cache.rows import parts_folder
from onepass.finetune.augmentation import ORIENTATIONS, draw, orientation_draws, orientations_of
from onepass.finetune.recipes import Augmentation
from onepass.finetune.training.frozen_rows import _check_room
from onepass.finetune.training.layers import frozen_end

TURNING = Augmentation(flip=True, vertical_flip=True, quarter_turns=True)


def residual_network() -> Any:
    """Three convolutions; what the first gives goes past the second as well."""
    import keras

    def convolution(x: Any, name: str) -> Any:
        return keras.layers.Conv2D(4, 3, padding="same", name=name)(x)

    image = keras.Input((8, 8, 3))
    first = keras.layers.ReLU(name="relu")(convolution(image, "first"))
    added = keras.layers.Add(name="added")([first, convolution(first, "second")])
    return keras.Model(image, convolution(added, "third"))


@pytest.mark.parametrize(
    ("trained", "end"),
    [("first", None), ("second", "relu"), ("third", "added"), ("", "third")],
)
def test_frozen_layers_end_where_everything_passes_through_one_map(
    trained: str, end: str | None
) -> None:
    network = residual_network()
    names = ["first", "second", "third"]
    for name in names[: names.index(trained) if trained else 3]:
        network.get_layer(name).trainable = False
    found = frozen_end(network)
    assert (None if found is None else found._keras_history.operation.name) == end


def test_every_orientation_that_is_drawn_is_drawn_again_by_its_number() -> None:
    import keras

    from onepass.finetune.augmentation import Augment

    drawn = draw(TURNING, (6, 6, 3), 0, 0, 0, 200)
    numbers = orientations_of(drawn, 200)
    assert set(numbers) == set(range(len(ORIENTATIONS)))
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 6, 3), dtype=np.uint8)
    augment = Augment(TURNING, 6)
    ours = keras.ops.convert_to_numpy(augment([np.repeat(image, 200, axis=0), drawn]))
    looks = {"": image[0], "flip": image[0][:, ::-1], "flip:vertical": image[0][::-1],
             "rotate:90": np.rot90(image[0]), "rotate:180": np.rot90(image[0], 2),
             "rotate:270": np.rot90(image[0], 3), "transpose": image[0].swapaxes(0, 1),
             "transverse": np.rot90(image[0], 2).swapaxes(0, 1)}  # fmt: skip
    for number, name in enumerate(ORIENTATIONS):
        again = augment([image, orientation_draws(number, 1)])
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(again)[0], looks[name])
        np.testing.assert_array_equal(ours[numbers == number], looks[name][None].repeat(sum(numbers == number), 0))  # fmt: skip


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The digits with the vectors of a tiny backbone, and a leaderboard."""
    folder = tmp_path_factory.mktemp("frozen")
    places = folder / "store", folder / "runs"
    for words in (
        ("data", "prepare", "digits"),
        ("extract", "--dataset", "digits", "--backbone", "tiny", "--size", "32"),
        ("classify", "--dataset", "digits", "--head", "ridge"),
    ):
        done = run(places, *words)
        assert done.returncode == DONE, done.stderr
    return places


def command(places: tuple[Path, Path], *words: str) -> list[str]:
    results = ["--runs-dir", str(places[1])] if words[0] in ("classify", "finetune") else []
    return [*words, "--cache-dir", str(places[0]), *results]


def run(places: tuple[Path, Path], *words: str) -> subprocess.CompletedProcess:
    return processes.run(*command(places, *words), TINY_BACKBONE="1")


TRAIN = ("finetune", "--dataset", "digits", "--rows", "150", "--batch", "8", "--unfreeze", "last:2",
         "--set", "flip=true", "vertical_flip=true", "quarter_turns=true", "--epochs", "3", "--json")  # fmt: skip


def train(places: tuple[Path, Path], name: str, *words: str) -> tuple[dict, str]:
    done = run(places, *TRAIN, *words, "--run", name)
    assert done.returncode == DONE, done.stderr
    return json.loads(done.stdout), done.stderr


def numbers_of(result: dict) -> np.ndarray:
    names = ("loss", "accuracy", "selection_loss", "selection_accuracy")
    return np.array([[row[name] for name in names] for row in result["history"]])


@pytest.fixture(scope="module")
def uncached(places: tuple[Path, Path]) -> dict:
    result, said = train(places, "uncached", "--no-cache-frozen")
    assert not list(places[0].rglob("*~map*")) and "frozen layers" not in said
    return result


@pytest.mark.slow
def test_kept_outputs_give_the_same_history_and_are_computed_once(
    places: tuple[Path, Path], uncached: dict
) -> None:
    result, said = train(places, "cached")
    np.testing.assert_allclose(numbers_of(result), numbers_of(uncached), rtol=1e-4)
    assert re.search(r"up to relu0, are computed once and kept: up to \d+ rows of 8.2 kB, ", said)
    shards = sorted((places[0] / "digits/features").glob("*~map*/shard-*"))
    assert len({shard.parent for shard in shards}) == len(ORIENTATIONS)
    entries = json.loads(run(places, "cache", "list", "--json").stdout)["result"]
    kept = [entry for entry in entries if "~map" in entry["key"]]
    assert {entry["state"] for entry in kept} == {"partial"}
    # of 150 images, three times in one of eight orientations, and of those that choose the epoch
    assert 150 + result["selection_rows"] <= sum(entry["rows"] for entry in kept) <= 3 * 150 + 8 + result["selection_rows"]  # fmt: skip
    train(places, "again")
    assert sorted((places[0] / "digits/features").glob("*~map*/shard-*")) == shards


def test_kept_outputs_do_not_say_in_what_vectors_are_stored(tmp_path: Path) -> None:
    key = FeatureKey("tiny", "none:0", 32)
    for pooling, found in ((WHOLE_MAP, set()), ("avg", {"float32"})):
        kept = replace(key, layer="relu0", pooling=pooling, dtype="float32")
        parts_folder(kept.file(tmp_path, "digits")).mkdir(parents=True)
        assert stored_precisions(tmp_path, "digits", key) == found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_an_interrupted_run_goes_on_with_what_was_kept(
    places: tuple[Path, Path], uncached: dict, how: str
) -> None:
    words = [*TRAIN, "--run", f"ended-by-{how}"]
    process, out = processes.interrupted(
        how, "epoch 1 of 3: loss", *command(places, *words), TINY_BACKBONE="1"
    )
    if how == "SIGTERM":
        assert process.returncode == STOPPED and json.loads(out)["stopped"] == "SIGTERM"
    again = run(places, *words)
    assert "resuming after epoch" in again.stderr
    # and without them: they are no part of what a run is
    np.testing.assert_allclose(
        numbers_of(json.loads(again.stdout)), numbers_of(uncached), rtol=1e-4
    )


SHORT = ("finetune", "--dataset", "digits", "--rows", "16", "--epochs", "1", "--unfreeze", "last:2", "--run")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("rotation=10", "mixup=0.2"), "rotation, mixup of the augmentation make another image"),
        (("batchnorm=train",), "batchnorm=train takes its statistics from each batch"),
    ],
)
def test_outputs_that_are_not_constant_are_not_kept(
    places: tuple[Path, Path], words: tuple[str, ...], why: str
) -> None:
    before = list(places[0].rglob("*~map*/shard-*"))
    done = run(places, *SHORT, words[0].partition("=")[0], "--set", *words)
    assert done.returncode == DONE, done.stderr
    assert f"the frozen layers are computed in each step: {why}" in done.stderr
    assert list(places[0].rglob("*~map*/shard-*")) == before


@pytest.mark.slow
def test_a_run_beside_another_that_writes_the_same_rows_goes_on_without_them(
    places: tuple[Path, Path],
) -> None:
    with exclusive(places[0] / "digits/features/tiny@32:relu0~map!float32.h5"):
        done = run(places, *SHORT, "beside")
    assert done.returncode == DONE, done.stderr
    assert "the frozen layers are computed in each step: another process writes" in done.stderr


def test_what_the_disk_does_not_hold_is_refused_with_its_size(tmp_path: Path) -> None:
    with pytest.raises(
        OutOfSpaceError, match=r"up to 1,000,000 rows of 1\.0 GB, 1000000\.0 GB, in .* free"
    ):
        _check_room(tmp_path, "relu", 10**6, 10**9)
