"""onepass data: from images to rows, once; what is bad, stale, stopped or damaged is said."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from onepass.cache.commandline.command import STOPPED, main
from onepass.cache.rowfile import write_rows
from onepass.data.__main__ import COMMANDS
from onepass.data.config import PrepareConfig
from onepass.data.dataset import ImageDataset, open_dataset, prepared_names
from onepass.data.pack import Geometry
from onepass.data.record import DatasetRecord
from onepass.data.sources.base import Survey


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_photos(folder: Path, images: dict[str, Image.Image | bytes]) -> Path:
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image if isinstance(image, bytes) else encode(image))
    return folder


def age(folder: Path) -> None:
    """Let every file have changed long ago: what changed just now is not trusted to be as it was."""
    for path in folder.rglob("*"):
        if path.is_file() and path.stat().st_mtime_ns > YEAR_2001:
            os.utime(path, ns=(YEAR_2001, YEAR_2001 + len(path.name)))


YEAR_2001 = 10**18


def photos(
    size: tuple[int, int] = (32, 32), mode: str = "RGB", count: int = 8
) -> dict[str, Image.Image]:
    return {
        f"{name}/{number}.png": Image.new(mode, size, (level + number,) * len(mode))
        for name, level in (("cat", 10), ("dog", 100))
        for number in range(count)
    }


@pytest.fixture
def data(tmp_path, capsys):
    """Run `onepass data …` in this process; return exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(
            "data", COMMANDS, [*map(str, arguments), "--cache-dir", str(tmp_path / "store")]
        )
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def prepare(data, tmp_path):
    def run(*flags: object) -> tuple[int, str, str]:
        return data("prepare", "folder", "--source", tmp_path / "photos", *flags)

    return run


def opened(tmp_path: Path) -> ImageDataset:
    return open_dataset(tmp_path / "store", "photos")


def last_line(text: str) -> str:
    """The error itself: what stands before it on standard error is progress."""
    return text.strip().splitlines()[-1]


def test_squares_of_one_size_are_kept_as_they_are(prepare, tmp_path):
    images = photos((20, 20))
    write_photos(tmp_path / "photos", images)
    code, out, _ = prepare()
    assert code == 0
    dataset = opened(tmp_path)
    assert dataset.pixels.shape == (16, 20, 20, 3)
    for row, name in enumerate(dataset.names):
        assert np.array_equal(dataset.pixels[row], np.asarray(images[name]))
    store = tmp_path / "store"
    assert out.splitlines()[-1] == (
        f"Next: onepass extract --dataset photos --backbone efficientnet_lite0 --cache-dir {store}"
    )
    assert "12 train + 4 val, 20 x 20 px, RGB" in out and str(dataset.path) in out


def test_a_second_run_does_nothing_and_says_so(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos())
    age(tmp_path / "photos")
    prepare()
    before = opened(tmp_path).path.stat()
    code, out, err = prepare()
    after = opened(tmp_path).path.stat()
    assert code == 0 and "already prepared from the same images; nothing to do" in out and not err
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert json.loads(prepare("--json")[1])["state"] == "cached"
    # A flag that would change nothing changes nothing.
    assert "nothing to do" in prepare("--max-side", 500, "--fit", "crop")[1]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_only_images_that_are_all_grey_keep_one_channel(mode, prepare, tmp_path):
    one_more = {"cat/x.png": Image.new(mode, (32, 32), 7 if mode == "L" else (7, 8, 9))}
    write_photos(tmp_path / "photos", photos(mode="L") | one_more)
    assert prepare()[0] == 0
    dataset = opened(tmp_path)
    assert dataset.pixels.shape[-1] == len(mode)
    assert np.array_equal(
        dataset.pixels[dataset.names.index("cat/x.png"), 0, 0], [7, 8, 9][: len(mode)]
    )
    assert np.all(dataset.pixels[dataset.names.index("dog/3.png")] == 103)


def test_images_of_several_sizes_become_squares(prepare, tmp_path):
    write_photos(
        tmp_path / "photos",
        photos((48, 24)) | {"dog/small.png": Image.new("RGB", (12, 12), "white")},
    )
    assert prepare("--pad", "black")[0] == 0
    dataset = opened(tmp_path)
    assert dataset.pixels.shape[1:] == (48, 48, 3)
    wide, small = (
        dataset.pixels[dataset.names.index(name)] for name in ("cat/0.png", "dog/small.png")
    )
    assert np.all(wide[12:36] == 10) and np.all(wide[:12] == 0) and np.all(small == 255)
    code, out, _ = prepare("--fit", "crop")
    assert code == 0 and "changed   fit: pad, now crop" in out
    assert np.all(opened(tmp_path).pixels[dataset.names.index("cat/0.png")] == 10)


