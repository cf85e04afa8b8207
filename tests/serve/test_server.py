"""What clients cannot make the server do: hang, keep threads, fill the memory, take one request for another."""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from layerstore.faces.serve import Limits
from layerstore.faces.serve.server import Timing
from registry.servers.certificates import Authority
from serve.client import MANIFEST, Client, digest

if TYPE_CHECKING:
    from layerstore.faces.serve.server import Server

pytestmark = pytest.mark.root

UPLOADS = "/v2/app/blobs/uploads/"


@pytest.fixture
def raw(server: Server) -> Callable[[bytes], bytes]:
    """`raw(bytes)`: what comes back for these bytes, after which there are no more, until the server hangs up."""

    def ask(data: bytes) -> bytes:
        with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as sock:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            return answer

    return ask


def statuses(answer: bytes) -> list[int]:
    """The statuses of the answers that came."""
    return [int(found) for found in re.findall(rb"^HTTP/1\.1 (\d{3})", answer, re.MULTILINE)]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1_0\r\n\r\n0123456789", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 40 + b"\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 413),
        (b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET http://other/v2/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"get /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"CONNECT other:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"TRACE /v2/ HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /v2/ HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    ],
)
def test_malformed_requests_are_refused(raw: Callable[[bytes], bytes], request_: bytes, status: int) -> None:
    assert statuses(raw(request_))[:1] == [status]
    assert statuses(raw(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == [200]


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;name=value\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
        b"2\r\nhe\r\n3 \r\nllo\r\n000\r\n\r\n",
    ],
)
def test_chunks_are_read_as_the_rules_have_it(raw: Callable[[bytes], bytes], chunks: bytes) -> None:
    head = (
        f"POST {UPLOADS}?digest={digest(b'hello')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    ask_again = b"GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert statuses(raw(head + chunks + ask_again)) == [201, 200]


@pytest.mark.parametrize(
    "chunks",
    [
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloXX0\r\n\r\n",
        b"ffffffffffffffffffff\r\nhello",
        b"\r\n",
        b"5" * 10_000,
        b"5\r\nhello\r\n0\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    ],
)
def test_malformed_chunks_end_the_connection(raw: Callable[[bytes], bytes], chunks: bytes) -> None:
    head = (
        f"POST {UPLOADS}?digest={digest(b'hello')} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    answer = raw(head + chunks + b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
    assert [status for status in statuses(answer) if status < 400] == []


def test_a_body_that_nobody_wants_is_not_taken_for_a_request(raw: Callable[[bytes], bytes]) -> None:
    inner = b"GET /v2/_catalog HTTP/1.1\r\nHost: x\r\n\r\n"
    length = f"Content-Length: {len(inner)}\r\n".encode()
    for head in (b"GET /v2/nothing/here HTTP/1.1\r\n", b"PATCH /v2/app/blobs/uploads/none HTTP/1.1\r\n"):
        assert statuses(raw(head + b"Host: x\r\n" + length + b"\r\n" + inner)) == [404]
        chunked = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(inner), inner)
        assert statuses(raw(head + b"Host: x\r\n" + chunked)) == [404]


def test_a_large_body_that_nobody_wants_is_not_read(server: Server) -> None:
    """Nor kept in memory: the connection ends instead."""
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=10)) as sock:
        sock.sendall(b"PUT /v2/app/manifests/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n")
        assert sent_until_refused(sock, bytes(1 << 20), pause=0) < 64 << 20


def sent_until_refused(sock: socket.socket, data: bytes, *, pause: float) -> int:
    """Send again and again until the connection breaks, for a minute at most; the bytes that were sent."""
    sent, ended = 0, time.monotonic() + 60
    try:
        while time.monotonic() < ended:
            sent += sock.send(data)
            time.sleep(pause)
    except (ConnectionResetError, BrokenPipeError):
        return sent
    raise AssertionError(f"all {sent} bytes were taken")


