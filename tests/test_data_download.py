"""Downloads from a real server on this machine: cut, resumed, changed, wrong."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from onepass.cache.errors import (
    CorruptFileError,
    InvalidInputError,
    MissingFileError,
    OutOfSpaceError,
)
from onepass.data import download
from onepass.data.download import Download, fetch

CONTENT = bytes(range(256)) * 4000  # 1,024,000 bytes
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file; its attributes say how badly."""

    content = CONTENT
    tag = '"one"'
    ranges = True  # honours Range
    lengths = True  # announces Content-Length
    cuts: tuple[int, ...] = ()  # bytes of the body after which each answer is cut, one an answer
    codes: tuple[int, ...] = ()  # status of each answer before it behaves

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/data.zip"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers.get("Range", "all"))
        if server.codes:
            code, server.codes = server.codes[0], server.codes[1:]
            self.send_error(code)
            return
        start = self.start_byte()
        if start >= len(server.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            total = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if server.lengths:
            self.send_header("Content-Length", str(len(server.content) - start))
        if server.tag:
            self.send_header("ETag", server.tag)
        self.end_headers()
        body = server.content[start:]
        if server.cuts:
            cut, server.cuts = server.cuts[0], server.cuts[1:]
            body = body[:cut]
        self.wfile.write(body)
        self.close_connection = True

    def start_byte(self) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        same = self.headers.get("If-Range", self.server.tag) == self.server.tag
        return int(match[1]) if match and self.server.ranges and same else 0

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.01))
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def only_file(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("digest", [SHA, MD5, SHA.upper().replace("SHA256", "sha256"), ""])
def test_a_file_comes_whole_and_once(server, tmp_path, digest):
    wanted = Download(server.url, tmp_path / "raw" / "data.zip", len(CONTENT), digest)
    assert fetch(wanted).read_bytes() == CONTENT
    assert fetch(wanted) == wanted.path
    assert server.asked == ["all"]
    assert only_file(tmp_path / "raw") == ["data.zip"]


@pytest.mark.parametrize("lengths", [True, False])
def test_a_cut_connection_goes_on_where_it_stopped(server, tmp_path, lengths):
    server.cuts, server.lengths = (300_000, 200_000), lengths
    # Without an announced length only the size that the caller knows can tell that something is missing.
    size = len(CONTENT) if not lengths else None
    assert fetch(Download(server.url, tmp_path / "data.zip", size, SHA)).read_bytes() == CONTENT
    assert server.asked == ["all", "bytes=300000-", "bytes=500000-"]


def test_a_later_run_goes_on_where_an_earlier_one_gave_up(server, tmp_path):
    server.cuts = (400_000, 0, 0, 0)
    wanted = Download(server.url, tmp_path / "data.zip", digest=SHA)
    with pytest.raises(MissingFileError, match=r"400\.0 kB are here.*same command again"):
        fetch(wanted)
    assert not wanted.path.exists() and wanted.part.stat().st_size == 400_000
    assert fetch(wanted).read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=400000-"


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.cuts, server.ranges = (300_000,), False
    assert fetch(Download(server.url, tmp_path / "data.zip", digest=SHA)).read_bytes() == CONTENT
    assert server.asked == ["all", "bytes=300000-"]


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_half(server, tmp_path):
    wanted = Download(server.url, tmp_path / "data.zip")
    server.cuts = (400_000, 0, 0, 0)
    with pytest.raises(MissingFileError):
        fetch(wanted)
    server.content, server.tag = CONTENT[::-1], '"two"'
    assert fetch(wanted).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("tag", ["", 'W/"weak"'])
def test_without_a_tag_or_a_digest_nothing_is_glued(server, tmp_path, tag):
    server.tag, server.cuts = tag, (400_000,)
    assert fetch(Download(server.url, tmp_path / "data.zip")).read_bytes() == CONTENT
    assert server.asked == ["all", "all"]


def test_the_half_of_another_address_is_not_used(server, tmp_path):
    server.cuts = (400_000, 0, 0, 0)
    with pytest.raises(MissingFileError):
        fetch(Download(server.url, tmp_path / "data.zip", digest=SHA))
    fetch(Download(server.url + "?other", tmp_path / "data.zip", digest=SHA))
    assert server.asked[-1] == "all"


def test_a_part_that_is_complete_already_is_taken_after_its_check(server, tmp_path):
    wanted = Download(server.url, tmp_path / "data.zip", digest=SHA)
    server.cuts = (400_000, 0, 0, 0)
    with pytest.raises(MissingFileError):
        fetch(wanted)
    wanted.part.write_bytes(CONTENT)
    assert fetch(wanted).read_bytes() == CONTENT


def test_a_wrong_digest_is_never_used_and_deleted(server, tmp_path):
    server.content = CONTENT[:-1] + b"!"
    with pytest.raises(CorruptFileError, match=f"expected {SHA}, received sha256:.*was deleted"):
        fetch(Download(server.url, tmp_path / "data.zip", digest=SHA))
    assert not (tmp_path / "data.zip").exists() and not (tmp_path / "data.zip.part").exists()


def test_a_file_that_is_there_is_checked_before_it_is_reused(server, tmp_path):
    (tmp_path / "data.zip").write_bytes(b"something else")
    with pytest.raises(
        CorruptFileError, match=r"data\.zip: expected sha256.*delete it to fetch it again"
    ):
        fetch(Download(server.url, tmp_path / "data.zip", digest=SHA))
    assert server.asked == []


def test_another_size_is_refused_before_the_first_byte(server, tmp_path):
    with pytest.raises(CorruptFileError, match="expected 5 bytes, the server announces 1,024,000"):
        fetch(Download(server.url, tmp_path / "data.zip", size=5))


def test_more_bytes_than_expected_are_not_stored(server, tmp_path):
    server.lengths = False
    with pytest.raises(CorruptFileError, match=r"expected 300,000 bytes, received .* and more"):
        fetch(Download(server.url, tmp_path / "data.zip", size=300_000))


def test_a_busy_server_is_asked_again_a_missing_file_is_not(server, tmp_path):
    server.codes = (503, 429)
    assert fetch(Download(server.url, tmp_path / "a.zip")).read_bytes() == CONTENT
    server.asked.clear()
    server.codes = (404,)
    with pytest.raises(
        MissingFileError, match=r"the server answered 404 Not Found; check the address"
    ):
        fetch(Download(server.url, tmp_path / "b.zip"))
    assert len(server.asked) == 1


def test_nobody_there_is_one_clear_error(server, tmp_path):
    server.shutdown()
    server.server_close()
    with pytest.raises(MissingFileError, match=r"cannot be fetched .*--source"):
        fetch(Download(server.url, tmp_path / "data.zip"))


def test_too_little_room_is_said_before_the_first_byte(server, tmp_path, monkeypatch):
    def nearly_full(path):
        return SimpleNamespace(free=1000)

    monkeypatch.setattr(download.shutil, "disk_usage", nearly_full)
    with pytest.raises(OutOfSpaceError, match=r"needs 1\.0 MB, but .* has 1\.0 kB free"):
        fetch(Download(server.url, tmp_path / "data.zip"))


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x.zip", "data.zip"])
def test_only_web_addresses_are_fetched(url, tmp_path):
    with pytest.raises(InvalidInputError, match="begins with http"):
        Download(url, tmp_path / "x.zip")


@pytest.mark.parametrize("digest", ["abc", "md5:abc", "sha1:" + "0" * 40])
def test_a_digest_that_is_none_is_refused(digest, tmp_path):
    with pytest.raises(InvalidInputError, match="32 hex digits, or sha256: and 64"):
        Download("http://host/x.zip", tmp_path / "x.zip", digest=digest)