def test_larger_images_are_scaled_down_to_max_side(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos((64, 64)))
    prepare()
    code, out, _ = prepare("--max-side", 16)
    assert code == 0 and "changed   side: 64, now 16" in out and "16 x 16 px" in out
    assert opened(tmp_path).pixels.shape[1:] == (16, 16, 3)


def test_changed_images_are_noticed_and_what_is_to_be_extracted_is_said(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos())
    prepare()
    old = opened(tmp_path)
    arrays = {"features": np.zeros((16, 2), np.float16), "content": old.content}
    inputs = {"contents": old.contents}
    write_rows(tmp_path / "store" / "photos" / "features" / "tiny@32.h5", arrays, inputs=inputs)
    assert "extract   " not in prepare()[1]
    os.utime(tmp_path / "photos" / "cat" / "1.png", ns=(1, 1))
    assert "nothing to do" in prepare()[1]  # touched, but the same file
    assert opened(tmp_path).digest == old.digest
    write_photos(tmp_path / "photos", {"cat/1.png": Image.new("RGB", (32, 32), "white")})
    code, out, _ = prepare()
    assert code == 0 and "extract   images new to tiny@32: 1" in out
    assert "rows      1 new, 15 carried over, 0 equal to another" in out
    assert opened(tmp_path).digest != old.digest


def test_another_seed_is_another_split_where_that_is_asked_for(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos())
    prepare()
    first = opened(tmp_path)
    assert "the split stays as seed 0 drew it; --resplit draws it anew" in prepare("--seed", 3)[1]
    assert opened(tmp_path).digest == first.digest
    code, out, _ = prepare("--seed", 3, "--resplit")
    second = opened(tmp_path)
    assert code == 0 and "changed   splits changed: " in out and "0 new, 16 carried over" in out
    assert not np.array_equal(first.split, second.split)
    assert second.record.seed == 3 and np.array_equal(first.pixels, second.pixels)
    assert "nothing to do" in prepare()[1] and opened(tmp_path).record.seed == 3


