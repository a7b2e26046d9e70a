"""Tables of files and labels: every habit that is promised, one clear line for every oddity."""

import gc
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import refused
from onepass.cache.errors import InvalidInputError, MissingFileError, OnepassError, UsageError
from onepass.data.config import PrepareConfig
from onepass.data.dataset import ImageDataset, open_dataset
from onepass.data.prepare import prepare_dataset
from onepass.data.sources import kind_of, open_source
from onepass.data.sources.base import Request, Source
from onepass.data.splits import TEST, TRAIN, UNDRAWN, VAL
from onepass.data.summary import Prepared, prepared_text
from onepass.data.tables import read_table

COUNT = 12  # pictures


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with img/0.png … img/11.png."""
    (tmp_path / "img").mkdir()
    for number in range(COUNT):
        (tmp_path / "img" / f"{number}.png").write_bytes(png(number))
    return tmp_path


def load(path: Path | str, *more: str, images: str = "", **columns: str) -> Source:
    requests = [Request(str(p), "", Path(), images=images, columns=columns) for p in (path, *more)]
    with open_source("table", requests) as source:
        return source


def table(place: Path, text: str, name: str = "birds.csv") -> Source:
    (place / name).write_text(text)
    return load(place / name)


def lines(*rows: str, header: str = "file,label") -> str:
    """A table of all pictures, cats and dogs in turns, with these rows instead of the first ones."""
    own = [f"img/{number}.png,{('cat', 'dog')[number % 2]}" for number in range(len(rows), COUNT)]
    return "\n".join([header, *rows, *own]) + "\n"


def rows_of(source: Source) -> list[tuple[str, str, int]]:
    names = [*source.class_ids, "?"]
    return [(item.name, names[item.label], item.split) for item in source.items]


SPELLINGS = [
    ("file,label\n", ","), ("File_Name;LABEL\n", ";"), ("path\tclass\n", "\t"), ("\ufefffilepath,category\n", ","),
    ("image;target\r\n", ";"), ("note,file_name,class_name\n", ","),
]  # fmt: skip


@pytest.mark.parametrize(("header", "delimiter"), SPELLINGS, ids=repr)
def test_columns_are_found_by_their_names_whatever_parts_them(place, header, delimiter):
    front = ["x, y"] if header.startswith("note") else []
    end = "\r\n" if header.endswith("\r\n") else "\n"
    quoted = [f'"{text}"' for text in front]
    text = header + "".join(
        delimiter.join([*quoted, f"img/{number}.png", "ab"[number % 2]]) + end
        for number in range(4)
    )
    (place / "t.csv").write_bytes(text.encode())
    source = load(place / "t.csv")
    assert rows_of(source) == [(f"img/{n}.png", "ab"[n % 2], UNDRAWN) for n in range(4)]
    assert [item.read() for item in source.items] == [png(number) for number in range(4)]
    assert source.side == ({"note": ["x, y"] * 4} if front else {})


def test_columns_are_shown_and_can_be_named(place):
    (place / "t.csv").write_text("picture,label,species,age\n" + "".join(f"img/{n}.png,{n},{'ab'[n % 2]},{n}.0\n" for n in range(4)))  # fmt: skip
    with refused(UsageError, "column for the file, .* found 'picture', .* --columns file=COLUMN"):
        load(place / "t.csv")
    source = load(place / "t.csv", file="picture", label="species")
    assert source.class_ids == ["a", "b"]
    assert source.said == ["columns: file = picture; label = species; kept: label, age (--columns changes it)"]  # fmt: skip
    assert source.side == {"label": ["0", "1", "2", "3"], "age": ["0.0", "1.0", "2.0", "3.0"]}
    with refused(OnepassError, "column 'specis' is unknown; did you mean species"):
        load(place / "t.csv", file="picture", label="specis")


def test_windows_paths_quotes_and_spaces(place):
    source = table(place, lines("img\\0.png,cat", '"img/1.png",dog', "./img/2.png, cat"))
    assert [item.name for item in source.items[:3]] == ["img/0.png", "img/1.png", "img/2.png"]
    assert source.items[0].read() == png(0)


@pytest.mark.parametrize(
    ("cells", "ids"),
    [
        (["10", "2", "1"], ["1", "2", "10"]),
        (["10.0", "2.0", "1.0"], ["1", "2", "10"]),
        (["03", "02", "01"], ["01", "02", "03"]),
        (["10", "2", "b"], ["10", "2", "b"]),
        (["True", "False", "True"], ["False", "True"]),
        (["é", "e\u0301", "z"], ["z", "é"]),
    ],
)
def test_numbers_as_names_of_classes_are_in_the_order_of_their_values(place, cells, ids):
    rows = [f"img/{number}.png,{cells[number % 3]}" for number in range(COUNT)]
    assert table(place, lines(*rows)).class_ids == ids


def test_splits_groups_and_folds(place):
    words = ["train", "Validation", "TEST", "training", "valid", "test", "", "dev"]
    rows = [
        f"img/{n}.png,{'ab'[n % 2]},{words[n % 8]},p{n // 2},{n % 3}.0,{n}" for n in range(COUNT)
    ]
    source = table(place, lines(*rows, header="file,label,split,group,fold,source"))
    splits = [item.split for item in source.items]
    assert splits[:8] == [TRAIN, VAL, TEST, TRAIN, VAL, TEST, UNDRAWN, VAL]
    assert [(item.label, item.held_label) for item in source.items[:3]] == [
        (0, -1),
        (1, -1),
        (-1, 0),
    ]
    assert source.group_column == "group" and source.side["group"][:3] == ["p0", "p0", "p1"]
    assert source.side["fold"][:4] == ["0", "1", "2", "0"]
    assert source.side["table_source"][5] == "5"  # the manifest has a column of that name


def test_without_a_validation_split_it_is_yet_to_be_drawn(place):
    rows = [f"img/{n}.png,{'ab'[n % 2]},{'test' if n > 9 else 'train'}" for n in range(COUNT)]
    source = table(place, lines(*rows, header="file,label,split"))
    assert [item.split for item in source.items] == [UNDRAWN] * 10 + [TEST] * 2


def test_doubled_rows_are_one_and_excluded_ones_none(place):
    text = lines() + "img/3.png,dog\n" + "img\\3.png,dog\n" + "img/4.png,excluded\n\n"
    source = table(place, text.replace("img/4.png,cat\n", ""))
    assert len(source.items) == COUNT - 1
    assert source.left_out == {"excluded": 1, "doubled": 2}
    assert "doubled rows: 2, such as line 13: img/3.png; each file is one row" in source.said


ODD = [
    (lines("img/0.png,"), "line 2: img/0.png has no label"),
    (lines("img/0.png,NaN", "img/1.png,nan"), "line 2: .* has no label.*; line 3: img/1.png"),
    (lines(",cat"), "line 2: expected a file, found nothing"),
    (lines() + "img/3.png,cat\n", "line 14: img/3.png is 'cat', but 'dog' in line 5"),
    (lines("img/0.png,cat,7"), 'line 2: expected 2 cells as in the first line, found 3; .* "quotes"'),
    (lines("http://host/0.png,cat"), "line 2: http://host/0.png: expected a file of this machine"),
    (lines("C:\\img\\0.png,cat"), r"line 2: C:\\img\\0.png: expected a file of this machine"),
    (lines().replace("dog", "cat"), "expected at least two classes, found cat"),
    (lines("img/0.png,0.5").replace("cat", "1").replace("dog", "2"), "line 2: expected a class, found the fraction 0.5"),
    ("file,label,label\nimg/0.png,a,b\n", "expected columns of different names, found 'label' twice"),
    ("file,label\n", "expected at least two classes, found none"),
    ("", "expected a column for the file"),
    (lines("img/0.png,cat").replace("img/", "pics/"), "none of its 12 files is there, such as pics/0.png .* --images"),
    ("file,label,split\nimg/0.png,cat,later\n", "line 2: img/0.png: expected a split .* found 'later'"),
    ("file,label,split\nimg/0.png,cat,val\nimg/1.png,dog,train\n", "expected a training image of every class, found none of cat"),
    ("file,label,split\nimg/0.png,cat,val\nimg/0.png,cat,train\n", "line 3: img/0.png is in another split than in line 2"),
    (b"file,label\nimg/0.png,\xe9\n", "expected text in UTF-8 .* save it as CSV UTF-8"),
    (lines() + '"img/1.png,dog\n' + "x" * 140_000, "line 1[45]: field larger than"),
    (b"\xff\xfef\x00i\x00l\x00e\x00", "expected text in UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "why"), ODD, ids=[why[:40] for _, why in ODD])
def test_any_oddity_is_one_clear_line(place, text, why):
    (place / "birds.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(OnepassError, rf"birds\.csv.*{why}"):
        load(place / "birds.csv")


def test_every_row_with_a_class_of_its_own_is_a_mistake(place):
    rows = "".join(f"img/{number}.png,name {number}\n" for number in range(30))
    with refused(InvalidInputError, "each of the 30 rows has a label of its own"):
        table(place, "file,label\n" + rows)


def prepare(place: Path, *words: str, **flags: object) -> tuple[Prepared, ImageDataset]:
    kind, *source = words
    config = PrepareConfig(kind=str(place / kind), source=tuple(source), cache_dir=place / "store", **flags)  # type: ignore[arg-type]  # fmt: skip
    done = prepare_dataset(config)
    return done, open_dataset(place / "store", done.name)


def old(path: Path) -> None:
    """Let files have changed long ago: what changed just now is not trusted to be as it was."""
    for file in path.rglob("*"):
        os.utime(file, ns=(10**18, 10**18))


def test_missing_files_are_named_with_their_line_or_left_out(place):
    (place / "img" / "5.png").unlink()
    (place / "img" / "7.png").write_bytes(b"no image")
    (place / "birds.csv").write_text(lines())
    with refused(InvalidInputError, r"img/5.png: no such file below .*\(line 7\); img/7.png: .* --on-bad skip"):  # fmt: skip
        prepare(place, "birds.csv")
    done, dataset = prepare(place, "birds.csv", on_bad="skip")
    assert done.left_out == {"missing": 1, "undecodable": 1} and len(dataset.names) == COUNT - 2
    assert "img/5.png" in prepared_text(done)


def test_nothing_is_done_twice_and_labels_splits_and_groups_follow_the_table(place):
    rows = [f"img/{n}.png,{'ab'[n % 2]},p{n % 6}" for n in range(COUNT)]
    (place / "birds.csv").write_text(lines(*rows[:10], header="file,label,group").rsplit("\n", 3)[0] + "\n")  # fmt: skip
    old(place / "img")
    done, first = prepare(place, "birds.csv")
    assert (done.state, done.new, done.name) == ("prepared", 10, "birds")
    assert first.record.kind == "table" and first.record.group_column == "group"
    assert not {*np.array(first.groups)[first.rows("train")]} & {
        *np.array(first.groups)[first.rows("val")]
    }
    done, _ = prepare(place, "birds.csv")
    assert (done.state, done.new) == ("cached", 0)
    rows[0] = "img/0.png,b,p0"
    (place / "birds.csv").write_text(lines(*rows, header="file,label,group"))
    done, second = prepare(place, "birds.csv")
    assert (done.new, done.carried) == (2, 10)
    assert "labels changed: 1 (img/0.png: a → b)" in done.changed
    assert np.array_equal(second.split[:10], first.split)
    done, third = prepare(place, "birds.csv", group="")
    assert third.groups is None and "groups" in done.changed
    done, again = prepare(place, "birds.csv")
    assert again.groups is None
    assert any("column group says what belongs together, and is not used" in line for line in done.said)  # fmt: skip


def test_names_in_series_are_said_where_nothing_keeps_them_together(place):
    for n in range(40):
        (place / "img" / f"p{n // 4}_{n % 4}.png").write_bytes(png(n))
    rows = [f"img/p{n // 4}_{n % 4}.png,{'ab'[n % 8 // 4]},{'val' if n > 35 else 'train'}" for n in range(40)]  # fmt: skip
    (place / "p.csv").write_text("\n".join(["file,label,split", *rows]))
    done, _ = prepare(place, "p.csv", name="stated")
    assert not any("--group-by" in line for line in done.said)  # the source's own split
    done, _ = prepare(place, "p.csv", columns=("split=",))
    (line,) = (line for line in done.said if "--group-by" in line)
    assert re.match(r"\d+% of the validation images .* such as img/p\d_\d.png and img/p\d_", line)
    pattern = re.search("--group-by '(.*)' --resplit", line)[1]
    done, dataset = prepare(place, "p.csv", columns=("split=",), group_by=pattern, resplit=True)
    assert not any("--group-by" in line for line in done.said)
    assert dataset.groups[:5] == ["p0"] * 4 + ["p1"]


def test_a_column_that_changes_is_written_and_said(place):
    (place / "birds.csv").write_text(lines(*[f"img/{n}.png,{'ab'[n % 2]},{n % 2}" for n in range(COUNT)], header="file,label,fold"))  # fmt: skip
    _, dataset = prepare(place, "birds.csv")
    assert dataset.extra["fold"][:2] == ["0", "1"]
    text = (place / "birds.csv").read_text().replace("img/0.png,a,0", "img/0.png,a,1")
    (place / "birds.csv").write_text(text)
    done, dataset = prepare(place, "birds.csv")
    assert done.changed == ["columns changed: fold"] and dataset.extra["fold"][0] == "1"


def test_the_files_may_lie_elsewhere_in_a_folder_or_a_zip(place):
    (place / "tables").mkdir()
    (place / "tables" / "t.csv").write_text(lines().replace("img/", ""))
    with zipfile.ZipFile(place / "img.zip", "w") as archive:
        for number in range(COUNT):
            archive.writestr(f"{number}.png", png(number))
    for images in (place / "img", place / "img.zip"):
        request = Request(str(place / "tables" / "t.csv"), "", place, images=str(images))
        with open_source("table", [request]) as source:
            assert [item.read() for item in source.items] == [png(n) for n in range(COUNT)]
    with refused(InvalidInputError, "none of its 12 files is there, such as 0.png"):
        load(place / "tables" / "t.csv")


def test_a_file_that_is_no_file_is_refused_not_read(place):
    os.mkfifo(place / "img" / "pipe.png")
    source = table(place, lines("img/pipe.png,cat", "img,dog"))
    for item, why in zip(source.items[:2], ("pipe or device", "folder"), strict=False):
        with refused(OnepassError, f"expected a file, found a folder.*|{why}"):
            item.read()


def test_several_tables_are_one_data_set_with_splits_by_their_names(place):
    for number, name in enumerate(("birds-train", "birds-val", "birds-test")):
        rows = [f"img/{n}.png,{'ab'[n % 2]}" for n in range(4 * number, 4 * number + 4)]
        (place / f"{name}.csv").write_text("\n".join(["file,label", *rows]))
    source = load(f"{place}/birds-{{train,val,test}}.csv")
    splits = {item.name: item.split for item in source.items}
    assert [splits[f"img/{n}.png"] for n in range(COUNT)] == [TRAIN] * 4 + [VAL] * 4 + [TEST] * 4
    assert source.name == "birds" and len(source.origins) == 3
    (place / "birds-val.csv").write_text("file,label\nimg/1.png,b\nimg/0.png,b\n")
    with refused(InvalidInputError, "birds-train.csv line 2: img/0.png is 'a', but 'b' in birds-val.csv line 3|birds-val.csv line 3: img/0.png is 'b', but 'a' in birds-train.csv line 2"):  # fmt: skip
        load(f"{place}/birds-{{train,val}}.csv")
    (place / "birds-val.csv").write_text("file,class\n")
    with refused(UsageError, r"birds-val.csv: expected the column 'label' as in the first table"):
        load(f"{place}/birds-*.csv")
    with refused(MissingFileError, "nothing-1.csv: no such file"):
        load(f"{place}/nothing-{{1..3}}.csv")


def test_json_lines(place):
    rows = [{"file_name": f"img/{n}.png", "label": n % 2, "box": {"x": [n]}} for n in range(4)]
    text = "\n".join(json.dumps(row) for row in [*rows, {"file_name": "img/4.png", "label": 1.0}])
    source = table(place, text, "t.jsonl")
    assert source.class_ids == ["0", "1"] and source.side == {"box": ['{"x": [0]}', '{"x": [1]}', '{"x": [2]}', '{"x": [3]}', ""]}  # fmt: skip
    for line, why in (
        ("[1]", "expected an object"),
        ("{", "line 6: Expecting"),
        ('{"a":' * 5000, "nested too deep"),
    ):
        with refused(InvalidInputError, f"t.jsonl: line 6: .*{why.removeprefix('line 6: ')}"):
            table(place, text + "\n" + line, "t.jsonl")


def parquet(path: Path, rows: dict, **options: object) -> Path:
    import pyarrow
    from pyarrow.parquet import write_table

    write_table(pyarrow.table(rows), path, **options)
    return path


@pytest.mark.parametrize("groups", [1, 3, 1000])
def test_a_parquet_file_of_image_bytes(place, groups):
    path = parquet(place / "birds.parquet", {"image": [png(n) for n in range(COUNT)], "label": [n % 2 for n in range(COUNT)]}, row_group_size=groups)  # fmt: skip
    done, dataset = prepare(place, path.name)
    assert dataset.names[:2] == ["0000000", "0000001"] and dataset.class_ids == ["0", "1"]
    assert [np.asarray(Image.open(io.BytesIO(png(n)))).tolist() for n in range(COUNT)] == dataset.pixels.tolist()  # fmt: skip
    assert not [*(place / "store").glob("tmp*")]
    old(place)
    prepare(place, path.name)
    done, _ = prepare(place, path.name)
    assert done.state == "cached"
    with open_source("table", [Request(str(path), "", place, scratch=place)]) as source:
        assert [item.read() for item in reversed(source.items)] == [
            png(n) for n in reversed(range(COUNT))
        ]


def test_a_parquet_file_of_paths_numbers_and_gaps(place):
    rows = {"path": [f"img/{n}.png" for n in range(4)], "label": [0.0, 1.0, 0.0, 1.0], "split": ["train", "train", "val", None], "sizes": [[1]] * 4}  # fmt: skip
    source = load(parquet(place / "t.parquet", rows))
    assert source.class_ids == ["0", "1"] and source.items[3].split == UNDRAWN
    assert "columns of neither text nor numbers are left out: sizes" in source.said
    with refused(InvalidInputError, "row 2: img/1.png has no label"):
        load(parquet(place / "t.parquet", {**rows, "label": [0.0, None, 1.0, float("nan")]}))
    empty = {"image": [png(0), None, png(2), png(3)], "label": list("abab")}
    request = Request(str(parquet(place / "e.parquet", empty)), "", place, scratch=place)
    with (
        open_source("table", [request]) as source,
        refused(InvalidInputError, r"0000001 \(row 2\): there is no image"),
    ):
        source.items[1].read()


def test_a_parquet_file_that_is_none(place):
    (place / "t.parquet").write_bytes(b"PAR1" + bytes(100) + b"PAR1")
    with refused(InvalidInputError, "t.parquet: expected a whole Parquet file"):
        load(place / "t.parquet")
    with refused(MissingFileError, "no.parquet: no such file"):
        load(place / "no.parquet")


@pytest.fixture
def hugging_face(tmp_path, monkeypatch):
    """The library `datasets`, which keeps to a folder of its own."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    return pytest.importorskip("datasets")


