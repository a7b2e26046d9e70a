"""An image is known by its content: what a change of the folder costs, and what stays where it is."""

import io
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import processes
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from stored import store_features

from onepass.cache.content import source_of
from onepass.cache.errors import InvalidInputError, OnepassError, UsageError
from onepass.cache.features import FeatureKey
from onepass.cache.names import NEXT_PIXELS
from onepass.cache.rowfile import RowFile, write_rows
from onepass.data.config import PrepareConfig, RelabelConfig, ShowConfig
from onepass.data.dataset import EXCLUDED, ImageDataset, dataset_path, open_dataset
from onepass.data.listing import show_dataset, show_text
from onepass.data.manifest import Manifest, manifest_path
from onepass.data.prepare import prepare_dataset
from onepass.data.relabel import relabel
from onepass.data.splits import TEST, TRAIN, VAL, shared_images
from onepass.data.summary import Prepared, prepared_text

YEAR_2001 = 10**18  # ns


def png(number: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """An image of noise, another for each number."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write(path: Path, files: dict[str, bytes]) -> Path:
    """Write files into a folder, or into a zip of that name."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
        os.utime(path / name, ns=(YEAR_2001, YEAR_2001 + zlib.crc32(content)))
    return path


def files(count: int = 12, first: int = 0, above: str = "") -> dict[str, bytes]:
    return {
        f"{above}{name}/{n}.png": png(first + 1000 * k + n)
        for k, name in enumerate(("cat", "dog"))
        for n in range(count)
    }


class Place:
    """A folder of pictures, a store, and counts of what is read and decoded."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.store, self.photos = folder, folder / "store", folder / "photos"
        self.decoded: list[str] = []
        self.read: list[str] = []
        self._count(monkeypatch, "onepass.data.pack.decode_row", self.decoded)
        self._count(monkeypatch, "onepass.data.look.inspect_image", self.read)

    @staticmethod
    def _count(monkeypatch: pytest.MonkeyPatch, target: str, calls: list[str]) -> None:
        module, _, name = target.rpartition(".")
        __import__(module)
        original: Callable = getattr(sys.modules[module], name)
        monkeypatch.setattr(
            target, lambda c, n, *a, **k: calls.append(n) or original(c, n, *a, **k)
        )

    def prepare(self, *sources: Path, **flags) -> Prepared:
        self.decoded.clear()
        self.read.clear()
        place = tuple(map(str, sources or (self.photos,)))
        flags = {"name": "photos", "kind": "folder", **flags}
        return prepare_dataset(PrepareConfig(source=place, cache_dir=self.store, **flags))

    @property
    def dataset(self) -> ImageDataset:
        return open_dataset(self.store, "photos")

    @property
    def pixel_file(self) -> tuple[int, int]:
        status = dataset_path(self.store, "photos").stat()
        return status.st_ino, status.st_mtime_ns

    def flip_a_pixel(self) -> None:
        """Flip one bit of a stored row."""
        data = self.dataset
        content = bytearray(data.path.read_bytes())
        content[data.pixels.offset + 500] ^= 1
        data.path.write_bytes(content)

    def sides(self) -> dict[bytes, int]:
        """The split of each image, by its content."""
        data = self.dataset
        return {c.tobytes(): int(s) for c, s in zip(data.content, data.split, strict=True)}

    def check(self, expected: dict[str, bytes]) -> None:
        """Every row is the image of its name, with its label, and equal images lie on one side."""
        data = self.dataset
        assert sorted(data.names) == sorted(expected)
        for row, name in enumerate(data.names):
            image = Image.open(io.BytesIO(expected[name])).convert("RGB")
            assert np.array_equal(data.pixels[row], np.asarray(image)), name
            assert data.class_ids[data.labels[row]] == name.split("/")[-2]
        assert not shared_images(data.content, data.split)
        RowFile.open(data.path).verify()


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    return Place(tmp_path, monkeypatch)


class TestWhatAChangeCosts:
    def test_nothing_changed_nothing_is_read(self, place):
        write(place.photos, files())
        first = place.prepare()
        assert (first.state, first.new, first.carried) == ("prepared", 24, 0)
        assert len(place.decoded) == len(place.read) == 24
        again = place.prepare()
        assert (again.state, again.new, again.carried, again.changed) == ("cached", 0, 24, [])
        assert not place.read and not place.decoded
        place.prepare(rehash=True)
        assert len(place.read) == 24 and not place.decoded

    def test_a_file_of_just_now_is_read_again(self, place):
        write(place.photos, files())
        os.utime(place.photos / "cat" / "3.png")
        place.prepare()
        place.prepare()
        assert place.read == ["cat/3.png"] and not place.decoded

    def test_a_file_of_the_same_size_and_time_is_not_noticed_but_by_rehash(self, place):
        """As git's index does; whoever sets times back can say so."""
        images = {
            name: f"P6 4 4 255 {n:036d}{n:011d}\n".encode() for n, name in enumerate(files(3))
        }
        images = {name.replace("png", "ppm"): data for name, data in images.items()}
        write(place.photos, images)
        place.prepare()
        before = place.dataset.digest
        changed = f"P6 4 4 255 {9:036d}{9:011d}\n".encode()
        write(place.photos, {"cat/1.ppm": changed})
        time = YEAR_2001 + zlib.crc32(images["cat/1.ppm"])
        os.utime(place.photos / "cat" / "1.ppm", ns=(time, time))
        assert place.prepare().state == "cached" and place.dataset.digest == before
        done = place.prepare(rehash=True)
        assert place.decoded == ["cat/1.ppm"] and (done.new, done.carried) == (1, 5)

    def test_a_label_is_changed_by_moving_a_file(self, place):
        images = files()
        write(place.photos, images)
        place.prepare()
        before, pixels = place.dataset, place.pixel_file
        (place.photos / "cat" / "3.png").rename(place.photos / "dog" / "was-cat.png")
        done = place.prepare()
        after = place.dataset
        assert not place.decoded and place.pixel_file == pixels
        assert (done.new, done.carried) == (0, 24) and done.changed == [
            "labels changed: 1 (dog/was-cat.png: cat → dog)",
            "names changed: 1",
        ]
        assert np.array_equal(before.content, after.content)
        assert np.array_equal(before.split, after.split)
        row = before.names.index("cat/3.png")
        assert (before.labels[row], after.labels[row]) == (0, 1)
        images["dog/was-cat.png"] = images.pop("cat/3.png")
        place.check(images)

    def test_images_come_and_go(self, place):
        images = files()
        write(place.photos, images)
        place.prepare()
        before, order = place.sides(), place.dataset.names
        more = {**files(5, first=500, above="new-")} | {"cat/new.png": png(7777)}
        more = {name.replace("new-", ""): data for name, data in more.items()}
        more = {name.replace("/", "/z"): data for name, data in more.items()}
        write(place.photos, more)
        (place.photos / "dog" / "2.png").unlink()
        images = {k: v for k, v in {**images, **more}.items() if k != "dog/2.png"}
        done = place.prepare()
        assert (done.new, done.carried) == (11, 23) and sorted(place.decoded) == sorted(more)
        assert done.changed == ["images added: 11", "images removed: 1"]
        place.check(images)
        kept = [name for name in order if name != "dog/2.png"]
        assert place.dataset.names[: len(kept)] == kept, "rows keep their order, new ones follow"
        after = place.sides()
        assert all(after[key] == side for key, side in before.items() if key in after)
        assert abs(sum(side == VAL for side in after.values()) - len(after) / 4) <= 1

    def test_a_copy_is_not_decoded_and_follows_the_image(self, place):
        images = files()
        write(place.photos, images)
        place.prepare()
        data = place.dataset
        copies = {f"dog/copy-{n}.png": images[f"dog/{n}.png"] for n in range(12)}
        write(place.photos, copies)
        done = place.prepare()
        assert (done.new, done.carried, done.equal) == (0, 36, 12) and not place.decoded
        assert "0 new, 36 carried over, 12 equal to another" in prepared_text(done)
        place.check({**images, **copies})
        assert np.array_equal(place.dataset.split[: len(data.split)], data.split)

    def test_the_same_picture_in_another_encoding_has_the_same_content(self, place):
        images = files()
        write(place.photos, images)
        place.prepare()
        before = place.dataset
        buffer = io.BytesIO()
        Image.open(io.BytesIO(images["cat/5.png"])).save(buffer, "BMP")
        (place.photos / "cat" / "5.png").unlink()
        write(place.photos, {"cat/5.bmp": buffer.getvalue()})
        done = place.prepare()
        assert done.new == 1 and np.array_equal(place.dataset.content, before.content)
        assert not place.prepare().new and not place.read

    def test_another_geometry_keeps_rows_and_splits(self, place):
        write(place.photos, files())
        place.prepare()
        before = place.dataset
        place.prepare(max_side=8)
        after = place.dataset
        assert after.pixels.shape[1] == 8 and after.names == before.names
        assert np.array_equal(after.split, before.split)

    def test_rows_are_copied_from_another_data_set_of_the_store(self, place):
        write(place.photos, files())
        place.prepare()
        other = write(place.folder / "more", files() | {"cat/new.png": png(99)})
        done = place.prepare(other, name="more")
        assert (done.new, done.carried) == (1, 24) and place.decoded == ["cat/new.png"]

    def test_what_was_fitted_otherwise_is_decoded_unless_it_is_square(self, place):
        wide = {name: png(n, (20, 10)) for n, name in enumerate(files(4))}
        write(place.photos, wide)
        place.prepare(fit="pad")
        done = place.prepare(fit="crop")
        assert (done.new, done.carried) == (8, 0)
        write(place.folder / "square", files(4, first=70))
        place.prepare(place.folder / "square", name="square", fit="pad")
        extra = {**files(4, first=70), "dog/wide.png": png(5, (16, 8))}
        done = place.prepare(write(place.folder / "both", extra), name="both", fit="crop")
        assert (done.new, done.carried) == (1, 8)

    def test_a_damaged_row_is_not_copied(self, place, said):
        images = files()
        write(place.photos, images)
        place.prepare()
        place.flip_a_pixel()
        write(place.photos, {"cat/new.png": png(99)})
        done = place.prepare()
        assert done.new == 25 and "nothing is copied from them" in said.text
        place.check(images | {"cat/new.png": png(99)})

    def test_rehash_mends_a_damaged_file(self, place, said):
        images = files()
        write(place.photos, images)
        place.prepare()
        place.flip_a_pixel()
        assert place.prepare(rehash=True).state == "prepared"
        assert len(place.decoded) == 24 and "its rows are made again" in said.text
        place.check(images)

    def test_a_run_that_ended_between_pixels_and_manifest_is_completed(self, place, monkeypatch):
        images = files()
        write(place.photos, images)
        place.prepare()
        more = {"cat/new.png": png(99)}
        write(place.photos, more)

        def killed(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("onepass.data.prepare.settle", lambda *_: None)
            patch.setattr(Manifest, "write", killed)
            place.prepare()
        assert len(place.dataset.names) == 24 and (place.store / "photos" / NEXT_PIXELS).exists()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("onepass.data.prepare.settle", killed)
            place.prepare()
        done = place.prepare()
        assert not place.decoded and done.new == 0
        place.check(images | more)
        assert not (place.store / "photos" / NEXT_PIXELS).exists()


class TestAnEarlyVersion:
    """What `cache migrate` leaves: pixels whose files are not known, and an identity of their own."""

    def prepare(self, place: Place) -> ImageDataset:
        write(place.photos, files())
        place.prepare()
        manifest = Manifest.open(manifest_path(place.store, "photos"))
        rows = RowFile.open(dataset_path(place.store, "photos"))
        replace(manifest, columns={}, pixels="0" * 64, history=[]).write()
        arrays = {**rows.columns, "source": np.zeros_like(rows.columns["source"])}
        write_rows(rows.path, arrays, inputs=rows.inputs)
        return place.dataset

    def test_untouched_files_are_read_and_not_decoded(self, place):
        before = self.prepare(place)
        plan = place.prepare(dry_run=True)
        assert (plan.new, plan.carried) == (0, 24)
        done = place.prepare()
        assert (done.state, done.new) == ("cached", 0) and not place.decoded
        assert place.dataset.digest == before.digest
        assert RowFile.open(place.dataset.path).columns["source"].any(axis=1).all()
        assert place.prepare().state == "cached" and not place.read
        write(place.photos, {"cat/new.png": png(99)})
        assert place.prepare().new == 1 and place.decoded == ["cat/new.png"]

    def test_another_fit_is_decoded(self, place):
        write(place.photos, {name: png(n, (20, 10)) for n, name in enumerate(files(4))})
        place.prepare(fit="pad")
        manifest = Manifest.open(manifest_path(place.store, "photos"))
        rows = RowFile.open(dataset_path(place.store, "photos"))
        replace(manifest, columns={}).write()
        arrays = {**rows.columns, "source": np.zeros_like(rows.columns["source"])}
        write_rows(rows.path, arrays, inputs=rows.inputs)
        assert place.prepare(fit="crop").new == len(place.decoded) == 8

    def test_files_that_changed_are_decoded_and_what_is_equal_stays(self, place):
        before = self.prepare(place)
        write(place.photos, {"cat/new.png": png(99)})
        done = place.prepare()
        assert done.new == 25 and len(place.decoded) == 25
        assert np.array_equal(place.dataset.split[:24], before.split)
        assert place.dataset.names[:24] == before.names


class TestDryRun:
    def test_it_says_what_would_be_done_and_does_nothing(self, place):
        write(place.photos, files())
        plan = place.prepare(dry_run=True)
        assert (plan.state, plan.new, plan.carried) == ("dry-run", 24, 0)
        assert not place.decoded and not place.store.exists()
        place.prepare()
        write(place.photos, files(3, first=300) | {"cat/x.png": png(7)})
        before = sorted((p, p.stat().st_mtime_ns) for p in place.store.rglob("*"))
        plan = place.prepare(dry_run=True)
        assert (plan.new, plan.carried, plan.equal) == (6, 19, 1)
        assert "photos: to be prepared\n  rows      6 new, 19 carried over" in prepared_text(plan)
        assert sorted((p, p.stat().st_mtime_ns) for p in place.store.rglob("*")) == before
        assert place.prepare().new == 6


class TestSeveralSources:
    @pytest.mark.parametrize("kinds", [("a", "b"), ("a.zip", "b"), ("a", "b.zip")])
    def test_a_second_one_is_growth(self, kinds, place):
        first, second = files(8), files(8, first=100) | {"emu/1.png": png(9), "emu/2.png": png(8)}
        a, b = (write(place.folder / k, f) for k, f in zip(kinds, (first, second), strict=True))
        place.prepare(a)
        before = place.sides()
        done = place.prepare(a, b)
        assert (done.new, done.carried) == (18, 16) and len(place.decoded) == 18
        data = place.dataset
        assert data.class_ids == ["cat", "dog", "emu"]
        # names of the first source stay; those that are taken get the name of the second
        assert data.names[:16] == list(first) and "b/cat/0.png" in data.names
        assert "emu/1.png" in data.names
        place.check({**first, **{(f"b/{k}" if k in first else k): v for k, v in second.items()}})
        after = place.sides()
        assert all(after[key] == side for key, side in before.items())
        assert place.prepare(a, b).state == "cached" and not place.read
        assert [origin.place for origin in data.record.origins] == [str(a), str(b)]

    def test_an_image_of_both_is_one_row_or_two_where_the_labels_differ(self, place):
        images = files(8)
        a = write(place.folder / "a", images)
        b = write(
            place.folder / "b",
            {
                "cat/same.png": images["cat/1.png"],
                "dog/other.png": images["cat/2.png"],
                "dog/new.png": png(77),
            },
        )
        done = place.prepare(a, b)
        data = place.dataset
        assert len(data.names) == 18 and "cat/same.png" not in data.names
        assert "images in two sources: 1; each is one row" in done.said
        assert "images in two sources under two labels: 1; each is two rows" in done.said
        rows = [data.names.index(name) for name in ("cat/2.png", "dog/other.png")]
        assert data.labels[rows].tolist() == [0, 1]
        assert data.split[rows[0]] == data.split[rows[1]]
        assert not place.prepare(a, b).changed

    def test_the_split_of_the_first_counts(self, place):
        images = files(8)
        a = write(place.folder / "a", {f"train/{k}": v for k, v in images.items()} | {"val/cat/v.png": png(5), "val/dog/v.png": png(6)})  # fmt: skip
        b = write(
            place.folder / "b", {"cat/x.png": png(5), "cat/y.png": png(50), "dog/y.png": png(51)}
        )
        done = place.prepare(a, b)
        data = place.dataset
        assert len(data.rows("val")) == 2 and len(data.names) == 20
        assert data.split[data.names.index("cat/y.png")] == TRAIN
        assert "images in two sources: 1; each is one row" in done.said
        c = write(place.folder / "c", {"train/cat/q.png": png(60), "train/dog/q.png": png(61), "val/cat/z.png": images["cat/0.png"]})  # fmt: skip
        assert "in another split of the later source: 1 of them; that of the first counts" in place.prepare(a, b, c).said  # fmt: skip

    def test_a_data_set_from_elsewhere_is_still_refused(self, place):
        a, b, c = (write(place.folder / k, files(4, first=n)) for n, k in enumerate("abc"))
        place.prepare(a, b)
        place.prepare(b)
        with pytest.raises(OnepassError, match="choose another --name"):
            place.prepare(c)

    def test_training_images_are_added_to_tiny_imagenet(self, place):
        lists = {
            "t/wnids.txt": b"n00000001\nn00000002\n",
            "t/words.txt": b"n00000001\tone\nn00000002\ttwo\n",
            "t/val/val_annotations.txt": b"val_0.JPEG\tn00000001\t0\nval_1.JPEG\tn00000002\t0\n",
        }
        size = (64, 64)
        images = {f"t/train/n0000000{k}/images/n0000000{k}_{n}.JPEG": png(10 * k + n, size) for k in (1, 2) for n in range(4)}  # fmt: skip
        images |= {f"t/val/images/val_{n}.JPEG": png(50 + n, size) for n in (0, 1)}
        more = {f"t/train/n0000000{k}/images/n0000000{k}_{n}.JPEG": png(10 * k + n, size) for k in (1, 2) for n in range(3, 7)}  # fmt: skip
        a, b = write(place.folder / "a.zip", lists | images), write(place.folder / "b.zip", more)
        tiny = {"kind": "tiny-imagenet", "name": None}
        place.prepare(a, **tiny)
        done = place.prepare(a, b, **tiny)
        assert (done.new, done.carried) == (6, 10) and len(place.decoded) == 6
        data = open_dataset(place.store, "tiny-imagenet")
        assert len(data.rows("train")) == 14 and data.class_names == ["one", "two"]
        assert "images in two sources: 2; each is one row" in done.said
        with pytest.raises(OnepassError, match=r"wnids\.txt"):
            place.prepare(b, **tiny | {"name": "rest"})


class TestSplits:
    def test_each_file_twice_lies_on_one_side(self, place):
        """As a split by files would not: a copy of every second validation image would be trained on."""
        images = {
            f"{('cat', 'dog')[n % 2]}/{n}-{copy}.png": png(n) for n in range(40) for copy in "ab"
        }
        write(place.photos, images)
        done = place.prepare()
        assert (done.equal, len(place.decoded)) == (40, 40)
        data = place.dataset
        assert len(data.rows("val")) == 20 and not shared_images(data.content, data.split)
        pixels = data.pixels.reshape(80, -1).astype(float)
        train, val = data.rows("train"), data.rows("val")
        nearest = train[[np.argmin(((pixels[train] - pixels[row]) ** 2).sum(1)) for row in val]]
        assert 0.1 <= np.mean(data.labels[nearest] == data.labels[val]) <= 0.9

    def test_groups_by_file_name(self, place):
        images = {f"{c}/p{n % 7}_{n}.png": png(100 * k + n) for k, c in enumerate(("cat", "dog")) for n in range(28)}  # fmt: skip
        images |= {"cat/other.png": png(999)}
        write(place.photos, images)
        done = place.prepare(group_by=r"p(\d+)_")
        data = place.dataset
        assert "groups by file name: 7; images in none, each for itself: 1" in done.said
        assert data.groups is not None and set(data.groups) == {*"0123456", ""}
        sides = {g: {int(s) for s, other in zip(data.split, data.groups, strict=True) if other == g} for g in "0123456"}  # fmt: skip
        assert all(len(side) == 1 for side in sides.values()) and len(data.rows("val")) > 0
        before = place.sides()
        write(place.photos, {"dog/p3_new.png": png(1234), "cat/p9_new.png": png(1235)})
        assert place.prepare().state == "prepared"  # the rule is kept
        data = place.dataset
        assert data.groups is not None and data.record.group_pattern == r"p(\d+)_"
        assert {int(data.split[data.names.index("dog/p3_new.png")])} == sides["3"]
        assert all(place.sides()[key] == side for key, side in before.items())
        place.prepare(group_by="")  # taken back: each image for itself again, where it is
        assert place.dataset.groups is None and place.dataset.record.group_pattern == ""
        assert all(place.sides()[key] == side for key, side in before.items())
        assert place.prepare().state == "cached" and place.dataset.groups is None

    def test_one_group_of_all_has_no_validation_images_and_says_so(self, place):
        images = {f"{c}/p{n}.png": png(10 * k + n) for k, c in enumerate(("cat", "dog")) for n in range(6)}  # fmt: skip
        write(place.photos, images)
        said = "no validation images: all images of each class belong together"
        assert not any(said in line for line in place.prepare().said)
        done = place.prepare(group_by="(p)", resplit=True)
        assert not len(place.dataset.rows("val")) and said in prepared_text(done)

    def test_groups_that_a_split_has_parted_ask_for_a_new_draw(self, place):
        images = {f"{c}/p{n % 7}_{n}.png": png(100 * k + n) for k, c in enumerate(("cat", "dog")) for n in range(28)}  # fmt: skip
        write(place.photos, images)
        place.prepare()
        with pytest.raises(OnepassError, match=r"groups on both sides .* add --resplit"):
            place.prepare(group_by=r"p(\d+)_")
        place.prepare(group_by=r"p(\d+)_", resplit=True)
        assert place.dataset.groups is not None
        with pytest.raises(OnepassError, match=r"it is in none, such as cat/p0_0\.png"):
            place.prepare(group_by="video", resplit=True)

    def test_a_column_is_a_group(self, place):
        done = prepare_dataset(
            PrepareConfig(kind="solar-cells", group="type", max_side=8, cache_dir=place.store)
        )
        data = open_dataset(place.store, done.name)
        assert data.groups is not None and {*data.groups} == {"mono", "poly"}
        assert {len({*data.split[np.array(data.groups) == g]}) for g in ("mono", "poly")} == {1}
        with pytest.raises(OnepassError, match="column 'kind' is unknown"):
            prepare_dataset(PrepareConfig(kind="solar-cells", group="kind", cache_dir=place.store))

    @pytest.mark.parametrize("side", ["train", "val"])
    def test_images_that_splits_share_are_said_and_can_be_dropped(self, side, place):
        images = {f"train/{k}": v for k, v in files(8).items()}
        images |= {
            "val/cat/v.png": images["train/cat/0.png"],
            "val/dog/v.png": png(55),
            "val/dog/w.png": png(56),
        }
        images |= {"test/t.png": images["train/dog/1.png"]}
        write(place.photos, images)
        done = place.prepare()
        counts = {"val in train": 1, "test in train": 1}
        assert place.dataset.record.shared == counts
        assert "splits share images: 1 val in train, 1 test in train; --drop-leaks train (or val) takes them out" in done.said  # fmt: skip
        done = place.prepare(drop_leaks=side)
        data = place.dataset
        dropped = {"train": ["train/cat/0.png", "train/dog/1.png"], "val": ["val/cat/v.png"]}[side]
        assert [data.names[row] for row in np.flatnonzero(data.split == EXCLUDED)] == dropped
        assert data.record.shared == ({} if side == "train" else {"test in train": 1})
        assert done.summary is not None and done.summary.splits["excluded"] == len(dropped)
        assert f"{len(dropped)} excluded" in show_text(show_dataset(ShowConfig(name="photos", cache_dir=place.store)))  # fmt: skip
        assert place.prepare().state == "cached", "what is excluded stays so"

    def test_a_class_whose_training_images_go_asks_for_a_new_draw(self, place):
        write(place.photos, files(8))
        place.prepare()
        data = place.dataset
        for row in data.rows("train"):
            if data.names[row].startswith("cat"):
                (place.photos / data.names[row]).unlink()
        with pytest.raises(OnepassError, match="found none of cat; --resplit draws"):
            place.prepare()
        place.prepare(resplit=True)
        assert len(place.dataset.names) == 10


def test_the_history_is_kept(place):
    write(place.photos, files(4))
    place.prepare()
    write(place.photos, {"cat/new.png": png(99)})
    place.prepare()
    place.prepare()
    history = Manifest.open(manifest_path(place.store, "photos")).history
    assert [change.what for change in history] == [["8 images of 2 classes"], ["images added: 1"]]
    assert history[-1].digest == place.dataset.digest != history[0].digest


def test_a_store_that_is_only_read_gives_its_rows(place, monkeypatch):
    write(place.photos, files())
    place.prepare()
    before = sorted((p, p.stat().st_mtime_ns) for p in place.store.rglob("*"))
    other = {"cache_dir": place.folder / "other", "read_from": (place.store,), "name": "photos"}
    source = (str(place.photos),)
    done = prepare_dataset(PrepareConfig(kind="folder", source=source, **other))
    assert done.state == "cached" and not list((place.folder / "other").rglob("*.h5"))
    write(place.photos, {"cat/new.png": png(99)})
    place.decoded.clear()
    done = prepare_dataset(PrepareConfig(kind="folder", source=source, **other))
    assert (done.new, done.carried) == (1, 24) and place.decoded == ["cat/new.png"]
    assert len(open_dataset(place.folder / "other", "photos").names) == 25
    assert sorted((p, p.stat().st_mtime_ns) for p in place.store.rglob("*")) == before


STEPS = ("add", "remove", "rename", "relabel", "duplicate", "edit", "split", "reencode")


class Model:
    """A folder of pictures that changes at random, and what must be true after each change."""

    def __init__(self, place: Place, random: np.random.Generator, stated: bool) -> None:
        self.place, self.random, self.stated = place, random, stated
        self.files: dict[str, bytes] = {}
        self.begun: set[bytes] = set()  # files whose rows a refused run decoded and keeps
        self.fresh = iter(range(10**6))
        for part in ("train", "val", "test") if stated else ("",):
            for name in ("cat", "dog", "emu"):
                for _ in range(4):
                    self.put(part, name, self.image())

    def image(self) -> bytes:
        return png(next(self.fresh), (8, 8))

    def put(self, part: str, name: str, content: bytes) -> None:
        path = "/".join(filter(None, (part, name, f"{next(self.fresh)}.png")))
        self.files[path] = content

    def step(self, what: str) -> None:
        name = str(self.random.choice(sorted(self.files)))
        *above, own = name.split("/")[:-1]
        part, content = "/".join(above), self.files[name]
        other = str(self.random.choice([c for c in ("cat", "dog", "emu") if c != own]))
        if what in ("remove", "rename", "relabel", "edit", "split", "reencode"):
            del self.files[name]
        if what == "reencode":
            buffer = io.BytesIO()
            Image.open(io.BytesIO(content)).save(buffer, "PNG", compress_level=0)
            self.files[name] = buffer.getvalue()
        elif what == "edit":
            self.files[name] = self.image()
        elif what == "relabel":
            self.put(part, other, content)
        elif what == "split":
            parts = ["train", "val", "test"] if self.stated else [part]
            self.put(str(self.random.choice(parts)), own, content)
        elif what != "remove":
            self.put(part, own, content if what in ("rename", "duplicate") else self.image())

    def check(self) -> None:
        """Prepare the folder as it is now, and compare with it and with the state before."""
        place = self.place
        shutil.rmtree(place.photos, ignore_errors=True)
        write(place.photos, self.files)
        before, known = None, set()
        if dataset_path(place.store, "photos").exists():
            before = place.dataset
            sources = RowFile.open(before.path).columns["source"]
            known = {row.tobytes() for row in sources}
        try:
            done = place.prepare()
        except InvalidInputError as error:
            assert "found none of" in str(error)
            decoded = {self.files[name] for name in place.decoded}
            self.begun |= {source_of(content).tobytes() for content in decoded}
            return
        data = place.dataset
        assert sorted(data.names) == sorted(self.files)
        new = {source_of(c).tobytes() for c in self.files.values()} - known - self.begun
        assert len(place.decoded) == len(new), "only what is new is decoded"
        self.begun.clear()
        for row, name in enumerate(data.names):
            image = Image.open(io.BytesIO(self.files[name]))
            assert np.array_equal(data.pixels[row], np.asarray(image))
            label = data.held_labels[row] if data.split[row] == TEST else data.labels[row]
            assert data.class_ids[label] == name.split("/")[-2]
            if self.stated:
                assert ("train", "val", "test")[data.split[row]] == name.split("/")[0]
        assert done.new + done.carried == len(data.names)
        if not self.stated:
            assert not shared_images(data.content, data.split)
            if before is not None:
                sides = dict(zip(map(bytes, before.content), before.split.tolist(), strict=True))
                now = dict(zip(map(bytes, data.content), data.split.tolist(), strict=True))
                assert all(now[key] == side for key, side in sides.items() if key in now)
        RowFile.open(data.path).verify()


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    stated=st.booleans(),
    steps=st.lists(
        st.lists(st.sampled_from(STEPS), min_size=1, max_size=6), min_size=1, max_size=5
    ),
    seed=st.integers(0, 2**32),
)
def test_whatever_happens_to_the_folder(stated, steps, seed):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        model = Model(Place(Path(folder), patch), np.random.default_rng(seed), stated)
        model.check()
        for some in steps:
            for what in some:
                model.step(what)
            model.check()


@pytest.mark.slow
def test_a_run_that_is_killed_at_any_moment_loses_nothing(place):
    """Growth and correction, killed 20 times: the same rows and labels as without."""
    random = np.random.default_rng(0)
    a = write(place.folder / "a", files(12))
    b = write(place.folder / "b", files(300, first=3000))
    place.prepare(a)
    table = place.folder / "labels.csv"
    table.write_text("file,label\ncat/1.png,dog\ndog/3.png,excluded\n")
    code = (
        "import sys; from onepass.cache.commandline.command import main; from onepass.data.__main__ import COMMANDS\n"
        "import onepass.data.pack, onepass.data.relabel\n"
        "onepass.data.pack.SHARD_BYTES = 16 * 16 * 3 * 20\n"
        "store = sys.argv[1:3]\n"
        "print('go', flush=True)\n"
        "main('data', COMMANDS, ['prepare', 'folder', '--name', 'photos', '--source', *sys.argv[4:], *store])\n"
        "main('data', COMMANDS, ['relabel', 'photos', '--labels', sys.argv[3], *store])\n"
    )
    command = ("-c", code, "--cache-dir", str(place.store), str(table), str(a), str(b))
    kills, latest = 0, 0.6
    for _ in range(20):
        run = processes.start(*command, PROGRAM="1")
        run.stdout.readline()
        time.sleep(random.uniform(0, latest))
        alive = run.poll() is None
        kills += alive
        latest *= 1 if alive else 0.8  # on a fast machine it has ended by then
        run.send_signal(signal.SIGKILL)
        run.communicate()
        place.dataset  # there is one at every moment
    assert kills >= 8
    done = processes.run(*command, PROGRAM="1")
    assert done.returncode == 0, done.stderr
    killed = place.dataset
    RowFile.open(killed.path).verify()
    place.store = place.folder / "fresh"
    place.prepare(a)
    place.prepare(a, b)
    relabel(RelabelConfig(name="photos", labels=table, cache_dir=place.store))
    fresh = place.dataset
    assert killed.digest == fresh.digest and np.array_equal(killed.pixels, fresh.pixels)
    left = [p.name for p in (place.folder / "store" / "photos").iterdir()]
    assert sorted(left) == ["manifest.h5", "pixels.command.toml", "pixels.h5"], left


def test_a_source_that_lacks_most_images_is_refused_unless_that_is_meant(place):
    """A mount that is half there must not cost the splits and corrections of the rest."""
    write(place.photos, files(60))
    place.prepare()
    before = place.dataset.digest
    for path in (
        sorted(place.photos.glob("*/*.png"))[2:60] + sorted(place.photos.glob("dog/*"))[2:40]
    ):
        path.unlink(missing_ok=True)
    with pytest.raises(
        InvalidInputError, match=r"about the 120 images of photos, found \d+.*--allow-fewer"
    ):
        place.prepare()
    assert place.dataset.digest == before
    assert place.prepare(allow_fewer=True).state == "prepared"
    assert len(place.dataset.names) < 60


def test_a_pattern_that_would_try_for_ever_is_refused(place):
    write(place.photos, {**files(), f"cat/{'a' * 42}!.png": png(7)})
    with pytest.raises(UsageError, match=r"took more than 1 s on cat/a+!\.png"):
        place.prepare(group_by="(a|aa)+$")


def test_rows_that_have_only_to_be_copied_are_said_with_the_command(place):
    write(place.photos, files())
    place.prepare()
    dataset = place.dataset
    key = FeatureKey("tiny", "sha256:0", 16, view="flip")
    store_features(place.store, dataset, np.zeros((len(dataset.names), 4), np.float16), key)
    (place.photos / "cat/3.png").unlink()
    done = place.prepare()
    assert done.to_extract == {"tiny@16+flip": 0}
    text = prepared_text(done)
    assert "nothing new to tiny@16+flip: rows are copied" in text
    assert "--backbone tiny --size 16 --view flip" in text.splitlines()[-1]