def count_decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of the names that are decoded from now on."""
    decode, calls = sys.modules["onepass.data.pack"].decode_row, []
    monkeypatch.setattr(
        "onepass.data.pack.decode_row",
        lambda c, n, *a, **k: calls.append(n) or decode(c, n, *a, **k),
    )
    return calls


BAD = {
    "cat/bad1.png": b"not an image",
    "dog/bad2.jpg": encode(Image.effect_noise((32, 32), 90), "JPEG")[:-100],
}


def test_symmetries_are_said_once_and_kept(prepare, data, tmp_path):
    write_photos(tmp_path / "photos", photos())
    assert prepare()[0] == 0 and opened(tmp_path).record.symmetries is None
    assert prepare("--symmetries", "quarter_turns", "flip")[0] == 0
    assert opened(tmp_path).record.symmetries == ["flip", "quarter_turns"]
    assert "unchanged by flip, quarter_turns" in data("show", "photos")[1]
    assert prepare("--rehash")[0] == 0
    assert opened(tmp_path).record.symmetries == ["flip", "quarter_turns"]
    assert prepare("--symmetries", "none")[0] == 0 and opened(tmp_path).record.symmetries == []
    code, _, err = prepare("--symmetries", "none", "flip")
    assert code == 2 and "--symmetries none flip: expected some of flip" in err


def test_bad_images_are_refused_all_at_once_and_the_others_are_not_decoded_again(
    prepare, tmp_path, monkeypatch
):
    write_photos(tmp_path / "photos", {**photos(), **BAD})
    code, out, err = prepare()
    assert code == 1 and not out
    line = last_line(err)
    assert "2 of 18 images cannot be used" in line and "--on-bad skip" in line
    assert "cat/bad1.png: not an image" in line and "dog/bad2.jpg: image file is truncated" in line
    assert not list((tmp_path / "store").rglob("*s.h5")) and not prepared_names(tmp_path / "store")
    calls = count_decoded(monkeypatch)
    assert prepare("--on-bad", "skip")[0] == 0 and calls == ["dog/bad2.jpg"]


def test_bad_images_are_left_out_counted_and_listed(prepare, data, tmp_path):
    write_photos(tmp_path / "photos", {**photos(), **BAD})
    code, out, _ = prepare("--on-bad", "skip")
    assert code == 0 and "left out  2 undecodable\n  bad       cat/bad1.png, dog/bad2.jpg (" in out
    dataset = opened(tmp_path)
    assert len(dataset.names) == 16 and not set(BAD) & set(dataset.names)
    assert np.all(dataset.pixels[dataset.names.index("dog/7.png")] == 107)
    assert [image.name for image in dataset.record.skipped] == list(BAD)
    assert "left out  cat/bad1.png: not an image" in data("show", "photos")[1]
    assert "nothing to do" in prepare("--on-bad", "skip")[1]
    assert prepare()[0] == 1, "without --on-bad skip they are an error again"


def test_a_class_that_loses_all_its_images_is_an_error(prepare, tmp_path):
    write_photos(tmp_path / "photos", {**photos(), "emu/1.png": b"x", "emu/2.png": b"y"})
    code, _, err = prepare("--on-bad", "skip")
    assert code == 1 and "found none of emu" in last_line(err)
    code, _, err = prepare()
    assert code == 1 and "2 of 18 images cannot be used: emu/1.png" in last_line(err)


def test_a_bomb_is_an_error_without_a_warning(prepare, tmp_path):
    huge = encode(Image.new("1", (10_000, 9_500)))
    write_photos(tmp_path / "photos", {**photos(), "cat/huge.png": huge})
    code, _, err = prepare()
    assert code == 1 and "cat/huge.png: 10000 x 9500 px, more than the 80,000,000" in last_line(err)
    assert "Warning" not in err


def test_a_name_is_not_given_to_images_of_another_kind(prepare, data, tmp_path):
    assert data("prepare", "digits", "--name", "photos")[0] == 0
    write_photos(tmp_path / "photos", photos())
    code, _, err = prepare()
    assert code == 1 and "photos is made from digits already; choose another --name" in last_line(
        err
    )
    assert opened(tmp_path).record.kind == "digits"


def test_a_damaged_data_set_is_prepared_anew(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos())
    prepare()
    path = opened(tmp_path).path
    path.write_bytes(path.read_bytes()[:3000])
    code, out, err = prepare()
    assert code == 0 and "its rows are made again" in err
    assert "16 new, 0 carried over" in out
    assert len(opened(tmp_path).names) == 16


def test_a_stopped_run_resumes_at_the_first_missing_shard(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr("onepass.data.pack.SHARD_BYTES", 32 * 32 * 3 * 4)  # four images a shard
    monkeypatch.setattr("onepass.data.pack.threads", lambda *_: 1)
    write_photos(tmp_path / "photos", photos())
    decode, calls = sys.modules["onepass.data.pack"].decode_row, []

    def counted(content: bytes, name: str, *how: str, **more: int) -> np.ndarray:
        calls.append(name)
        if len(calls) == 6 and calls[0] != "no signal this time":
            os.kill(os.getpid(), signal.SIGTERM)
        return decode(content, name, *how, **more)

    monkeypatch.setattr("onepass.data.pack.decode_row", counted)
    code, out, _ = prepare()
    assert code == STOPPED and "stopped; what is packed is kept" in out
    kept = len(list((tmp_path / "store/photos/pixels.next.h5.parts").glob("shard-*.h5")))
    assert 1 <= kept < 4
    calls.clear()
    calls.append("no signal this time")
    monkeypatch.setattr("onepass.data.pack.decode_row", counted)
    assert prepare()[0] == 0 and len(calls) - 1 == 16 - 4 * kept
    dataset = opened(tmp_path)
    assert np.array_equal(dataset.pixels[:, 0, 0, 0], [*range(10, 18), *range(100, 108)])


def test_list_show_and_verify(prepare, data, tmp_path):
    assert "No data set is prepared yet" in data("list")[1]
    code, _, err = data("verify")
    assert code == 1 and "onepass data prepare solar-cells" in err
    write_photos(tmp_path / "photos", photos())
    prepare()
    code, out, _ = data("list")
    assert code == 0 and "12 train + 4 val" in out and "solar-cells" in out
    code, out, _ = data("show", "photos")
    assert code == 0 and "6 / 2 / 0" in out and "cat/0.png" in out and "licence   not stated" in out
    shown = json.loads(data("show", "photos", "--json")[1])
    assert shown["counts"] == {"cat": [6, 2, 0], "dog": [6, 2, 0]}
    assert data("verify")[:2] == (0, "photos: 16 rows are as they were prepared\n")


def test_verify_finds_a_flipped_byte_and_names_the_rows(prepare, data, tmp_path, monkeypatch):
    monkeypatch.setattr("onepass.data.pack.SHARD_BYTES", 32 * 32 * 3 * 4)
    write_photos(tmp_path / "photos", photos())
    prepare()
    dataset = opened(tmp_path)
    position = dataset.pixels.offset + 9 * 32 * 32 * 3 + 1  # in row 9
    content = bytearray(dataset.path.read_bytes())
    content[position] ^= 1
    dataset.path.write_bytes(content)
    for name in ([], ["photos"]):
        code, out, err = data("verify", *name)
        assert code == 1 and not out and "rows 8 to 11 differ from what was written" in err


def test_a_damaged_file_does_not_hide_the_others(prepare, data, tmp_path):
    write_photos(tmp_path / "photos", photos())
    prepare()
    data("prepare", "digits")
    opened(tmp_path).path.write_bytes(b"not HDF5")
    code, out, _ = data("list")
    assert code == 0 and "photos: damaged: " in out and "1,348 train" in out
    code, _, err = data("verify")
    assert code == 1 and "photos" in err and "digits" not in err


def test_no_usable_image_at_all_is_one_clear_error(prepare, tmp_path):
    write_photos(tmp_path / "photos", {"cat/1.png": b"x", "dog/1.png": b"y"})
    code, _, err = prepare("--on-bad", "skip")
    assert code == 1 and "photos: none of the 2 images can be used: cat/1.png" in last_line(err)


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["prepare", "tiny-imagnet"], 1, "did you mean tiny-imagenet?"),
        (["prepare", "folder"], 2, "expected --source"),
        (["prepare", "folder", "--source", "nowhere"], 1, "nowhere: no such file or folder"),
        (["prepare", "digits", "--max-side", "0"], 2, "--max-side: expected 1 to 4096, received 0"),
        (["prepare", "digits", "--name", "../up"], 2, "--name: expected letters"),
        (["prepare", "digits", "--seed", "-1"], 2, "--seed: expected 0 or more"),
        (["prepare", "digits", "--source", "x"], 2, "leave --source and --digest out"),
        (["show", "digits"], 1, "onepass data prepare digits"),
    ],
)
def test_every_wrong_call_is_one_clear_line(arguments, code, why, data):
    got, out, err = data(*arguments)
    assert (got, out) == (code, "") and why in err and len(err.strip().splitlines()) == 1


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command_itself(tmp_path):
    write_photos(tmp_path / "photos", photos())
    store = ["--cache-dir", str(tmp_path / "store")]
    done = run(
        "-m", "data", "prepare", "folder", "--source", str(tmp_path / "photos"), *store, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["splits"] == {"train": 12, "val": 4, "test": 0}
    wrong = run("-m", "data", "show", "photo", *store)
    assert wrong.returncode == 1 and "did you mean photos?" in wrong.stderr and not wrong.stdout
    assert run("-m", "data", "prepare", "digits", "--fit", "squeeze").returncode == 2


@pytest.mark.parametrize(
    "arguments", [["--help"], ["prepare", "--help"], ["list"], ["show", "digits"]]
)
def test_nothing_heavy_is_imported_before_it_is_needed(arguments, tmp_path):
    heavy = ["tensorflow", "keras", "sklearn", "PIL", "jax", "torch"]
    code = (
        "import sys; from onepass.cache.commandline.command import main; from onepass.data.__main__ import COMMANDS\n"
        "try: main('data', COMMANDS, sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('HEAVY', [name for name in {heavy} if name in sys.modules])"
    )
    done = run("-c", code, *arguments)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr


class TestNothingIsOverwrittenSilently:
    """A name belongs to the place that its images came from."""

    @pytest.mark.parametrize(
        ("first", "second", "name"),
        [("p1/images", "p2/images", "images"), ("a/birds.v2", "b/birds.v2", "birds.v2")],
    )
    def test_another_folder_of_the_same_name_is_refused(self, first, second, name, data, tmp_path):
        for place, size in ((first, 32), (second, 24)):
            write_photos(tmp_path / place, photos((size, size)))
        assert data("prepare", "folder", "--source", tmp_path / first)[0] == 0
        path = tmp_path / "store" / name / "pixels.h5"
        before = path.read_bytes()
        for flags in ([], ["--name", name]):
            code, _, err = data("prepare", "folder", "--source", tmp_path / second, *flags)
            line = last_line(err)
            assert code == 1 and "--name" in line and f"cache delete {name}/pixels" in line
            assert str(tmp_path / first) in line and str(tmp_path / second) in line
        assert path.read_bytes() == before
        assert data("prepare", "folder", "--source", tmp_path / second, "--name", "other")[0] == 0
        assert open_dataset(tmp_path / "store", "other").pixels.shape[1] == 24

    def test_the_name_of_a_folder_stays_whole_and_a_zip_loses_only_zip(self, data, tmp_path):
        for version in ("v1", "v2"):
            folder = write_photos(tmp_path / f"birds.{version}", photos())
            assert data("prepare", "folder", "--source", folder)[0] == 0
            shutil.make_archive(str(tmp_path / "zips" / f"bees.{version}"), "zip", folder)
            archive = tmp_path / "zips" / f"bees.{version}.zip"
            assert data("prepare", "folder", "--source", archive)[0] == 0
        names = sorted(path.name for path in (tmp_path / "store").iterdir())
        assert names == ["bees.v1", "bees.v2", "birds.v1", "birds.v2"]
        assert opened_record(tmp_path, "birds.v2").title == "birds.v2"

    def test_the_same_files_elsewhere_are_the_same_data_set(self, prepare, data, tmp_path):
        write_photos(tmp_path / "photos", photos())
        prepare()
        (tmp_path / "photos").rename(tmp_path / "moved")
        code, out, _ = data("prepare", "folder", "--source", tmp_path / "moved", "--name", "photos")
        assert code == 0 and "nothing to do" in out

    def test_one_place_written_in_two_ways_is_one(self, prepare, data, tmp_path, monkeypatch):
        write_photos(tmp_path / "photos", photos())
        monkeypatch.chdir(tmp_path)
        assert data("prepare", "folder", "--source", "photos")[0] == 0
        assert opened_record(tmp_path, "photos").source == str(tmp_path / "photos")
        (tmp_path / "link").symlink_to(tmp_path / "photos")
        monkeypatch.chdir(tmp_path / "photos")
        write_photos(tmp_path / "photos", {"cat/new.png": Image.new("RGB", (32, 32))})
        for source in ("../photos", "../link"):
            assert data("prepare", "folder", "--source", source, "--name", "photos")[0] == 0
        assert len(opened(tmp_path).names) == 17

    def test_an_image_that_the_system_refuses_is_not_left_out(self, prepare, tmp_path, monkeypatch):
        write_photos(tmp_path / "photos", photos())
        open_, refused = Path.open, tmp_path / "photos" / "dog" / "3.png"

        def failing(self, *arguments, **options):
            if self == refused:
                raise OSError(errno.EIO, "Input/output error", str(self))
            return open_(self, *arguments, **options)

        monkeypatch.setattr(Path, "open", failing)
        code, _, err = prepare("--on-bad", "skip")
        line = last_line(err)
        assert code == 1 and "dog/3.png: cannot be read now (Input/output error)" in line
        assert "damaged" not in line and not list((tmp_path / "store").glob("*/pixels.h5"))

    def test_a_data_set_that_the_system_refuses_is_not_prepared_anew(
        self, prepare, data, tmp_path, monkeypatch
    ):
        write_photos(tmp_path / "photos", photos())
        prepare()
        before = opened(tmp_path).path.read_bytes()

        def refusing(*_, **__):
            raise PermissionError(errno.EACCES, "unable to open file")

        with monkeypatch.context() as patch:
            patch.setattr("onepass.cache.shards.h5py.File", refusing)
            for code, _, err in (prepare(), data("verify"), data("show", "photos")):
                assert code == 1 and "cannot be read now (Permission denied)" in last_line(err)
                assert "damaged" not in err and "elete" not in err
            assert "photos: unreadable: " in data("list")[1]
        assert opened(tmp_path).path.read_bytes() == before

    def test_a_feature_file_that_the_system_refuses_is_not_called_incomplete(
        self, prepare, tmp_path
    ):
        write_photos(tmp_path / "photos", photos())
        (tmp_path / "store" / "photos" / "features" / "tiny@32.h5").mkdir(parents=True)
        code, out, err = prepare()
        assert code == 0 and "extract   " not in out and "what it lacks is not known" in err


def opened_record(tmp_path: Path, name: str) -> DatasetRecord:
    return open_dataset(tmp_path / "store", name).record


class TestNothingIsReadSilently:
    """What became rows, and what did not, is said at the end and in the record."""

    def test_the_line_of_the_issue(self, prepare, data, tmp_path):
        others = [*(f"cat/{n}.heic" for n in range(20)), *(f"dog/note{n}" for n in range(3))]
        others += [f"cat/@eaDir/{n}.png" for n in range(12)]
        write_photos(tmp_path / "photos", {**photos(), **dict.fromkeys(others, b"x")})
        (tmp_path / "photos" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
        code, _, err = prepare()
        assert (
            code == 1
            and "1 of 17 images cannot be used: dog/gone.png: a dangling link" in last_line(err)
        )
        code, out, _ = prepare("--on-bad", "skip")
        left_out = "left out  20 .heic, 12 in @eaDir, 3 without a suffix, 1 dangling link"
        assert code == 0 and left_out in out and "classes   2 (cat, dog), " in out
        assert "bad       dog/gone.png (each with the reason: data show)" in out
        kinds = {".heic": 20, "in @eaDir": 12, "without a suffix": 3, "dangling link": 1}
        assert opened_record(tmp_path, "photos").left_out == kinds
        assert left_out in data("show", "photos")[1]
        again = json.loads(prepare("--on-bad", "skip", "--json")[1])
        assert (again["state"], again["left_out"]) == ("cached", kinds)
        assert again["summary"]["class_names"] == ["cat", "dog"]

    def test_of_many_classes_ten_are_named(self, prepare, tmp_path):
        images = {
            f"k{c:02d}/{n}.png": Image.new("RGB", (8, 8), (c, n, 0))
            for c in range(12)
            for n in range(2)
        }
        write_photos(tmp_path / "photos", images)
        named = ", ".join(f"k{c:02d}" for c in range(10))
        assert f"classes   12 ({named}, …), 1 training image each" in prepare()[1]

    def test_labels_of_test_images_are_kept_apart(self, prepare, data, tmp_path):
        images = {
            f"{split}/{name}": image
            for name, image in photos().items()
            for split in ("Training", "Testing")
        }
        write_photos(tmp_path / "photos", images)
        code, _, _ = prepare()
        dataset = opened(tmp_path)
        test = dataset.rows("test")
        assert code == 0 and dataset.class_ids == ["cat", "dog"] and len(test) == 16
        assert np.all(dataset.labels[test] == -1)
        assert dataset.held_labels[test].tolist() == [0] * 8 + [1] * 8
        assert np.all(dataset.held_labels[dataset.rows("train")] == -1)
        assert "Testing/ was taken for the test split" in data("show", "photos")[1]
        assert "nothing to do" in prepare()[1]

    def test_a_data_set_of_an_early_version_gets_the_labels_of_its_test_images(
        self, prepare, tmp_path, monkeypatch
    ):
        write_photos(
            tmp_path / "photos",
            {f"{s}/{n}": i for n, i in photos().items() for s in ("train", "test")},
        )
        with monkeypatch.context() as patch:
            patch.setattr("onepass.data.arrange._test_labels", lambda *_: {})
            prepare()
        before = opened(tmp_path)
        assert np.all(before.held_labels == -1)
        code, out, _ = prepare()
        assert code == 0 and "changed   labels changed: 16 (test/cat/0.png: unknown → cat" in out
        assert opened(tmp_path).digest == before.digest, "features stay fresh"
        assert np.sum(opened(tmp_path).held_labels >= 0) == 16

    def test_images_that_an_early_version_left_out_are_noticed(
        self, prepare, tmp_path, monkeypatch
    ):
        write_photos(
            tmp_path / "photos",
            {**photos(), "cat/x.jfif": encode(Image.new("RGB", (32, 32)), "JPEG")},
        )
        with monkeypatch.context() as patch:
            patch.setattr("onepass.data.sources.base.image_suffixes", lambda: {".png": "PNG"})
            assert "left out  1 .jfif" in prepare()[1]
        code, out, _ = prepare()
        assert code == 0 and "changed   images added: 1" in out
        assert len(opened(tmp_path).names) == 17


class TestGeometry:
    """The bulk of the images decides, once."""

    def test_one_large_picture_does_not_enlarge_the_others(self, prepare, tmp_path):
        large = {"cat/large.png": Image.new("RGB", (3000, 2000))}
        write_photos(tmp_path / "photos", {**photos((64, 64), count=20), **large})
        code, out, _ = prepare()
        assert code == 0 and opened(tmp_path).pixels.shape[1:] == (64, 64, 3)
        said = "64 px, which 95% of the images do not exceed; the others are scaled down, the largest from 3,000 px"
        assert (
            f"geometry  {said}" in out and opened_record(tmp_path, "photos").geometry_note == said
        )

    def test_many_large_pictures_are_kept_large_up_to_max_side(self, prepare, tmp_path):
        images = photos((400, 400), count=5)
        images["dog/4.png"] = Image.new("RGB", (20, 20))
        write_photos(tmp_path / "photos", images)
        prepare()
        assert opened(tmp_path).pixels.shape[1:3] == (320, 320)

    def test_it_is_kept_when_images_are_added_and_that_is_said(self, prepare, tmp_path):
        write_photos(tmp_path / "photos", photos((32, 24), mode="L"))
        prepare("--fit", "crop", "--max-side", 30)
        new = {f"dog/new{n}.png": Image.new("RGB", (90, 60), "red") for n in range(40)}
        write_photos(tmp_path / "photos", new)
        code, out, err = prepare()
        dataset = opened(tmp_path)
        assert code == 0 and dataset.pixels.shape == (56, 30, 30, 1)
        assert dataset.record.geometry["fit"] == "crop" and "side" not in err
        assert (
            "geometry  30 x 30 px, grey, crop, as prepared before (by the images 90 x 90 px, RGB, stretch)"
            in out
        )
        code, out, err = prepare("--max-side", 320, "--channels", 3, "--fit", "pad")
        assert code == 0 and "side: 30, now 90; channels: 1, now 3; fit: crop, now pad" in out
        assert opened(tmp_path).pixels.shape[1:] == (90, 90, 3)

    def test_squares_that_get_neighbours_of_another_size_keep_their_pixels(self, prepare, tmp_path):
        write_photos(tmp_path / "photos", photos((32, 32)))
        prepare()
        before = dict(zip(opened(tmp_path).names, opened(tmp_path).pixels, strict=True))
        write_photos(
            tmp_path / "photos", {f"cat/w{n}.png": Image.new("RGB", (80, 40)) for n in range(20)}
        )
        assert prepare()[0] == 0
        after = dict(zip(opened(tmp_path).names, opened(tmp_path).pixels, strict=True))
        assert len(after) == 36 and all(np.array_equal(after[n], before[n]) for n in before)

    @pytest.mark.parametrize("fit", ["crop", "stretch"])
    def test_pad_goes_with_fit_pad_only(self, fit, data):
        code, _, err = data("prepare", "digits", "--fit", fit, "--pad", "mean")
        assert code == 2 and f"--pad mean: expected --fit pad, received --fit {fit}" in err

    def test_a_survey_of_an_early_version_follows_the_largest_image(self):
        config = PrepareConfig(kind="folder")
        assert Geometry.choose(Survey(500, False, False), config).side == 320
        assert Geometry.choose(Survey(500, False, False, 64), config).side == 64

    @pytest.mark.parametrize(
        ("flags", "fit"),
        [
            ([], "stretch"),
            (["--fit", "pad"], "pad"),
            (["--pad", "black"], "pad"),
            (["--pad", "mean"], "pad mean"),
            (["--fit", "pad", "--pad", "reflect"], "pad reflect"),
            (["--fit", "crop"], "crop"),
        ],
    )
    def test_the_flags_decide_how_photographs_become_squares(self, flags, fit, prepare, tmp_path):
        write_photos(tmp_path / "photos", photos((40, 30)))
        assert prepare(*flags)[0] == 0
        assert opened(tmp_path).record.geometry["fit"] == fit
        assert "nothing to do" in prepare()[1] and "nothing to do" in prepare(*flags)[1]

    def test_a_data_set_that_was_padded_by_an_early_version_stays_padded(self, prepare, tmp_path):
        write_photos(tmp_path / "photos", photos((40, 30)))
        prepare("--fit", "pad")
        write_photos(tmp_path / "photos", {"cat/new.png": Image.new("RGB", (40, 30))})
        assert prepare()[0] == 0 and opened(tmp_path).record.geometry["fit"] == "pad"
