"""onepass data: from images to rows, once; what is bad, stale, stopped or damaged is said."""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import ROOT
from onepass.cache.commandline.command import STOPPED, main
from onepass.cache.rows import Column, RowLayout, RowWriter
from onepass.data.__main__ import COMMANDS
from onepass.data.dataset import ImageDataset, open_dataset


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_photos(folder: Path, images: dict[str, Image.Image | bytes]) -> Path:
    for name, image in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image if isinstance(image, bytes) else encode(image))
    return folder


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
    assert prepare()[0] == 0
    dataset = opened(tmp_path)
    assert dataset.pixels.shape[1:] == (48, 48, 3)
    wide, small = (
        dataset.pixels[dataset.names.index(name)] for name in ("cat/0.png", "dog/small.png")
    )
    assert np.all(wide[12:36] == 10) and np.all(wide[:12] == 0) and np.all(small == 255)
    code, _, err = prepare("--fit", "crop")
    assert (
        code == 0
        and "prepared before, but differently (fit: pad, now crop); it is prepared again" in err
    )
    assert np.all(opened(tmp_path).pixels[dataset.names.index("cat/0.png")] == 10)


def test_larger_images_are_scaled_down_to_max_side(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos((64, 64)))
    prepare()
    code, out, err = prepare("--max-side", 16)
    assert code == 0 and "(side: 64, now 16); it is prepared again" in err and "16 x 16 px" in out
    assert opened(tmp_path).pixels.shape[1:] == (16, 16, 3)


def test_changed_images_are_noticed_and_old_features_are_called_stale(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos())
    prepare()
    old = opened(tmp_path)
    features = tmp_path / "store" / "photos" / "features" / "tiny@32.h5"
    layout = RowLayout({"features": Column((2,), "float16")}, 16, 16)
    with RowWriter(features, layout, {"kind": "features", "dataset_digest": old.digest}) as writer:
        writer.write(0, {"features": np.zeros((16, 2), np.float16)})
        writer.finish()
    assert "stale" not in prepare()[1]
    os.utime(tmp_path / "photos" / "cat" / "1.png", ns=(1, 1))
    code, out, err = prepare()
    assert code == 0 and "(images: " in err and "stale" not in out  # touched, but the same pixels
    assert opened(tmp_path).digest == old.digest
    write_photos(tmp_path / "photos", {"cat/1.png": Image.new("RGB", (32, 32), "white")})
    code, out, _ = prepare()
    assert code == 0 and "stale     tiny@32: made from the data set as it was before" in out
    assert opened(tmp_path).digest != old.digest


def test_another_seed_is_another_split(prepare, tmp_path):
    write_photos(tmp_path / "photos", photos())
    prepare()
    first = opened(tmp_path)
    assert "(seed: 0, now 3)" in prepare("--seed", 3)[2]
    second = opened(tmp_path)
    assert not np.array_equal(first.split, second.split)
    assert second.record.seed == 3 and np.array_equal(first.pixels, second.pixels)


BAD = {
    "cat/bad1.png": b"not an image",
    "dog/bad2.jpg": encode(Image.effect_noise((32, 32), 90), "JPEG")[:-100],
}


def test_bad_images_are_refused_all_at_once_and_nothing_is_left(prepare, tmp_path):
    write_photos(tmp_path / "photos", {**photos(), **BAD})
    code, out, err = prepare()
    assert code == 1 and not out
    line = last_line(err)
    assert "2 of 18 images cannot be used" in line and "--on-bad skip" in line
    assert "cat/bad1.png: not an image" in line and "dog/bad2.jpg: image file is truncated" in line
    assert not list((tmp_path / "store").rglob("*.h5*"))


def test_bad_images_are_left_out_counted_and_listed(prepare, data, tmp_path):
    write_photos(tmp_path / "photos", {**photos(), **BAD})
    code, out, _ = prepare("--on-bad", "skip")
    assert code == 0 and "left out  2 images that cannot be used: cat/bad1.png, dog/bad2.jpg" in out
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
    assert code == 0 and "is damaged" in err and "photos: prepared" in out
    assert len(opened(tmp_path).names) == 16


def test_a_stopped_run_resumes_at_the_first_missing_shard(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr("onepass.data.pack.SHARD_BYTES", 32 * 32 * 3 * 4)  # four images a shard
    monkeypatch.setattr("onepass.data.pack._threads", lambda: 1)
    write_photos(tmp_path / "photos", photos())
    decode, calls = sys.modules["onepass.data.pack"].decode_image, []

    def counted(content: bytes, name: str) -> Image.Image:
        calls.append(name)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return decode(content, name)

    monkeypatch.setattr("onepass.data.pack.decode_image", counted)
    code, out, _ = prepare()
    assert code == STOPPED and "stopped; what is packed is kept" in out
    kept = len(list((tmp_path / "store/photos/pixels.h5.parts").glob("shard-*.h5")))
    assert 1 <= kept < 4
    calls.clear()
    calls.append("no signal this time")
    monkeypatch.setattr(
        "onepass.data.pack.decode_image", lambda c, n: calls.append(n) or decode(c, n)
    )
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
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


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
    assert run("-m", "data", "prepare", "digits", "--fit", "stretch").returncode == 2


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
