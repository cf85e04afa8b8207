"""ADD: archives of the context are taken apart, files are fetched and come as they are."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import http.server
import io
import lzma
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

from layerstore import LimitExceeded, Limits
from layerstore.build import BuildError
from layerstore.build.context.fetching import fetched
from layerstore.build.steps.adding import unpacked
from layerstore.build.steps.copy import Copying
from layerstore.kernel.files.descriptors import HANDLE, opened
from layerstore.values import frozen
from support.building import Builder, Look, names_in
from support.faults import descriptors


def tar_of(**files: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(f"top/{name}")
            info.size, info.uid, info.gid, info.mode, info.mtime = len(text), 7, 8, 0o640, 1_500_000_000
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


@pytest.mark.parametrize("form", FORMS)
def test_an_archive_is_taken_apart_and_keeps_its_owners(make: Builder, look: Look, form: str) -> None:
    built = make("FROM base\nADD a.bin /new\nADD --chown=1:2 a.bin /given/\n", {"a.bin": FORMS[form](tar_of(f="text"))})
    assert look(built, "/new/top/f") == "text"
    with built.image.mount() as root:
        found, given = os.stat(root / "new/top/f"), os.stat(root / "given/top/f")
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (7, 8, 0o640)
        assert found.st_mtime == 1_500_000_000
        assert (given.st_uid, given.st_gid) == (1, 2)


def test_what_is_no_archive_or_is_not_to_be_unpacked_is_a_file(make: Builder, look: Look) -> None:
    data = gzip.compress(b"no tar, but longer than its header would have to be" * 20)
    built = make(
        "FROM base\nADD gz text empty /d/\nADD --unpack=false a.tar /d/\nCOPY a.tar /c\n",
        {"gz": data, "text": "text", "empty": "", "a.tar": tar_of(f="x")},
    )
    assert names_in(built, "/d") == {"gz", "text", "empty", "a.tar"}
    with built.image.mount() as root:
        assert (root / "d/gz").read_bytes() == data
        assert (root / "c").read_bytes() == tar_of(f="x")
    assert make.store.leases("building") == {}


def test_an_archive_that_is_not_to_be_unpacked_is_another_step(make: Builder) -> None:
    files = {"a.tar": tar_of(f="x")}
    assert names_in(make("FROM base\nADD a.tar /d/\n", files), "/d") == {"top"}
    assert names_in(make("FROM base\nADD --unpack=false a.tar /d/\n"), "/d") == {"a.tar"}


def test_an_archive_cannot_reach_out_of_its_place(make: Builder) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("way")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        info = tarfile.TarInfo("way/passwd")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    try:
        built = make("FROM base\nADD evil.tar /d/\n", {"evil.tar": buffer.getvalue()})
    except BuildError:
        return
    with built.image.mount() as root:
        assert "someone" in (root / "etc/passwd").read_text()
    assert "evil" not in Path("/etc/passwd").read_text()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A server on loopback: its address, the folder that it serves, and what it was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_request(self, code: object = "-", size: object = "-") -> None:
            asked.append(str(int(code)) if isinstance(code, int) and code == 304 else self.path)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", folder, asked
        finally:
            server.shutdown()
            thread.join()


def test_a_file_is_fetched_and_is_its_owner_s_alone(make: Builder, served: tuple[str, Path, list[str]]) -> None:
    address, folder, _ = served
    (folder / "file.txt").write_text("far")
    os.utime(folder / "file.txt", (1_400_000_000, 1_400_000_000))
    (folder / "a.tar").write_bytes(tar_of(f="x"))
    built = make(
        f"FROM base\nADD {address}/file.txt /d/\nADD {address}/file.txt /name\nADD {address}/a.tar /t\n"
        f"ADD --unpack {address}/a.tar /u\n"
    )
    with built.image.mount() as root:
        for path in ("d/file.txt", "name"):
            found = os.stat(root / path)
            assert (found.st_mode & 0o7777, found.st_uid, found.st_mtime) == (0o600, 0, 1_400_000_000)
            assert (root / path).read_text() == "far"
        assert (root / "t").is_file()
        assert (root / "u/top/f").read_text() == "x"


@contextmanager
def answering(data: bytes) -> Iterator[str]:
    """While inside: the address of a server that says this, once."""

    def answer() -> None:
        taken, _ = listening.accept()
        with taken:
            taken.recv(4096)
            taken.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_a_file_that_ends_too_early_is_refused(make: Builder) -> None:
    with (
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc") as address,
        pytest.raises(BuildError, match="97 bytes before its end"),
    ):
        make(f"FROM base\nADD {address}/file /\n")


def test_no_more_is_fetched_than_a_layer_may_have(tmp_path: Path) -> None:
    (tmp_path / "of build").mkdir()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"
    with (
        answering(head + b"\0" * 2_000_000) as address,
        pytest.raises(LimitExceeded, match="max-layer-size is 1,000,000"),
    ):
        fetched(f"{address}/f", None, tmp_path / "of build", Limits(layer_size=10**6), check=lambda: None, place=None)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b/", "b"),
        ("/c%20d?e=f/g", "c d"),
        *((path, "__unnamed__") for path in ("/", "/..", "/" + "n" * 300, "/a%00b")),
    ],
)
def test_a_file_is_called_as_its_url_says_and_never_as_its_server_does(path: str, name: str, make: Builder) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Disposition: attachment; filename=other\r\n\r\n"
    with answering(head + b"far") as address:
        built = make(f"FROM scratch\nADD {address}{path} /\n")
    assert names_in(built) == {name}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("COPY http://127.0.0.1:1/f /", "source can't be a URL for COPY"),
        ("COPY git://127.0.0.1:1/f.git /", "source can't be a git ref for COPY"),
        (f"ADD --checksum=sha256:{'0' * 64} file /", "checksum requires HTTP"),
        (f"ADD --checksum=sha256:{'0' * 64} file http://127.0.0.1:1/f /", "checksum can't be specified for multiple"),
    ],
)
def test_what_cannot_be_a_source_or_have_a_checksum_is_refused(line: str, said: str, make: Builder) -> None:
    with pytest.raises(BuildError, match=said) as caught:
        make(f"FROM scratch\n{line}\n", {"file": "text"})
    assert caught.value.place is not None
    assert caught.value.place.line == 2


def test_a_file_that_was_fetched_is_what_its_checksum_says(make: Builder, served: tuple[str, Path, list[str]]) -> None:
    address, folder, asked = served
    (folder / "f").write_text("far")
    digest = hashlib.sha256(b"far").hexdigest()
    text = f"FROM base\nADD --checksum=sha256:{digest} {address}/f /f\n"
    make(text)
    assert len(asked) == 1
    make(text)
    assert len(asked) == 1, "what is known by its checksum is not fetched again"
    with pytest.raises(BuildError, match="digest mismatch"):
        make(f"FROM base\nADD --checksum=sha256:{'0' * 64} {address}/f /f\n")
    with pytest.raises(BuildError, match="404"):
        make(f"FROM base\nADD {address}/nowhere /f\n")
    make(f"FROM base\nADD {address}/f /f\n")
    (folder / "f").write_text("new")
    built = make(f"FROM base\nADD {address}/f /f\n")
    with built.image.mount() as root:
        assert (root / "f").read_text() == "new"


@frozen
class Tagged:
    """A server whose file has an ETag: its address, and what was answered."""

    address: str
    content: list[bytes]
    answered: list[int]


@pytest.fixture
def tagged() -> Iterator[Tagged]:
    """A server on loopback with one file, which is whatever stands last in `content`."""
    content: list[bytes] = [b"far"]
    answered: list[int] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            tag = f'W/"{hashlib.sha256(content[-1]).hexdigest()}"'
            same = self.headers.get("If-None-Match") == tag
            answered.append(304 if same else 200)
            self.send_response(answered[-1])
            self.send_header("ETag", tag)
            self.end_headers()
            if not same:
                self.wfile.write(content[-1])

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Tagged(f"http://127.0.0.1:{server.server_port}", content, answered)
        finally:
            server.shutdown()
            thread.join()


def test_a_file_that_its_server_calls_unaltered_is_not_fetched_again(make: Builder, look: Look, tagged: Tagged) -> None:
    text = f"FROM base\nADD {tagged.address}/odd%5Bname%5D%2A /d/\n"
    assert look(make(text), "/d/odd[name]*") == "far"
    make(text)
    assert make.done == []
    assert tagged.answered == [200, 304]
    tagged.content.append(b"new")
    assert look(make(text), "/d/odd[name]*") == "new"
    tagged.content.append(b"far")  # which is known, and fetched because it is not what it was last
    make(text)
    assert make.done == []
    assert tagged.answered == [200, 304, 200, 200]


def test_a_file_is_fetched_where_its_bytes_are_needed_or_nothing_remembered_is_wanted(
    make: Builder, look: Look, tagged: Tagged
) -> None:
    text = "FROM base\nRUN echo {1} > /other\nADD {0}/f /f\n"
    make(text.format(tagged.address, 1))
    assert look(make(text.format(tagged.address, 2)), "/f") == "far"
    assert tagged.answered == [200, 304, 200]
    make(text.format(tagged.address, 2), no_cache=True)
    assert tagged.answered[3:] == [200]


def test_a_file_that_is_another_when_its_bytes_are_needed_is_not_remembered(
    make: Builder, look: Look, tagged: Tagged, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "FROM base\nRUN echo {1} > /other\nADD {0}/f /f\n"
    make(text.format(tagged.address, 1))
    real = Copying._make

    def later(*arguments: Any) -> Any:
        tagged.content.append(b"new")
        return real(*arguments)

    monkeypatch.setattr(Copying, "_make", later)
    assert look(make(text.format(tagged.address, 2)), "/f") == "new"
    monkeypatch.undo()
    tagged.content.append(b"far")
    assert look(make(text.format(tagged.address, 2)), "/f") == "far"


def test_a_time_tells_of_a_file_that_is_old_enough(make: Builder, served: tuple[str, Path, list[str]]) -> None:
    address, folder, asked = served
    (folder / "f").write_text("far")
    text = f"FROM base\nADD {address}/f /f\n"
    make(text)
    (folder / "f").write_text("new")  # in the same second, as far as anybody can tell
    with make(text).image.mount() as root:
        assert (root / "f").read_text() == "new"
    os.utime(folder / "f", (1_400_000_000, 1_400_000_000))
    make(text)
    asked.clear()
    make(text)
    assert make.done == []
    assert asked == ["304"]


def test_an_address_that_nobody_answers_at_is_told_in_words(make: Builder) -> None:
    with socket.socket() as closed:  # it keeps the port from others, and does not listen
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/f"
        with pytest.raises(BuildError, match=f"failed to load {url}: Connection refused\n"):
            make(f"FROM scratch\nADD {url} /\n")


def test_what_has_become_a_folder_meanwhile_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()

    @contextmanager
    def open_tree() -> Iterator[int]:
        with opened(tmp_path, HANDLE) as root:
            yield root

    origin: Any = SimpleNamespace(open_tree=open_tree)
    was_a_file: Any = SimpleNamespace(path=b"folder", is_folder=False)
    nobody: Any = None
    before = descriptors()
    with pytest.raises(IsADirectoryError):
        unpacked(nobody, origin, was_a_file)
    assert descriptors() == before
