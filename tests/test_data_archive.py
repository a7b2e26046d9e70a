"""Zips and folders as trees: the same files, and nothing hostile."""

import os
import stat
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from onepass.cache.content import source_of
from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    UnreadableFileError,
)
from onepass.data.archive import Limits, open_tree

FILES = {"top/a/1.txt": b"one", "top/a/2.txt": b"two" * 500, "top/b/c/3.txt": b""}


def write_zip(path: Path, files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_folder(path: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture(params=["zip", "folder"])
def tree_path(request, tmp_path):
    writer = write_zip if request.param == "zip" else write_folder
    hidden = {"top/.DS_Store": b"x", "__MACOSX/top/a/._1.txt": b"x"}
    return writer(tmp_path / f"tree.{request.param}", {**FILES, **hidden})


def test_a_zip_and_a_folder_read_alike(tree_path):
    with open_tree(tree_path) as tree:
        assert tree.files == tuple(sorted(FILES))
        assert tree.folders == {"top", "top/a", "top/b", "top/b/c"}
        assert {name: tree.read(name) for name in tree.files} == FILES
        below = tree.below("top").below("a")
        assert below.files == ("1.txt", "2.txt") and below.folders == frozenset()
        assert below.read("2.txt") == FILES["top/a/2.txt"]


def test_of_a_zip_a_name_its_size_checksum_and_time_are_a_files_stamp(tmp_path):
    path = write_zip(tmp_path / "x.zip", FILES)
    with zipfile.ZipFile(path) as archive, open_tree(path) as tree:
        for info in archive.infolist():
            said = (info.filename, info.CRC, info.file_size, str(info.date_time))
            assert tree.stamp(info.filename) == source_of(repr(said).encode()).tobytes()
        assert not tree.stamp("top/a/nowhere.txt") and len(tree.states) == len(FILES)
        below = tree.below("top/a")
        assert below.stamp("1.txt") == tree.stamp("top/a/1.txt")


@pytest.mark.parametrize("place", [0xFFFF, 1 << 40, (1 << 64) - 1])
def test_a_file_that_a_zip_has_elsewhere_is_the_only_one_that_cannot_be_read(tmp_path, place):
    path = write_zip(tmp_path / "x.zip", {"a.txt": b"a" * 9, "b.txt": b"b"}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    at = content.rindex(b"a.txt")  # in the directory
    extra = struct.pack("<HHQ", 1, 8, place)  # of ZIP64: where a file begins
    entry = bytearray(content[at - 46 : at + 5])
    entry[30:32] = struct.pack("<H", len(extra))
    entry[42:46] = b"\xff" * 4
    end = bytearray(content[content.rindex(b"PK\5\6") :])
    end[12:16] = struct.pack("<I", struct.unpack("<I", end[12:16])[0] + len(extra))
    rest = content[at + 5 : content.rindex(b"PK\5\6")]
    path.write_bytes(content[: at - 46] + bytes(entry) + extra + rest + bytes(end))
    with open_tree(path) as tree:
        assert tree.read("b.txt") == b"b"
        with pytest.raises(CorruptFileError, match=r"x\.zip: a\.txt cannot be read"):
            tree.read("a.txt")


def test_a_file_that_overlaps_another_is_not_read(tmp_path):
    """The first holds all of the second: a zip that grows without end where files lie in one another."""
    inner = write_zip(tmp_path / "inner.zip", {"b.txt": b"b" * 50}, zipfile.ZIP_STORED)
    local = inner.read_bytes()[: 30 + 5 + 50]
    path = write_zip(
        tmp_path / "x.zip", {"a.txt": local, "b.txt": b"b" * 50, "c.txt": b"c"}, zipfile.ZIP_STORED
    )
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"b.txt") - 46  # in the directory
    content[entry + 42 : entry + 46] = struct.pack("<I", content.index(local))
    path.write_bytes(bytes(content))
    with open_tree(path) as tree:
        assert tree.read("b.txt") == b"b" * 50 and tree.read("c.txt") == b"c"
        with pytest.raises(CorruptFileError, match=r"a\.txt cannot be read \(it overlaps another"):
            tree.read("a.txt")


def test_a_zip_that_the_system_refuses_is_not_called_damaged():
    with (
        pytest.raises(UnreadableFileError, match="/proc/self/mem: cannot be read now"),
        open_tree(Path("/proc/self/mem")),
    ):
        pass


def test_empty_folders_are_known(tmp_path):
    (tmp_path / "tree" / "empty").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "tree.zip", "w") as archive:
        archive.mkdir("empty")
    for path in (tmp_path / "tree", tmp_path / "tree.zip"):
        with open_tree(path) as tree:
            assert tree.folders == {"empty"} and tree.files == ()


def identity(path: Path) -> dict:
    with open_tree(path) as tree:
        return tree.identity


def test_the_identity_of_a_zip_follows_its_content_not_its_place(tmp_path):
    first = identity(write_zip(tmp_path / "a.zip", FILES))
    assert identity(write_zip(tmp_path / "b.zip", FILES, zipfile.ZIP_STORED)) == first
    assert identity(write_zip(tmp_path / "c.zip", {**FILES, "top/a/1.txt": b"uno"})) != first


def test_the_identity_of_a_folder_follows_sizes_and_times(tmp_path):
    path = write_folder(tmp_path / "tree", FILES)
    first = identity(path)
    assert identity(path) == first
    os.utime(path / "top/a/1.txt", ns=(1, 1))
    assert identity(path) != first


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    path = write_folder(tmp_path / "tree", FILES)
    (path / "again").symlink_to(path / "top", target_is_directory=True)
    (path / "top" / "circle").symlink_to(path, target_is_directory=True)
    with open_tree(path) as tree:
        assert "again/a/1.txt" in tree.files and tree.read("again/a/1.txt") == b"one"
        assert len(tree.files) < 20


def test_a_name_that_is_not_utf8_is_one_clear_error(tmp_path):
    (tmp_path / "tree").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "tree") + b"/caf\xe9.txt")).write_bytes(b"x")
    with (
        pytest.raises(InvalidInputError, match="is not UTF-8; rename it"),
        open_tree(tmp_path / "tree"),
    ):
        pass


