"""Once, whatever happens to the data: what any file has is copied, only what is new is computed.

With a backbone of 1,300 weights and images that are told apart by a number.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_backbone
from stored import store_dataset
from test_cache_rows import flip

from onepass.cache.content import content_of, find
from onepass.cache.errors import Remedy, StaleError
from onepass.cache.features import ExtractionRecord, FeatureKey
from onepass.cache.rowfile import RowFile, write_rows
from onepass.cache.rows import parts_folder, read_plan
from onepass.cache.shards import read_shard
from onepass.cache.stopping import StopRequest
from onepass.data.dataset import open_dataset
from onepass.extract.config import ExtractConfig
from onepass.extract.pipeline import ExtractResult, FileReport, extract_features
from onepass.extract.stream import worker
from onepass.extract.stream.executors import LocalExecutor, Outcome
from onepass.extract.stream.extractor import Extractor

NEAR = 0.02  # rounding to float16, and sums in another order; other images are far beyond it


@pytest.fixture(autouse=True)
def tiny() -> Iterator[None]:
    with tiny_backbone.installed():
        yield


def pixels_of(images: Any) -> np.ndarray:
    shape = (16, 16, 3)
    return np.stack([np.random.default_rng(image).integers(0, 256, shape, np.uint8) for image in images])  # fmt: skip


def prepare(store: Path, images: Any, name: str = "a", seed: int = 0) -> None:
    """Store a data set of these images, with labels and splits by the seed."""
    images = list(images)
    labels = np.random.default_rng(seed).integers(0, 2, len(images))
    names = [f"{image}.png" for image in images]
    store_dataset(store, name, pixels_of(images), labels, labels, names, ["cat", "dog"])


def run(store: Path, name: str = "a", stop: StopRequest | None = None, **flags: Any) -> ExtractResult:  # fmt: skip
    flags = {"batch": 8, "shard_rows": 16, **flags}
    config = ExtractConfig(dataset=name, backbone=("tiny",), size=(16,), cache_dir=store, **flags)
    return extract_features(config, stop)


def extract(store: Path, name: str = "a", **flags: Any) -> FileReport:
    (report,) = run(store, name, **flags).files
    return report


def feature_file(store: Path, name: str = "a", key: str = "tiny@16") -> Path:
    return store / name / "features" / f"{key}.h5"


def vectors(store: Path, name: str = "a", key: str = "tiny@16") -> np.ndarray:
    return np.asarray(RowFile.open(feature_file(store, name, key)).columns["features"])


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[np.ndarray], np.ndarray]:
    """The vectors of contents, computed in a store that never saw anything else."""
    store = tmp_path_factory.mktemp("reference")
    with tiny_backbone.installed():
        prepare(store, range(200))
        extract(store)
    known, X = content_of(pixels_of(range(200))), vectors(store)
    apart = np.abs(X[:, None].astype(np.float32) - X[None]).max(axis=-1)
    assert apart[~np.eye(200, dtype=bool)].min() > 3 * NEAR  # so that no image is taken for another

    def look_up(contents: np.ndarray) -> np.ndarray:
        rows = find(known, contents)
        assert np.all(rows >= 0)
        return X[rows]

    return look_up


def check_rows(store: Path, reference: Callable, name: str = "a") -> int:
    """Compare every stored row, finished or not, with the vector of the image that it says it is of."""
    file, rows = feature_file(store, name), 0
    parts: list[dict[str, np.ndarray]] = [RowFile.open(file).columns] if file.exists() else []
    if plan := read_plan(file):
        parts += [read_shard(p, plan.kind) for p in parts_folder(file).glob("shard-*.h5")]
    for part in parts:
        np.testing.assert_allclose(
            part["features"].astype(np.float32), reference(part["content"]), atol=NEAR
        )
        rows += len(part["features"])
    return rows


class After(StopRequest):
    """Stops a run after some shards."""

    def __init__(self, shards: int) -> None:
        super().__init__()
        self.left = shards

    @property
    def reason(self) -> str:
        self.left -= 1
        return "enough" if self.left < 0 else ""


def no_model(*_: Any, **__: Any) -> None:
    raise AssertionError("a model was built")


def test_vectors_of_another_data_set_are_copied_bit_by_bit(tmp_path: Path, reference: Any) -> None:
    prepare(tmp_path, range(40))
    extract(tmp_path)
    images = [*range(59, 19, -1), 30, 55, 55]
    prepare(tmp_path, images, "b")
    plan = run(tmp_path, "b", dry_run=True)
    (estimate,) = plan.plan
    assert (estimate.rows, estimate.carried, estimate.stored, estimate.equal) == (20, 20, 0, 3)
    report = extract(tmp_path, "b")
    assert (report.state, report.computed, report.carried, report.equal) == ("computed", 20, 20, 3)
    a, b = vectors(tmp_path), vectors(tmp_path, "b")
    copied = [row for row, image in enumerate(images) if image < 40]
    assert b[copied].tobytes() == a[[images[row] for row in copied]].tobytes()
    assert check_rows(tmp_path, reference, "b") == len(images)
    rows = RowFile.open(report.path)
    rows.verify()
    record = ExtractionRecord.of(rows)
    assert record and (record.computed_rows, record.carried_rows) == (20, 20)
    assert not parts_folder(report.path).exists()


def test_vectors_of_the_old_file_are_copied_where_the_images_changed(
    tmp_path: Path, reference: Any
) -> None:
    prepare(tmp_path, range(40))
    extract(tmp_path)
    before = vectors(tmp_path)
    prepare(tmp_path, [*range(45, 4, -1)])
    report = extract(tmp_path)
    assert (report.computed, report.carried) == (6, 35)
    assert vectors(tmp_path)[6:].tobytes() == before[:4:-1].tobytes()
    assert check_rows(tmp_path, reference) == 41


def test_nothing_new_costs_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(tmp_path, range(40))
    extract(tmp_path)
    monkeypatch.setattr(Extractor, "build", no_model)
    prepare(tmp_path, range(40), seed=1)  # other labels and splits
    assert (extract(tmp_path).state, extract(tmp_path).computed) == ("cached", 0)
    prepare(tmp_path, [7, 3, 3, 9], "b")  # removed, reordered, doubled, renamed
    report = extract(tmp_path, "b")
    assert (report.state, report.computed, report.carried, report.equal) == ("carried over", 0, 3, 1)  # fmt: skip
    assert vectors(tmp_path, "b").tobytes() == vectors(tmp_path)[[7, 3, 3, 9]].tobytes()


def test_stores_that_are_only_read_give_their_vectors(tmp_path: Path, reference: Any) -> None:
    """Finished ones and unfinished ones; nothing is written there."""
    old, new = tmp_path / "old", tmp_path / "new"
    prepare(old, range(20))
    extract(old)
    prepare(old, range(30, 60), "b")
    run(old, "b", stop=After(1))
    before = sorted(path.name for path in old.rglob("*"))
    prepare(new, range(64))
    report = extract(new, read_from=(old,))
    assert (report.carried, report.computed) == (20 + 16, 64 - 36)
    assert check_rows(new, reference) == 64
    assert sorted(path.name for path in old.rglob("*")) == before


def test_equal_images_are_computed_once(tmp_path: Path, monkeypatch: Any, reference: Any) -> None:
    seen: list[bytes] = []

    def noted(*arguments: Any) -> Iterator:
        for batch in cut(*arguments):
            seen.extend(content.tobytes() for content in batch.contents)
            yield batch

    cut = worker.cut_batches
    monkeypatch.setattr(worker, "cut_batches", noted)
    prepare(tmp_path, [*range(20)] * 3)
    report = extract(tmp_path)
    assert (report.computed, report.equal, report.rows) == (20, 40, 60)
    assert len(seen) == len(set(seen)) == 20
    assert check_rows(tmp_path, reference) == 60


def test_a_damaged_block_is_said_and_computed_again(tmp_path: Path, said: Any, reference: Any) -> None:  # fmt: skip
    prepare(tmp_path, range(40))
    extract(tmp_path)
    flip(feature_file(tmp_path), "features", 20)
    prepare(tmp_path, range(44), "b")
    report = extract(tmp_path, "b")
    assert (report.computed, report.carried) == (16 + 4, 24)  # rows 16 to 31, and the new ones
    assert "a/features/tiny@16.h5: rows 16 to 31 differ from what was written" in said.text
    assert check_rows(tmp_path, reference, "b") == 44


def test_where_all_that_was_to_be_copied_is_damaged_a_model_is_built_after_all(
    tmp_path: Path, reference: Any
) -> None:
    prepare(tmp_path, range(10))
    extract(tmp_path)
    flip(feature_file(tmp_path), "features", 3)
    prepare(tmp_path, range(9, -1, -1), "b")
    assert extract(tmp_path, "b").computed == 10
    assert check_rows(tmp_path, reference, "b") == 10


def test_vectors_that_would_not_be_computed_now_are_not_mixed_in(tmp_path: Path) -> None:
    """Another driver, or other code: found before anything is written, wherever they come from."""
    prepare(tmp_path, range(40))
    extract(tmp_path)
    prepare(tmp_path, range(3), "few")
    report = extract(tmp_path, "few")
    rows = RowFile.open(report.path)
    wrong = {**rows.columns, "features": rows.columns["features"] * np.float16(1.2)}
    feature_file(tmp_path).unlink()
    prepare(tmp_path, [*range(3, 40)])  # the three are the only wrong ones among 40
    extract(tmp_path)
    write_rows(report.path, wrong, inputs=rows.inputs)
    prepare(tmp_path, range(50), "b")
    with pytest.raises(
        StaleError, match=r"few/features/tiny@16\.h5: its vector of image "
    ) as error:
        extract(tmp_path, "b")
    assert error.value.remedy == Remedy("delete", "few/tiny@16")
    assert not list(feature_file(tmp_path, "b").parent.iterdir())
    report.path.unlink()
    assert extract(tmp_path, "b").carried == 37


@pytest.mark.parametrize("shard_rows", [8, 16, 40])
def test_an_unfinished_run_is_good_for_another_order_and_other_shards(
    tmp_path: Path, shard_rows: int, reference: Any
) -> None:
    prepare(tmp_path, range(60))
    stopped = run(tmp_path, stop=After(2))
    assert stopped.stopped == "enough" and stopped.files[0].rows == 32
    prepare(tmp_path, range(69, 9, -1))
    (estimate,) = run(tmp_path, dry_run=True).plan
    assert (estimate.stored, estimate.rows) == (22, 38)
    report = extract(tmp_path, shard_rows=shard_rows)
    assert (report.computed, report.carried, report.rows) == (38, 0, 60)
    assert check_rows(tmp_path, reference) == 60


def test_an_unfinished_run_of_other_weights_is_dropped_and_that_is_said(
    tmp_path: Path, said: Any, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path, range(40))
    with monkeypatch.context() as patch:
        recipe = FeatureKey.recipe
        patch.setattr(FeatureKey, "recipe", lambda key: {**recipe(key), "weights": "others"})
        run(tmp_path, stop=After(2))
    prepare(tmp_path, range(40), "b")  # that of another data set is neither copied nor touched
    assert extract(tmp_path, "b").computed == 40
    assert len(list(parts_folder(feature_file(tmp_path)).glob("shard-*"))) == 2
    feature_file(tmp_path, "b").unlink()
    assert extract(tmp_path).computed == 40
    assert "an unfinished run was made from other inputs (weights: others, now " in said.text
    assert check_rows(tmp_path, reference) == 40


@pytest.mark.parametrize("flags", [{"view": ("random:3",)}, {"view": ("", "flip")}])
def test_a_row_depends_on_its_image_and_not_on_its_place(tmp_path: Path, flags: dict) -> None:
    """A random view's box too: it is drawn by the content."""
    images, order = range(30), np.random.default_rng(0).permutation(30)
    prepare(tmp_path / "one", images)
    prepare(tmp_path / "two", [100, *order, *order])
    for store in ("one", "two"):
        for report in run(tmp_path / store, **flags).files:
            assert report.state == "computed"
            if store == "two":
                one = vectors(tmp_path / "one", key=report.key).astype(np.float32)[order]
                two = vectors(tmp_path / "two", key=report.key).astype(np.float32)
                np.testing.assert_allclose(two[1:31], one, atol=NEAR)
                np.testing.assert_array_equal(two[31:], two[1:31])


