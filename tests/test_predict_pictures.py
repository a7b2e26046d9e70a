"""`onepass predict MODEL IMAGES…`: new pictures, and those of strangers."""

import csv
import http.server
import io
import json
import os
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import picture_store
import pytest
from PIL import Image

import onepass
from onepass.__main__ import run
from onepass.cache.errors import InvalidInputError, MissingFileError, UsageError
from onepass.classify.leaderboard.board import Leaderboard
from onepass.predict.config import PredictConfig
from onepass.predict.pictures import addresses
from onepass.predict.pictures.answers import Answer, ClassShare
from onepass.predict.pictures.sorting import Sorter, safe_name
from onepass.predict.pictures.sources import Picture, find_pictures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Store and results of the data set birds, whose files lie in `birds` beside them."""
    with picture_store.opened(tmp_path_factory) as found:
        yield found


@pytest.fixture
def val(places: dict[str, Path]) -> Path:
    """The pictures of the validation split."""
    return places["cache_dir"].parent / "birds" / "val"


def predict(places: dict[str, Path], *words: Any) -> int:
    flags = [f"--{name.replace('_', '-')}={path}" for name, path in places.items()]
    return run(["predict", *map(str, words), *flags])


def models(places: dict[str, Path]) -> list[str]:
    """Ensembles, and probes of every kind of head and of all vectors, each once."""
    dataset = onepass.open_dataset("birds", cache_dir=places["cache_dir"])
    board = Leaderboard.load(places["runs_dir"] / "birds", "birds", dataset.digest)
    seen, chosen = {""}, []
    for line in board.results:
        texts = {line.head, line.features_text} if line.keys else {line.id if line.members else ""}
        if not texts <= seen:
            chosen.append(f"birds/{line.id}")
        seen |= texts
    return chosen


def test_a_picture_that_is_a_row_has_the_very_probabilities_of_the_split(places, val) -> None:
    names = [*models(places), "birds/logistic", "birds/r1"]
    heads = {name.partition("/")[2].partition("-")[0] for name in names}
    assert heads >= {"ridge", "logistic", "knn", "lda", "average", "stack", "r1"}
    baseline = next(
        f"birds/{path.name}"
        for path in (places["runs_dir"] / "birds" / "heads").iterdir()
        if path.name.startswith("logistic") and f"birds/{path.name}" not in names
    )  # on the shrunk pixels
    for model in (*names, baseline):
        predictor = onepass.load_predictor(model, **places)
        split = predictor.predict_split("val")
        files = [val.parent / name for name in split.names]
        found = predictor(files)
        assert found.class_names == list(picture_store.CLASSES)
        np.testing.assert_array_equal(found.probabilities, split.probabilities, err_msg=model)
        turned = predictor(files[::-1])  # elsewhere in the batch
        np.testing.assert_array_equal(turned.probabilities[::-1], split.probabilities)
        if model in ("birds/logistic", "birds/r1", names[0]):  # each with networks of its own
            alone = onepass.load_predictor(model, batch_size=1, **places)(files[:2])
            np.testing.assert_allclose(alone.probabilities, split.probabilities[:2], atol=1e-3)


def test_averages_and_views_are_those_of_the_split(places, val) -> None:
    for words, options in (
        (("birds/r1",), {"views": ("flip", "crop:tl")}),
        (("birds", "birds/r1"), {"weights": "learnt"}),
        (("birds", "birds/r1", "birds/knn"), {"temperature": False}),
    ):
        predictor = onepass.load_predictor(*words, **options, **places)
        split = predictor.predict_split("val")
        found = predictor([val.parent / name for name in split.names])
        np.testing.assert_array_equal(found.probabilities, split.probabilities)


def test_paths_bytes_arrays_and_pillow_images_are_the_same_picture(places, val) -> None:
    predictor = onepass.load_predictor("birds", **places)
    path = next(val.rglob("*palette.png"))
    with Image.open(path) as image:
        array = np.asarray(image.convert("RGB"))
        found = predictor([path, str(path), path.read_bytes(), array, image])
    assert found.names[2:] == ["picture 2", "picture 3", "picture 4"]
    assert np.all(found.probabilities == found.probabilities[0])
    grey = array[:, :, 0]
    both = predictor([grey, grey[:, :, None], np.dstack([grey] * 3)]).probabilities
    assert np.all(both == both[0]) and predictor([]).probabilities.shape == (0, 3)
    for wrong in (path, array, "a.jpg"):
        with pytest.raises(UsageError, match="put it in a list"):
            predictor(wrong)
    for wrong in (array.astype(np.float32), array[:0], np.zeros((4, 4, 2), np.uint8), 7):
        with pytest.raises(UsageError, match="picture 0: expected a path, bytes"):
            predictor([wrong])
    with pytest.raises(InvalidInputError, match=r"nowhere\.jpg: No such file"):
        predictor(["nowhere.jpg"])


def test_a_predictor_is_used_from_threads(places, val) -> None:
    predictor = onepass.load_predictor("birds/r1", **places)
    files = sorted(val.rglob("*.*"))
    expected = onepass.load_predictor("birds/r1", **places)(files).probabilities
    with ThreadPoolExecutor(8) as pool:  # the first call of each builds the network, once
        parts = list(pool.map(lambda file: predictor([file]).probabilities, files))
    np.testing.assert_array_equal(np.concatenate(parts), expected)


def test_every_way_to_name_pictures_gives_the_same_answers(
    places, val, tmp_path, monkeypatch, capsys
) -> None:
    files = [str(path) for path in sorted(val.rglob("*.*"))]
    assert predict(places, "birds", *files, "--out", tmp_path / "files.csv", "--top", 3) == 0
    table = list(csv.DictReader((tmp_path / "files.csv").read_text().splitlines()))
    assert [row["file"] for row in table] == files
    assert all(float(row["probability"]) >= float(row["probability_3"]) for row in table)
    assert all(
        float(row["margin"])
        == pytest.approx(float(row["probability"]) - float(row["probability_2"]), abs=2e-6)
        for row in table
    )
    expected = [(row["class_id"], row["probability"]) for row in table]
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for file in files:
            archive.write(file, Path(file).relative_to(val))
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as packed:
        for file in files:
            packed.add(file, Path(file).relative_to(val))
    (val.parent / "list.csv").write_text(
        "number,file\n" + "".join(f'1,"val/{Path(file).relative_to(val)}"\n' for file in files)
    )
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{file}\n" for file in files)))
    for words in (
        (val,), (f"{val}/**/*.*",), (tmp_path / "z.zip",), (tmp_path / "t.tar.gz",),
        (val.parent / "list.csv",), ("-",),
    ):  # fmt: skip
        assert predict(places, "birds", *words, "--out", tmp_path / "out.csv") == 0
        again = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
        assert [(row["class_id"], row["probability"]) for row in again] == expected, words
    assert predict(places, "birds", val, "--out", tmp_path / "out.jsonl") == 0
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["top"][0]["class_id"] for line in lines] == [one for one, _ in expected]
    capsys.readouterr()
    assert predict(places, "birds", val) == 0  # more than are shown: they are kept
    said = capsys.readouterr().out
    assert "… and 10 more" in said and "30 pictures by birds/" in said
    kept = Path(said.split("File: ")[1].strip())
    assert kept.parent == places["runs_dir"] / "birds" / "predictions"
    assert len(kept.read_text().splitlines()) == 31


def test_a_parquet_file_in_and_out(places, val, tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = [str(path) for path in sorted(val.rglob("*.*"))]
    parquet.write_table(pyarrow.table({"picture": files}), tmp_path / "in.parquet")
    assert predict(places, "birds", tmp_path / "in.parquet", "--out", tmp_path / "o.parquet") == 0
    found = parquet.read_table(tmp_path / "o.parquet").to_pydict()
    assert found["file"] == files and set(found["class_name"]) <= set(picture_store.CLASSES)


def test_a_table_that_holds_the_pictures_themselves_is_refused(tmp_path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {"image": [{"bytes": b"x", "path": "1.png"}], "label": [1]}
    parquet.write_table(pyarrow.table(table), tmp_path / "in.parquet")
    with ExitStack() as stack, pytest.raises(UsageError, match="the pictures themselves in image"):
        find_pictures([str(tmp_path / "in.parquet")], "", stack)


def png_header(width: int, height: int) -> bytes:
    """Return a PNG file that claims a size and holds next to nothing."""
    chunks = b""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for kind, content in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100))):
        crc = struct.pack(">I", zlib.crc32(kind + content))
        chunks += struct.pack(">I", len(content)) + kind + content + crc
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_bad_pictures_are_named_and_end_nothing(places, val, tmp_path, capsys) -> None:
    good = next(val.rglob("*exif.jpg"))
    folder = tmp_path / "new"
    folder.mkdir()
    bad = {
        "bomb.png": (png_header(50_000, 50_000), "more than the"),
        "cut.jpg": (good.read_bytes()[:-300], "truncated"),
        "empty.jpg": (b"", "not an image"),
        "text.png": (b"<script>alert(1)</script>" * 10, "not an image"),
        "esc\x1b[2Jape.jpg": (b"nothing", "not an image"),
    }
    for name, (content, _) in bad.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "gone.jpg").symlink_to(folder / "nowhere")
    (folder / "good.jpg").write_bytes(good.read_bytes())
    out = tmp_path / "out.csv"
    assert predict(places, "birds", "x" * 300, "a\0b", "--out", tmp_path / "names.csv") == 3
    assert (
        predict(places, "birds", folder, folder / "no.jpg", folder / "pipe.jpg", "--out", out) == 3
    )
    reasons = {
        Path(row["file"]).name: row["reason"]
        for row in csv.DictReader(out.read_text().splitlines())
    }
    for name, (_, why) in bad.items():
        assert why in next(r for n, r in reasons.items() if n.endswith(name[-7:])), name
    assert reasons["good.jpg"] == "" and "No such file" in reasons["no.jpg"]
    assert "pipe or device" in reasons["pipe.jpg"] and "No such file" in reasons["gone.jpg"]
    said = capsys.readouterr().out
    assert "could not be read: 8" in said and "\x1b" not in said
    only_bad = [folder / name for name in bad]
    assert predict(places, "birds", *only_bad) == 3
    assert "none classified" in capsys.readouterr().out


def test_what_is_unlike_all_that_was_learnt_is_left_open(places, val, tmp_path, capsys) -> None:
    strange = np.zeros((24, 24, 3), np.uint8)
    strange[:, :, 2] = 255 * (np.arange(24) % 2)  # blue lines, one pixel wide
    Image.fromarray(strange).save(tmp_path / "strange.png")
    for model in ("birds", "birds/logistic", "birds/r1"):
        predictor = onepass.load_predictor(model, abstain=0.1, **places)
        found = predictor([tmp_path / "strange.png", *sorted(val.rglob("*.*"))])
        assert found.novelty[0] == 1 and found.open_because[0] == "unlike what was learnt", model
        assert (
            np.mean([bool(reason) for reason in found.open_because[1:]]) < 0.7
        )  # nine selection rows
        assert np.all((found.novelty >= 0) & (found.novelty <= 1))
        never = onepass.load_predictor(model, **places)([tmp_path / "strange.png"])
        assert never.open_because == [""] and never.novelty[0] == 1
    kept = places["runs_dir"] / "birds" / "finetune" / "r1" / "vectors.npz"
    before = kept.read_bytes()
    kept.write_bytes(b"damaged")  # is computed again
    again = onepass.load_predictor("birds/r1", **places)([tmp_path / "strange.png"])
    assert again.novelty[0] == 1 and kept.read_bytes() == before
    words = (tmp_path / "strange.png", "--abstain", 0.1, "--out", tmp_path / "o.csv")
    assert predict(places, "birds", *words, "--copy-to", tmp_path / "sorted") == 0
    assert "open, perhaps" in (said := capsys.readouterr().out) and "left open: 1" in said
    (row,) = csv.DictReader((tmp_path / "o.csv").read_text().splitlines())
    assert (row["class_id"], row["novelty"]) == ("", "1.000000") and "unlike" in row["reason"]
    assert (tmp_path / "sorted" / "_open" / "strange.png").exists()


def test_pictures_are_copied_or_linked_and_never_moved(places, val, tmp_path) -> None:
    files = sorted(val.rglob("*.*"))
    for _ in range(2):  # the second time finds them there
        assert predict(places, "birds", val, "--copy-to", tmp_path / "sorted") == 0
    copies = [path for path in (tmp_path / "sorted").rglob("*") if path.is_file()]
    assert len(copies) == len(files) and all(file.exists() for file in files)
    assert {path.parent.name for path in copies} <= set(picture_store.CLASSES)
    assert sorted(p.read_bytes() for p in copies) == sorted(f.read_bytes() for f in files)
    assert predict(places, "birds", val, "--copy-to", tmp_path / "linked", "--link") == 0
    links = [path for path in (tmp_path / "linked").rglob("*") if path.is_symlink()]
    assert sorted(link.resolve() for link in links) == [file.resolve() for file in files]


@pytest.mark.parametrize(
    "name",
    ["../../evil", "/etc/passwd", "..", ".", "", "a/../../b", "C:\\x", "x\0y", ".ssh", "é" * 300],
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "in" / "sorted"
    answer = Answer(name, (ClassShare("k", name, 1.0),))
    Sorter(folder, link=False).put(Picture(name, lambda: b"picture"), answer)
    (written,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written.parent.parent == folder and written.read_bytes() == b"picture"
    assert safe_name(name) not in ("", ".", "..") and not safe_name(name).startswith(".")


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "crow").symlink_to(tmp_path / "elsewhere")
    answer = Answer("a.jpg", (ClassShare("crow", "crow", 1.0),))
    with pytest.raises(UsageError, match="leads out of it"):
        Sorter(tmp_path / "sorted", link=False).put(Picture("a.jpg", lambda: b"x"), answer)
    (tmp_path / "sorted" / "jay").mkdir()
    (tmp_path / "target").write_bytes(b"precious")
    (tmp_path / "sorted" / "jay" / "a.jpg").symlink_to(tmp_path / "target")
    jay = Answer("a.jpg", (ClassShare("jay", "jay", 1.0),))
    Sorter(tmp_path / "sorted", link=False).put(Picture("a.jpg", lambda: b"x"), jay)
    assert (tmp_path / "target").read_bytes() == b"precious"
    assert (tmp_path / "sorted" / "jay" / "a-2.jpg").read_bytes() == b"x"
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_what_lies_in_an_archive_is_copied_where_files_are_linked(tmp_path: Path) -> None:
    inside = Picture("z.zip/a.jpg", lambda: b"picture", tmp_path / "z.zip", "a.jpg")
    Sorter(tmp_path / "sorted", link=True).put(
        inside, Answer("a.jpg", (ClassShare("k", "k", 1.0),))
    )
    copied = tmp_path / "sorted" / "k" / "a.jpg"
    assert not copied.is_symlink() and copied.read_bytes() == b"picture"


def test_words_are_models_first_and_pictures_then(places, val, tmp_path, monkeypatch) -> None:
    def parted(*words: str, **other: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = PredictConfig(models=words, **other, **places).parted()
        return found.models, found.images

    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    assert parted("birds", "birds/r1", "new/a.jpg") == (("birds", "birds/r1"), ("new/a.jpg",))
    assert parted("birds", "birds") == (("birds",), ("birds",))  # a folder of that name
    assert parted("birds#1", "a.jpg", "birds/r1") == (("birds#1",), ("a.jpg", "birds/r1"))
    assert parted("birds", "*.jpg", "-", images=("b",)) == (("birds",), ("*.jpg", "-", "b"))
    far = "https://example.org/" + 400 * "x"
    assert parted("birds", far, "a" * 300, "a\0b", "~nobody/a") == (
        ("birds",), (far, "a" * 300, "a\0b", "~nobody/a"),
    )  # fmt: skip
    with pytest.raises(UsageError, match="new pictures or --split, received both"):
        parted("birds", "a.jpg", split="val")


def test_what_cannot_be_found_is_refused_before_anything_is_computed(places, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with ExitStack() as stack:
        for word, error, pattern in (
            (tmp_path / "empty", MissingFileError, "expected pictures, found none"),
            (f"{tmp_path}/*.jpg", MissingFileError, "no file is named so"),
            (tmp_path / "t.csv", UsageError, "--column; it has a, b"),
        ):
            with pytest.raises(error, match=pattern):
                find_pictures([str(word)], "", stack)
        with pytest.raises(UsageError, match=r"--column c: .* no such column; it has a, b"):
            find_pictures([str(tmp_path / "t.csv")], "c", stack)
    for out in ("out.xlsx", "out"):
        assert predict(places, "birds", "a.jpg", "--out", tmp_path / out) == 2
    assert predict(places, "birds/majority", "a.jpg") == 1  # looks at no picture


class Server(http.server.BaseHTTPRequestHandler):
    """Gives a picture, too much, errors, and redirects to what must not be read."""

    picture = b""

    def do_GET(self) -> None:
        moved = {
            "/file": "file:///etc/passwd", "/ftp": "ftp://example.org/a.png", "/inside": "/a.png",
            "/meta": "http://169.254.169.254/latest", "/loop": "/loop",
        }  # fmt: skip
        if self.path in moved:
            self.send_response(302)
            self.send_header("Location", moved[self.path])
            self.end_headers()
        elif self.path == "/a.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.picture)
        else:
            self.send_error(404)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    Server.picture = picture_store.picture("deep", 0, 1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as one:
        threading.Thread(target=one.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{one.server_address[1]}"
        one.shutdown()


def test_an_address_gives_a_picture(places, server, tmp_path, capsys) -> None:
    assert predict(places, "birds", f"{server}/a.png", "--copy-to", tmp_path) == 0
    (copied,) = tmp_path.rglob("*.png")
    assert copied.read_bytes() == Server.picture


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("file", "refused: expected an address that begins with http"),
        ("ftp", "refused: expected an address that begins with http"),
        ("inside", "refused: 127.0.0.1 is no public address"),
        ("meta", "refused: 169.254.169.254 is no public address"),
        ("loop", "refused"),
        ("nothing", "the server answered 404"),
    ],
)
def test_an_address_that_leads_astray_is_refused(server, path: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why):
        addresses.fetch_picture(f"{server}/{path}", trusted=True)


@pytest.mark.parametrize(
    "address",
    ["http://localhost/", "http://[::1]/", "http://10.0.0.1/", "http://0.0.0.0/", "http://[::ffff:127.0.0.1]/",
     "http://2130706433/", "file:///etc/passwd", "gopher://a/", "http://"],
)  # fmt: skip
def test_an_address_out_of_a_file_leads_to_no_private_network(address: str) -> None:
    with pytest.raises(InvalidInputError, match="refused"):
        addresses.fetch_picture(address, trusted=False)


def test_an_address_gives_no_more_than_is_allowed(server, monkeypatch) -> None:
    monkeypatch.setattr(addresses, "MAX_BYTES", 100)
    with pytest.raises(InvalidInputError, match="refused: more than the 100 B"):
        addresses.fetch_picture(f"{server}/a.png", trusted=True)