def test_a_parquet_file_as_hugging_face_writes_it(place, hugging_face, tmp_path):
    d = hugging_face
    kinds = d.Features({"image": d.Image(), "label": d.ClassLabel(names=["crow", "emu", "auk"]), "note": d.Value("string")})  # fmt: skip
    rows = {"image": [str(place / "img" / f"{n}.png") for n in range(COUNT)], "label": [n % 3 for n in range(COUNT)], "note": ["x"] * COUNT}  # fmt: skip
    whole = d.Dataset.from_dict(rows, features=kinds)
    (place / "repo" / "data").mkdir(parents=True)
    whole.select(range(8)).to_parquet(place / "repo" / "data" / "train-00000-of-00001.parquet")
    whole.select(range(8, COUNT)).to_parquet(place / "repo" / "data" / "test-00000-of-00001.parquet")  # fmt: skip
    assert kind_of(str(place / "repo")) == "table"
    done, dataset = prepare(place, "repo")
    assert dataset.class_ids == ["crow", "emu", "auk"] and done.name == "repo"
    assert dataset.extra["note"] == ["x"] * COUNT
    by_name = {name.split("/")[-1]: row for row, name in enumerate(dataset.names)}
    for n in range(COUNT):
        row = by_name[f"{n}.png"]
        assert np.array_equal(dataset.pixels[row], np.asarray(Image.open(io.BytesIO(png(n)))))
        assert max(dataset.labels[row], dataset.held_labels[row]) == n % 3
    assert len(dataset.rows("test")) == 4


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # fmt: skip
def test_a_folder_with_metadata_is_read_as_hugging_face_reads_it(place, hugging_face):
    folder = place / "birds"
    for split, first in (("train", 0), ("validation", 8)):
        (folder / split).mkdir(parents=True)
        rows = ["file_name,label,note"]
        for n in range(8 if split == "train" else 4):
            (folder / split / f"{n}.png").write_bytes(png(first + n))
            rows.append(f"{n}.png,{'ab'[n % 2]},n{n}")
        (folder / split / "metadata.csv").write_text("\n".join(rows))
    theirs = hugging_face.load_dataset("imagefolder", data_dir=str(folder), drop_labels=True)
    gc.collect()  # of files that it leaves open, here and not in another test
    _, dataset = prepare(place, "birds")
    assert dataset.names[0] == "train/0.png" and dataset.names[8] == "validation/0.png"
    for ours, name in (("train", "train"), ("val", "validation")):
        rows = dataset.rows(ours)
        assert [dataset.class_ids[k] for k in dataset.labels[rows]] == theirs[name]["label"]
        assert [dataset.extra["note"][row] for row in rows] == theirs[name]["note"]
        assert all(np.array_equal(dataset.pixels[r], np.asarray(i)) for r, i in zip(rows, theirs[name]["image"], strict=True))  # fmt: skip