def replace_between_batches(monkeypatch: pytest.MonkeyPatch, replace: Callable[[], None]) -> None:
    """Let something happen after the first batch of a run was read."""
    cut, calls = worker.cut_batches, []

    def cutting(*arguments: Any) -> Iterator:
        for batch in cut(*arguments):
            yield batch
            if not calls:
                calls.append(replace())

    monkeypatch.setattr(worker, "cut_batches", cutting)


def overwrite(path: Path, other: Path) -> None:
    """Put other bytes into the very file that is mapped."""
    content = other.read_bytes()
    assert len(content) == path.stat().st_size
    with path.open("r+b") as file:
        file.write(content)
        os.fsync(file.fileno())


@pytest.mark.parametrize("how", ["renamed", "overwritten", "overwritten in another order"])
def test_other_images_under_the_same_name_while_vectors_are_computed(
    tmp_path: Path, monkeypatch: Any, reference: Any, how: str
) -> None:
    """Found as wrong rows under the right name, silently; now every row says of which image it is."""
    prepare(tmp_path, range(64))
    others = range(63, -1, -1) if "order" in how else range(100, 164)
    prepare(tmp_path / "elsewhere", others)
    pixels = Path("a", "pixels.h5")

    def replace() -> None:
        if how == "renamed":
            prepare(tmp_path, others)
        else:
            overwrite(tmp_path / pixels, tmp_path / "elsewhere" / pixels)

    with monkeypatch.context() as patch:
        replace_between_batches(patch, replace)
        if how == "renamed":  # the file that was opened is still there: its images are finished
            assert extract(tmp_path).computed == 64
        else:
            with pytest.raises(StaleError, match="the images changed while their rows were made"):
                extract(tmp_path)
            assert not feature_file(tmp_path).exists()
    done = check_rows(tmp_path, reference)
    assert done == 64 if how == "renamed" else done < 64
    prepare(tmp_path, others)
    report = extract(tmp_path)
    assert report.state == "computed" and report.computed >= 48
    assert check_rows(tmp_path, reference) == 64
    assert len(open_dataset(tmp_path, "a").names) == 64