def refusal(path: Path, limits: Limits | None = None) -> str:
    with pytest.raises(InvalidInputError) as caught, open_tree(path, limits):
        pass
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../evil.txt", "leaves its folder"),
        ("a/../../evil.txt", "leaves its folder"),
        ("a//b.txt", "leaves its folder"),
        ("./a.txt", "leaves its folder"),
        ("/etc/passwd", "absolute name"),
        ("C:/evil.txt", "absolute name"),
        ("a\\..\\evil.txt", "absolute name"),
        ("n" * 600, "name of 600 characters"),
    ],
)
def test_hostile_names_are_refused(tmp_path, name, why):
    assert why in refusal(write_zip(tmp_path / "x.zip", {"fine.txt": b"", name: b"evil"}))


def special(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o644) << 16
    return info


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_links_and_devices_are_refused(tmp_path, kind):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(special("link", kind), b"/etc/passwd")
    assert "is a link or a device" in refusal(tmp_path / "x.zip")


def test_a_member_that_would_grow_without_measure_is_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"bomb.bmp": bytes(5_000_000)})
    assert "'bomb.bmp' would grow more than 200 times" in refusal(path)


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(members=2), "3 members, more than 2"),
        (Limits(member_bytes=1000), "'top/a/2.txt' has 1.5 kB, more than 1.0 kB"),
        (Limits(total_bytes=1501), "1.5 kB unpacked"),
    ],
)
def test_too_much_is_refused(tmp_path, limits, why):
    assert why in refusal(write_zip(tmp_path / "x.zip", FILES), limits)


def test_a_name_that_is_there_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.txt", b"2")
    assert "'a.txt' is in it twice" in refusal(tmp_path / "x.zip")


def patch_directory(path: Path, field: int, value: bytes) -> None:
    """Overwrite bytes of the first entry of a zip's central directory."""
    content = bytearray(path.read_bytes())
    start = content.index(b"PK\x01\x02") + field
    content[start : start + len(value)] = value
    path.write_bytes(content)


def test_encrypted_and_exotic_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", FILES)
    patch_directory(path, 8, struct.pack("<H", 1))
    assert "is encrypted" in refusal(path)
    path = write_zip(tmp_path / "y.zip", {"a.txt": b"a" * 100}, zipfile.ZIP_LZMA)
    assert "stored or deflated" in refusal(path)


def test_overlapping_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a": bytes(90), "b": bytes(90)}, zipfile.ZIP_STORED)
    patch_directory(path, 20, struct.pack("<II", 5000, 5000))
    assert "overlap" in refusal(path)


@pytest.mark.parametrize("keep", [0, 10, 0.5, -10])
def test_a_truncated_zip_is_one_clear_error(tmp_path, keep):
    content = write_zip(tmp_path / "x.zip", FILES).read_bytes()
    cut = int(len(content) * keep) if isinstance(keep, float) else keep
    (tmp_path / "cut.zip").write_bytes(content[:cut])
    error = pytest.raises(
        CorruptFileError, match=r"cut\.zip: expected a folder or a zip.*cut short"
    )
    with error, open_tree(tmp_path / "cut.zip"):
        pass


def test_a_damaged_member_is_named_when_it_is_read(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"a.txt": b"abcdefgh"}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"abcdefgh", b"abcXefgh", 1))
    with (
        open_tree(path) as tree,
        pytest.raises(CorruptFileError, match=r"x\.zip: a\.txt cannot be read"),
    ):
        tree.read("a.txt")