def test_a_continue_is_said_to_who_waits_for_it(raw: Callable[[bytes], bytes]) -> None:
    head = f"POST {UPLOADS}?digest={digest(b'hello')} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    assert statuses(raw(head.encode() + b"Content-Length: 5\r\n\r\nhello")) == [100, 201]


def test_the_connection_is_kept(client: Client) -> None:
    client("GET", "/v2/")
    sock = client.connection.sock
    for method, path, body in (("GET", "/v2/none", None), ("POST", UPLOADS, b""), ("HEAD", "/v2/x/manifests/y", None)):
        client(method, path, body)
        assert client.connection.sock is sock


# --- slow clients ---


SLOW = Timing(silence=0.6, header=0.5, grace=0.4, pace=1 << 20, shutdown=1.0, tick=0.02)


def answers(server: Server) -> bool:
    """Does it answer at last? On a busy machine a client may be too slow for SLOW, and asks again."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with Client(f"127.0.0.1:{server.port}") as client, suppress(OSError, HTTPException):
            if client("GET", "/v2/").status == 200:
                return True
    return False


@pytest.mark.parametrize("pause", [None, 0.1])
@pytest.mark.parametrize("begin", [b"", b"GET /v2/ HTTP/1.1\r\nX: "])
def test_a_header_has_to_come_in_time(serve: Callable[..., Server], begin: bytes, pause: float | None) -> None:
    server = serve(timing=SLOW, threads=1)
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as sock:
        sock.sendall(begin)
        ended = time.monotonic() + 60
        try:
            while pause is not None and time.monotonic() < ended:
                sock.sendall(b"y")
                time.sleep(pause)
            while sock.recv(1000):
                pass
        except OSError:
            pass
        assert time.monotonic() < ended
    assert answers(server)  # its only thread is free


@pytest.mark.parametrize(
    ("length", "piece"), [("Content-Length: 10000", b"x"), ("Transfer-Encoding: chunked", b"1\r\nx\r\n")]
)
def test_a_body_has_to_come_at_a_pace(serve: Callable[..., Server], length: str, piece: bytes) -> None:
    server = serve(timing=SLOW, threads=1)
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as sock:
        sock.sendall(f"POST {UPLOADS}?digest={digest(b'')} HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n".encode())
        sent_until_refused(sock, piece, pause=0.05)
    assert answers(server)


def test_an_answer_has_to_be_taken_at_a_pace(serve: Callable[..., Server], store: object) -> None:
    with Client(f"127.0.0.1:{serve().port}") as client:
        name = client.put_blob("app", bytes(24 << 20))
    server = serve(timing=SLOW, threads=1)
    with closing(socket.socket()) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(f"GET /v2/app/blobs/{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert answers(server)  # it waits for the only thread


def test_who_breaks_off_is_forgotten(serve: Callable[..., Server], capfd: pytest.CaptureFixture[str]) -> None:
    server = serve(threads=2)
    for number in range(20):
        sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.sendall(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"[: 5 * number + 5] % UPLOADS.encode()
            if number > 2
            else b""
        )
        sock.close()
    with Client(f"127.0.0.1:{server.port}") as client:
        assert client("GET", "/v2/").status == 200
    assert capfd.readouterr().err == ""


# --- limits ---


def test_there_is_an_end_to_uploads(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(limits=Limits(uploads=2, idle=300))
    with Client(f"127.0.0.1:{server.port}") as client:
        first, _ = (client("POST", UPLOADS).header["location"] for _ in range(2))
        refused = client("POST", UPLOADS)
        assert (refused.status, refused.code, refused.header["retry-after"]) == (429, "TOOMANYREQUESTS", "60")
        later = time.monotonic() + 301
        monkeypatch.setattr("layerstore.faces.serve.uploads.time", SimpleNamespace(monotonic=lambda: later))
        assert client("POST", UPLOADS).status == 202, "those with which nobody went on are gone"
        assert client("PATCH", first, b"x").code == "BLOB_UPLOAD_UNKNOWN"


def test_a_manifest_has_a_largest_size(client: Client) -> None:
    path = "/v2/app/manifests/1"
    for body in (b" " * ((4 << 20) + 1), iter([b" " * (1 << 20)] * 5)):
        refused = client("PUT", path, body, Content_Type=MANIFEST)
        assert (refused.status, refused.code) == (413, "MANIFEST_INVALID")
        client.close()
    assert client("PUT", path, b" " * (4 << 20), Content_Type=MANIFEST).status == 400


def test_one_request_at_an_upload(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.faces.serve.uploads._PATIENCE", 0.1)
    server = serve()
    with Client(f"127.0.0.1:{server.port}") as one, Client(f"127.0.0.1:{server.port}") as two:
        place = one("POST", UPLOADS).header["location"]
        go = threading.Event()

        def body() -> Iterator[bytes]:
            yield b"first"
            go.wait(60)
            yield b" and last"

        done: list[int] = []
        thread = threading.Thread(target=lambda: done.append(one("PATCH", place, body()).status))
        thread.start()
        is_at_it(two, place)
        refused = two("PATCH", place, b"between")
        assert (refused.status, refused.code) == (429, "TOOMANYREQUESTS")
        go.set()
        thread.join()
        assert done == [202]
        name = digest(b"first and last")
        assert two("PUT", place, b"", query={"digest": name}).status == 201


def is_at_it(client: Client, place: str) -> None:
    """Wait until another request is at an upload: what was sent of it may still be on its way."""
    ended = time.monotonic() + 20
    while client("GET", place).status != 429:
        assert time.monotonic() < ended


# --- whatever a path may be ---

SEGMENTS = st.one_of(
    st.sampled_from(
        [
            *("..", ".", "%2e%2e", "%2F", "%00", "a", "blobs", "manifests", "uploads", "tags", "list", "_catalog", "A"),
            *("latest", "referrers", "sha256:x", "x:y", "é", "%ff", "~", "-", "a--b", "a" * 300),
            *(digest(b"x"), "sha512:" + "0" * 128),
        ]
    ),
    st.text(max_size=5),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"]),
    segments=st.lists(SEGMENTS, max_size=6),
    query=st.dictionaries(
        st.sampled_from(["n", "last", "digest", "mount", "from", "ns", "tag", "x"]), st.text(max_size=8)
    ),
)
@example("GET", ["a", "blobs", "uploads", "..", "..", "..", "etc", "passwd"], {})
@example("POST", ["a", "blobs", "uploads", ""], {"mount": "../../x"})
@example("PUT", ["a", "manifests", "%0d%0aX: y"], {})
def test_no_path_is_a_defect(client: Client, method: str, segments: list[str], query: dict[str, str]) -> None:
    from urllib.parse import quote

    path = "/v2/" + "/".join(quote(segment, safe="%:@") for segment in segments)
    found = client(method, path, b"" if method in ("PUT", "POST", "PATCH") else None, query=query)
    assert found.status in (200, 202, 400, 404, 405), (path, found)
    assert "x" not in found.header
    if found.status >= 400 and method != "HEAD":
        assert found.code in {
            "BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_INVALID",
            "MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "UNSUPPORTED",
        }  # fmt: skip


# --- TLS ---


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whose certificates are good."""
    return Authority(tmp_path)


def test_tls(serve: Callable[..., Server], authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    server = serve(tls=authority.issue("server", "127.0.0.1"), threads=2)
    assert server.url == f"https://127.0.0.1:{server.port}"
    silent = socket.create_connection(("127.0.0.1", server.port))  # which keeps nobody waiting
    trusted = ssl.create_default_context(cafile=str(authority.certificate))
    data = bytes(range(256)) * 20_000
    with closing(silent), Client(f"127.0.0.1:{server.port}", tls=trusted) as client:
        name = client.put_blob("app", data)
        assert client("GET", f"/v2/app/blobs/{name}").body == data
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=30)) as plain:
        plain.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" not in plain.recv(1000)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        pytest.raises(OSError, match=r"(?i)tls|ssl|closed|reset"),
        Client(f"127.0.0.1:{server.port}", tls=old) as client,
    ):
        client("GET", "/v2/")
    assert capfd.readouterr().err == ""