@pytest.mark.parametrize("others", [range(100, 164), range(100, 110)])
def test_other_images_before_the_first_batch(tmp_path: Path, monkeypatch: Any, reference: Any, others: range) -> None:  # fmt: skip
    prepare(tmp_path, range(64))
    run = LocalExecutor.run

    def replaced(*arguments: Any) -> Outcome:
        prepare(tmp_path, others)
        return run(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalExecutor, "run", replaced)
        with pytest.raises(StaleError, match="un the same command again"):
            extract(tmp_path)
    assert check_rows(tmp_path, reference) == 0
    assert extract(tmp_path).computed == len(others)
    assert check_rows(tmp_path, reference) == len(others)


def test_files_of_one_job_miss_different_rows(tmp_path: Path, reference: Any) -> None:
    """Each takes what it misses; rows that one has already are not stored twice."""
    prepare(tmp_path, range(40))
    extract(tmp_path)
    prepare(tmp_path, range(20, 60), "b")
    reports = run(tmp_path, "b", pooling=("avg", "max")).files
    assert [(r.key, r.computed, r.carried) for r in reports] == [
        ("tiny@16", 20, 20), ("tiny@16~max", 40, 0),
    ]  # fmt: skip
    assert check_rows(tmp_path, reference, "b") == 40
    alone = tmp_path / "alone"
    prepare(alone, range(20, 60), "b")
    run(alone, "b", pooling=("max",))
    np.testing.assert_allclose(
        vectors(tmp_path, "b", "tiny@16~max").astype(np.float32),
        vectors(alone, "b", "tiny@16~max").astype(np.float32),
        atol=NEAR,
    )