def test_nothing_there_is_one_clear_error(tmp_path):
    error = pytest.raises(MissingFileError, match=r"nowhere: no such file or folder")
    with error, open_tree(tmp_path / "nowhere"):
        pass


def test_a_member_may_not_grow_by_more_than_threads_can_hold(tmp_path):
    path = write_zip(tmp_path / "x.zip", {"big.bmp": os.urandom(500_000) + bytes(3_000_000)})
    assert "'big.bmp' would grow by more than 2.0 MB" in refusal(path, Limits(growth=2_000_000))


@pytest.mark.parametrize("source", ["/dev/zero", "pipe"])
def test_a_device_or_a_pipe_is_refused_and_not_read(tmp_path, source):
    os.mkfifo(tmp_path / "pipe")
    assert "found a pipe or a device" in refusal(
        tmp_path / source
    )  # joined to / it stays /dev/zero


def test_a_file_of_a_terabyte_is_not_read(tmp_path, monkeypatch):
    path = write_folder(tmp_path / "tree", {"a.png": b"x" * 1001, "b.png": b"x" * 1000})
    monkeypatch.setattr("onepass.data.archive.Limits", lambda: Limits(member_bytes=1000))
    with open_tree(path) as tree:
        assert len(tree.read("b.png")) == 1000
        with pytest.raises(InvalidInputError, match=r"a\.png: more than 1\.0 kB"):
            tree.read("a.png")


@pytest.mark.parametrize("hidden", ["", ".hidden/"])
def test_a_tree_of_1500_folders_in_each_other_is_read(tmp_path, monkeypatch, hidden):
    monkeypatch.chdir(tmp_path)
    Path(f"tree/{hidden}").mkdir(parents=True)
    monkeypatch.chdir(f"tree/{hidden}")
    for _ in range(1500):  # one by one: a path of its length would do, a recursion would not
        os.mkdir("d")  # noqa: PTH102
        os.chdir("d")
    Path("leaf.txt").write_bytes(b"deep")
    monkeypatch.chdir(tmp_path)
    with open_tree(Path("tree")) as tree:
        if hidden:
            assert tree.files == () and tree.left_out == {"in .hidden": 1}
        else:
            assert len(tree.folders) == 1500 and tree.read("d/" * 1500 + "leaf.txt") == b"deep"
    subprocess.run(["rm", "-rf", "tree"], check=True)  # shutil.rmtree of Python 3.11 cannot


@pytest.mark.parametrize("mark", [b"PK\x01\x02", b"PK\x03\x04"])
def test_a_name_in_bad_utf8_is_one_clear_error(tmp_path, mark):
    path = write_zip(tmp_path / "x.zip", {"käse.txt": b"x"})
    content = path.read_bytes()
    start = content.index(mark)
    path.write_bytes(content[:start] + content[start:].replace("ä".encode(), b"\xc3\xc3", 1))
    with pytest.raises(CorruptFileError, match=r"x\.zip: "), open_tree(path) as tree:
        tree.read("käse.txt")


class TestStamps:
    """What tells without reading that a file is as it was."""

    def test_of_a_folder_it_follows_place_name_size_and_time(self, tmp_path):
        def stamp(folder: str, name: str, content: bytes, time: int) -> bytes:
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(time, time))
            with open_tree(path.parent) as tree:
                return tree.stamp(name)

        first = stamp("a", "x.png", b"123", 10**18)
        assert len(first) == 16 and stamp("a", "x.png", b"456", 10**18) == first
        others = {
            stamp("a", "x.png", b"1234", 10**18),
            stamp("a", "x.png", b"123", 10**18 + 1),
            stamp("a", "y.png", b"123", 10**18),
            stamp("b", "x.png", b"123", 10**18),
        }
        assert len(others | {first}) == 5

    def test_a_file_that_changed_just_now_has_none(self, tmp_path):
        (tmp_path / "x.png").write_bytes(b"123")
        (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
        with open_tree(tmp_path) as tree:
            assert tree.stamp("x.png") == tree.stamp("gone.png") == b""

    def test_of_a_zip_it_follows_name_and_content_not_the_place(self, tmp_path):
        def stamps(name: str, files: dict) -> dict[str, bytes]:
            with open_tree(write_zip(tmp_path / name, files)) as tree:
                return {file: tree.stamp(file) for file in tree.files}

        first = stamps("a.zip", FILES)
        assert stamps("b.zip", FILES) == first and len(set(first.values())) == len(first)
        changed = stamps("c.zip", {**FILES, "top/a/1.txt": b"uno"})
        assert [name for name in first if changed[name] != first[name]] == ["top/a/1.txt"]
