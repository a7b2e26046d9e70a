"""A store that is only read: what it has is used and copied, and nothing in it changes."""

import json
from pathlib import Path

import numpy as np
import processes
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Path:
    """A folder of images, and a store with them, and with one of two feature files and a part of a third."""
    folder = tmp_path_factory.mktemp("earlier")
    random = np.random.default_rng(0)
    for number in range(60):
        path = folder / "images" / ("red" if number % 2 else "blue") / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 60, (16, 16, 3), dtype=np.uint8)
        pixels[..., 2 * (1 - number % 2)] += 120
        Image.fromarray(pixels).save(path)
    onepass(folder, "data", "prepare", "folder", "--source", "images", "--name", "c", store="old")
    onepass(folder, "extract", "--dataset", "c", "--backbone", "tiny", "--size", "16", store="old")
    return folder


def onepass(folder: Path, *words: str, store: str, read_from: str = "") -> dict:
    """Run a command; return what it says as JSON."""
    env = {"ONEPASS_CACHE": store, "ONEPASS_RUNS": "runs", "TINY_BACKBONE": "1"}
    env |= {"ONEPASS_READ_FROM": read_from} if read_from else {}
    done = processes.run(*words, "--json", cwd=folder, **env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of every file and folder, by name."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted([folder, *folder.rglob("*")])
    }


def test_what_it_has_is_used_as_it_is(earlier: Path) -> None:
    before = state(earlier / "old")
    places = {"store": "new", "read_from": "old"}
    shown = onepass(earlier, "data", "show", "c", **places)
    assert sum(shown["summary"]["splits"].values()) == 60
    words = ("extract", "--dataset", "c", "--backbone", "tiny")
    (cached,) = onepass(earlier, *words, "--size", "16", **places)["files"]
    assert (cached["state"], cached["path"].split("/")[0]) == ("cached", "old")
    found = onepass(earlier, "classify", "--dataset", "c", "--head", "ridge", **places)
    assert found["ran"] == 3 and found["results"][0]["features"] == ["tiny@16"]

    (computed,) = onepass(earlier, *words, "--size", "24", **places)["files"]
    assert (computed["state"], computed["computed"]) == ("computed", 60)
    assert computed["path"].split("/")[0] == "new"
    assert [path.name for path in (earlier / "new" / "c").iterdir()] == ["features"]
    found = onepass(earlier, "classify", "--dataset", "c", "--head", "ridge", **places)
    assert {tuple(r["features"]) for r in found["results"]} == {("tiny@16",), ("tiny@24",)}
    assert state(earlier / "old") == before


def test_rows_of_it_are_carried_over(earlier: Path) -> None:
    """One image more: the others are neither decoded nor computed again."""
    before = state(earlier / "old")
    Image.new("RGB", (16, 16), "red").save(earlier / "images" / "red" / "more.png")
    places = {"store": "newer", "read_from": "old"}
    words = ("data", "prepare", "folder", "--source", "images", "--name", "c")
    prepared = onepass(earlier, *words, **places)
    assert (prepared["new"], prepared["carried"]) == (1, 60)
    words = ("extract", "--dataset", "c", "--backbone", "tiny", "--size", "16")
    (file,) = onepass(earlier, *words, **places)["files"]
    assert (file["computed"], file["carried"], file["rows"]) == (1, 60, 61)
    assert state(earlier / "old") == before


def test_its_files_are_listed_and_verified_but_never_deleted(earlier: Path) -> None:
    before = state(earlier / "old")
    places = {"store": "empty", "read_from": "old"}
    listed = onepass(earlier, "cache", "list", **places)["result"]
    assert {(one["key"], one["path"].split("/")[0]) for one in listed} == {
        ("c/pixels", "old"), ("c/manifest", "old"), ("c/tiny@16", "old"),
    }  # fmt: skip
    verified = onepass(earlier, "cache", "verify", **places)["result"]
    assert sorted(verified) == ["c/manifest", "c/pixels", "c/tiny@16"]
    refused = processes.run(
        "cache", "delete", "c/pixels", cwd=earlier, ONEPASS_CACHE="empty", ONEPASS_READ_FROM="old"
    )
    assert refused.returncode == 1 and "the store is empty" in refused.stderr
    assert state(earlier / "old") == before


def test_a_manifest_without_its_pixels_is_not_called_damaged(earlier: Path) -> None:
    """The correction lies here, the pixels in the store that has to be named."""
    (earlier / "one.csv").write_text("file,label\nred/1.png,blue\n")
    words = ("data", "relabel", "c", "--labels", "one.csv")
    assert onepass(earlier, *words, store="corrected", read_from="old")["changed"]
    done = processes.run("data", "list", cwd=earlier, ONEPASS_CACHE="corrected")
    assert done.returncode == 0 and "damaged" not in done.stdout
    assert "c: without its pixels: " in done.stdout and "--read-from" in done.stdout
    done = processes.run("data", "verify", cwd=earlier, ONEPASS_CACHE="corrected")
    assert done.returncode == 1 and "name the store that has them" in done.stderr


def test_a_store_that_is_not_there_is_said(earlier: Path) -> None:
    done = processes.run("data", "list", "--read-from", "nowhere", cwd=earlier)
    assert (
        done.returncode == 2
        and "--read-from nowhere: expected the folder of a store" in done.stderr
    )