def test_what_a_kill_leaves_after_the_last_renaming_goes_with_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    prepare(tmp_path, range(40))
    with monkeypatch.context() as patch:
        patch.setattr("onepass.cache.rows.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            extract(tmp_path)
    file = feature_file(tmp_path)
    file.with_name(".tmp-abcdefgh-tiny@16.h5").write_bytes(b"half a file")
    file.with_name("tiny@16.h5.lock").touch()
    assert file.exists() and parts_folder(file).exists()
    assert extract(tmp_path).state == "cached"
    assert [path.name for path in file.parent.iterdir()] == ["tiny@16.h5"]


def test_shards_of_another_state_of_the_data_set_wait_for_it(
    tmp_path: Path, reference: Any
) -> None:
    """The images were there for a while, and come back."""
    prepare(tmp_path, range(10))
    extract(tmp_path)
    prepare(tmp_path, range(60))
    assert run(tmp_path, stop=After(2)).files[0].rows == 10 + 32
    prepare(tmp_path, range(10))
    assert extract(tmp_path).state == "cached"
    prepare(tmp_path, range(60))
    report = extract(tmp_path)
    assert (report.carried, report.computed) == (10, 60 - 42)
    assert check_rows(tmp_path, reference) == 60


def test_who_is_asked_to_stop_when_all_is_done_has_not_stopped_early(tmp_path: Path) -> None:
    prepare(tmp_path, range(40))
    asked = StopRequest()
    asked.ask("SIGTERM")
    assert run(tmp_path, stop=asked).stopped == "SIGTERM"  # before the first row
    run(tmp_path)
    done = run(tmp_path, stop=asked)
    assert (done.stopped, done.files[0].state) == ("", "cached")