def test_a_folder_with_metadata_without_labels_takes_those_of_the_folders(place):
    rows = []
    for n in range(COUNT):
        path = place / "birds" / "ab"[n % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(n))
        rows.append(json.dumps({"file_name": str(path.relative_to(place / "birds")), "note": "x"}))
    (place / "birds" / "metadata.jsonl").write_text("\n".join(rows))
    source = load(place / "birds")
    assert source.class_ids == ["a", "b"] and "label = the folder of each file" in source.said[0]


def test_where_no_pyarrow_is_it_says_how_to_install_it(place, monkeypatch):
    path = parquet(place / "t.parquet", {"file": ["a"], "label": ["b"]})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with refused(MissingFileError, "pip install pyarrow"):
        read_table(path)


@pytest.mark.parametrize(
    ("word", "why"),
    [("birdz", "'birdz' is unknown"), ("./birdz", "no such file"), ("birdz.csv", "no such file")],
)
def test_a_place_that_is_not_there(place, monkeypatch, word, why):
    monkeypatch.chdir(place)
    with refused(OnepassError, why):
        prepare_dataset(PrepareConfig(kind=word, cache_dir=place / "store"))


def test_flags_of_tables_are_for_tables(place):
    with refused(UsageError, "--columns: expected one of table"):
        prepare(place, "img", columns=("file=a",))
    with refused(UsageError, "--columns x=y: expected ROLE=COLUMN"):
        prepare(place, "img", columns=("x=y",))
