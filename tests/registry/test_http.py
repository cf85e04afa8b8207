"""One request and its reply: again where that helps, elsewhere where that is safe, and never for ever."""

from __future__ import annotations

import errno
import io
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest
from attrs import evolve

from layerstore.errors import NotFound, RateLimited, RegistryError, Unreachable
from layerstore.registry.transport.connections import Incoming
from layerstore.registry.transport.http import Body

from .asking import MANIFEST, SETTINGS, Asking, asking, hasty
from .servers import quirks as act
from .servers.listening import Answer, Seen
from .servers.quirks import Quirks
from .servers.tokens import TokenService


@pytest.fixture
def client() -> Iterator[Asking]:
    with asking() as http:
        yield http


@pytest.fixture(autouse=True)
def manifest(quirks: Quirks) -> str:
    """There is something to ask for."""
    return quirks.put_manifest("team/app", "latest", {"schemaVersion": 2})


def test_a_reply_is_what_the_registry_sent(quirks: Quirks, client: Asking) -> None:
    with client.get(quirks.host) as reply:
        assert reply.status == 200
        assert reply.headers["content-TYPE"].startswith("application/vnd.oci.image.manifest")
        assert reply.document(1000) == b'{"schemaVersion": 2}'
        assert reply.url == f"{quirks.url}{MANIFEST}"
    with client.get(quirks.host, "/v2/team/app/manifests/none") as reply:
        assert reply.status == 404


def test_many_requests_need_one_connection(quirks: Quirks, client: Asking) -> None:
    client.get(quirks.host, method="HEAD").close()
    for target in (MANIFEST, "/v2/team/app/manifests/none", MANIFEST):
        client.get(quirks.host, target).close()  # a short body that nobody wants is no reason to hang up
    with client.get(quirks.host) as reply:
        reply.document(1000)

    assert quirks.connections == 1


def test_it_says_who_asks_and_wants_no_compression(quirks: Quirks, client: Asking) -> None:
    client.get(quirks.host).close()

    [seen] = quirks.asked()
    assert seen.headers["User-Agent"].startswith("layerstore/")
    assert seen.headers["Accept-Encoding"] == "identity"
    assert seen.authorization is None


def test_a_body_is_sent_with_its_length_or_in_chunks(quirks: Quirks, client: Asking) -> None:
    endpoint = client.endpoint(quirks.host)
    location = client.request(endpoint, "POST", "/v2/team/app/blobs/uploads/").headers["Location"]
    data = b"0123456789" * 100_000
    for size in (len(data), None):
        body = Body(size, lambda: io.BytesIO(data))
        with client.request(endpoint, "PATCH", location, body=body) as reply:
            assert reply.status == 202
            location = reply.headers["Location"]

    first, second = quirks.asked("PATCH")
    assert (first.headers["Content-Length"], second.headers["Transfer-Encoding"]) == ("1000000", "chunked")
    assert first.body == second.body == data


# ---- again


@pytest.mark.parametrize("spoil", [act.status(500), act.status(502), act.status(503), act.status(504), act.reset()])
def test_what_may_pass_is_asked_again(quirks: Quirks, client: Asking, spoil: act.Quirk) -> None:
    client.get(quirks.host, "/v2/").close()
    quirks.spoil("GET", "manifests", spoil, times=4)

    with client.get(quirks.host) as reply:
        assert reply.status == 200
    assert len(quirks.asked(path="manifests")) == 5


def test_in_the_end_the_status_that_is_left_is_the_answer(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.status(503))

    with client.get(quirks.host) as reply:
        failure = reply.failure("reading app")
    assert isinstance(failure, Unreachable)
    assert failure.message == f"reading app: {quirks.host} answered 503 Service Unavailable"
    assert len(quirks.asked()) == 5


@pytest.mark.parametrize("spoil", [act.status(500), act.reset()])
def test_what_may_have_been_done_is_not_asked_again_unless_that_is_right(
    quirks: Quirks, client: Asking, spoil: act.Quirk
) -> None:
    endpoint = client.endpoint(quirks.host)
    client.get(quirks.host, "/v2/").close()
    quirks.spoil("POST", "uploads", spoil, times=2)

    def post(repeat: bool | None) -> int | None:  # noqa: FBT001
        try:
            with client.request(endpoint, "POST", "/v2/team/app/blobs/uploads/", repeat=repeat) as reply:
                return reply.status
        except Unreachable:
            return None

    assert post(None) in (500, None)
    assert len(quirks.asked("POST")) == 1
    assert post(True) == 202
    assert len(quirks.asked("POST")) == 3


def test_a_body_is_sent_anew_from_its_beginning(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("PUT", "manifests", act.status(502), times=1)
    opened = []

    def open_it() -> io.BytesIO:
        opened.append(io.BytesIO(b"{}"))
        return opened[-1]

    endpoint = client.endpoint(quirks.host)
    with client.request(endpoint, "PUT", "/v2/team/app/manifests/2", body=Body(2, open_it), repeat=True) as reply:
        assert reply.status == 201
    assert len(opened) == 2
    assert all(stream.closed for stream in opened)


@pytest.mark.parametrize("failure", [NotFound("the layer is gone"), OSError(errno.EIO, "the disk is gone")])
def test_an_error_of_what_a_body_is_read_from_is_passed_on(quirks: Quirks, client: Asking, failure: Exception) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise failure

    with pytest.raises(type(failure), match="is gone") as caught:
        client.request(client.endpoint(quirks.host), "PUT", "/v2/", body=Body(10, Broken), repeat=True)
    assert caught.value is failure
    assert len(quirks.asked()) <= 1


def test_nobody_there_is_said_at_once(client: Asking, closed_port: int) -> None:
    host = f"127.0.0.1:{closed_port}"

    with pytest.raises(Unreachable, match=f"{host} cannot be reached: Connection refused"):
        client.get(host)


def test_a_name_that_nobody_knows_is_said_at_once(client: Asking) -> None:
    with pytest.raises(Unreachable, match=r"registry\.invalid"):
        client.get("registry.invalid")


# ---- limits


@pytest.mark.parametrize(("code", "form"), [(429, "seconds"), (503, "date")])
def test_a_wait_that_is_asked_for_is_kept_and_told(quirks: Quirks, client: Asking, code: int, form: str) -> None:
    after = "1" if form == "seconds" else formatdate(time.time() + 2.2, usegmt=True)
    quirks.spoil("GET", "manifests", act.status(code, Retry_After=after), times=1)
    began = time.monotonic()

    with client.get(quirks.host) as reply:
        assert reply.status == 200
    assert time.monotonic() - began >= 0.9
    assert client.heard[0].startswith(f"{quirks.host} asks to wait for ")


def test_a_long_wait_is_an_error_that_says_until_when(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.status(429, "TOOMANYREQUESTS", Retry_After="3600"))
    began = time.time()

    with pytest.raises(RateLimited, match=f"{quirks.host} answers no more requests for now") as caught:
        client.get(quirks.host)

    assert caught.value.until == pytest.approx(began + 3600, abs=5)
    until = time.localtime(caught.value.until)
    is_today = until.tm_yday == time.localtime(began).tm_yday
    clock = time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", until)
    assert f"from {clock} on" in str(caught.value)
    assert f"`layerstore login {quirks.host}`" in str(caught.value)
    assert len(quirks.asked()) == 1


def test_a_service_that_is_out_for_long_says_until_when(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.status(503, Retry_After="3600"))

    with pytest.raises(RateLimited, match="is out of service for now"):
        client.get(quirks.host)


@pytest.mark.parametrize("after", ["", "soon", "-5", "1e9", "Fri, 99 Foo 2026", "999999999999999999999"])
def test_a_wait_that_cannot_be_read_is_ours_to_choose(quirks: Quirks, client: Asking, after: str) -> None:
    quirks.spoil("GET", "manifests", act.status(429, Retry_After=after), times=1)

    assert client.status(quirks.host) == 200


def test_hubs_limit_is_told_in_words(quirks: Quirks, client: Asking) -> None:
    used_up = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": "0;w=21600"}
    quirks.spoil("GET", "manifests", act.status(429, "TOOMANYREQUESTS", "You have reached your limit", **used_up))

    with client.get(quirks.host) as reply:
        failure = reply.failure("reading app")

    assert isinstance(failure, RateLimited)
    assert "100 are allowed in 6 hours" in str(failure)
    assert len(quirks.asked()) == 1, "asking again would only count once more"


def test_the_end_of_a_limit_is_announced_once(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.headers(RateLimit_Limit="100;w=21600", RateLimit_Remaining="3;w=21600"))

    for _ in range(3):
        client.get(quirks.host).close()

    assert client.heard == [f"{quirks.host} allows 3 more requests of 100 in 6 hours"]


def test_a_warning_is_told_once_and_harmless(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.headers(Warning='299 - "Moving \\"soon\\" \x1b[31mred"'))
    quirks.spoil("GET", "tags", act.headers(Warning="nonsense"))

    for target in (MANIFEST, MANIFEST, "/v2/team/app/tags/list"):
        client.get(quirks.host, target).close()

    assert client.heard == [f'{quirks.host} warns: Moving "soon" \\x1b[31mred']


def test_closing_ends_a_wait(quirks: Quirks) -> None:
    quirks.spoil("GET", "manifests", act.status(429, Retry_After="50"))
    with asking(longest_pause=60.0) as client:
        threading.Timer(0.1, client.close).start()
        with pytest.raises(Unreachable, match="given up"):
            client.get(quirks.host)


# ---- elsewhere


def test_redirects_are_followed(quirks: Quirks, elsewhere: Quirks, client: Asking) -> None:
    elsewhere.put_manifest("team/app", "latest", {"schemaVersion": 2})
    for code in (301, 302, 303, 307, 308):
        quirks.behave()
        quirks.spoil("GET", "manifests", act.moved(elsewhere.url, code))
        with client.get(quirks.host) as reply:
            assert reply.document(1000) == b'{"schemaVersion": 2}'
            assert reply.url.startswith(elsewhere.url)


def test_a_loop_of_redirects_ends(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.moved(MANIFEST))

    with pytest.raises(RegistryError, match="more than 10 times"):
        client.get(quirks.host)
    assert len(quirks.asked()) == 11


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://host/file", "gopher://x", "https:///v2/", "https://[", "javascript:alert(1)"]
)
def test_what_is_not_http_is_not_followed(quirks: Quirks, client: Asking, place: str) -> None:
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(307, {"Location": place}))

    with pytest.raises(RegistryError, match="which is no URL of HTTP") as caught:
        client.get(quirks.host)
    assert "Nothing was sent there" in str(caught.value)


def test_the_signature_of_a_url_is_in_no_error(quirks: Quirks, client: Asking) -> None:
    secret = "ftp://anna:secret@bucket/blob?X-Amz-Signature=secret"
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(307, {"Location": secret}))

    with pytest.raises(RegistryError, match="ftp://bucket/blob") as caught:
        client.get(quirks.host)
    assert "secret" not in str(caught.value)


def test_a_name_and_password_in_a_redirect_are_nobodys(quirks: Quirks, elsewhere: Quirks, client: Asking) -> None:
    elsewhere.put_manifest("team/app", "latest", {"schemaVersion": 2})
    place = f"http://anna:secret@{elsewhere.host}{MANIFEST}"
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(307, {"Location": place}))

    with client.get(quirks.host) as reply:
        assert (reply.status, reply.url) == (200, f"{elsewhere.url}{MANIFEST}")
    assert [seen.authorization for seen in elsewhere.asked()] == [None]


def test_a_redirect_to_nowhere_is_left_to_the_caller(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(307, {"Location": ""}))

    with client.get(quirks.host) as reply:
        assert reply.failure("reading app").message.endswith("answered 307 Temporary Redirect")


# ---- never for ever


def test_a_silent_server_is_given_up(quirks: Quirks) -> None:
    quirks.spoil("GET", "manifests", act.silence())
    began = time.monotonic()

    with asking(attempts=2, read_timeout=0.4) as client, pytest.raises(Unreachable, match=r"was silent for 0\.4 s"):
        client.get(quirks.host)
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Header: 1\r\n" * 200,
        b"HTTP/1.1 200 OK\r\nX-Header: " + b"1" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000,
        b"HTTP/1.1 banana\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        b"\0" * 1000,
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 3,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 1\r\n" * 400_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999999999999999\r\n\r\nabc",
        b"HTTP/1.1 307 OK\r\nLocation: http://[::1\r\n\r\n",
        b"HTTP/1.1 307 OK\r\nLocation: http://a b:99999/\r\n\r\n",
    ],
    ids=lambda raw: repr(raw[:60]),
)
def test_what_is_hardly_http_is_an_error_in_words(quirks: Quirks, raw: bytes) -> None:
    quirks.spoil("GET", "manifests", act.raw(raw))

    with asking(attempts=1) as client, pytest.raises(RegistryError) as caught, client.get(quirks.host) as reply:
        reply.document(100_000)

    assert caught.value.message.isprintable()
    assert caught.value.remedy


def test_a_document_has_its_limit(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.endless())
    with client.get(quirks.host) as reply, pytest.raises(RegistryError, match="more than 1,000 bytes"):
        reply.document(1000)

    quirks.behave()
    quirks.spoil("GET", "manifests", act.length("1099511627776"))
    with client.get(quirks.host) as reply, pytest.raises(RegistryError, match="more than 1,000 bytes"):
        reply.document(1000)


def test_a_document_that_breaks_off_or_stalls_is_an_error(quirks: Quirks) -> None:
    for spoil, words in (
        (act.cut(5), "broke off in the middle"),
        (act.cut(5, reset=True), "Connection reset by peer|broke off in the middle"),
        (act.stall(5), "was silent for"),
    ):
        quirks.behave()
        quirks.spoil("GET", "manifests", spoil)
        with hasty() as client, client.get(quirks.host) as reply, pytest.raises(Unreachable, match=words):
            reply.document(1000)


@pytest.mark.parametrize("spoil", [act.cut(70_001), act.stall(70_001)])
def test_nothing_that_came_is_lost_with_what_does_not_come(quirks: Quirks, spoil: act.Quirk) -> None:
    digest = quirks.put_blob("team/app", b"0123456789" * 100_000)
    quirks.spoil("GET", "blobs", spoil)
    view = memoryview(bytearray(300_000))
    got = 0

    with hasty() as client, client.get(quirks.host, f"/v2/team/app/blobs/{digest}") as reply:
        while got < 70_001:
            got += reply.readinto(view[got:])
        with pytest.raises(Unreachable):
            reply.readinto(view[got:])

    assert view[:got] == (b"0123456789" * 10_000)[:70_001]


def test_what_comes_too_slowly_is_given_up(quirks: Quirks) -> None:
    digest = quirks.put_blob("team/app", b"x" * 100_000)
    quirks.spoil("GET", "blobs", act.slow(8000))
    buffer = bytearray(1000)

    def read(count: int, slowest: int) -> None:
        with hasty(slowest=slowest) as client, client.get(quirks.host, f"/v2/team/app/blobs/{digest}") as reply:
            while count > 0:
                count -= reply.readinto(buffer)

    read(4000, slowest=500)
    with pytest.raises(Unreachable, match="sends less than 20000 bytes a second"):
        read(100_000, slowest=20_000)


def test_a_head_that_drips_is_given_up() -> None:
    with _Dripping() as host, asking(attempts=1, read_timeout=0.4, slowest=1) as client:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="takes too long"):
            client.request(client.endpoint(host), "GET", "/v2/")
        assert time.monotonic() - began < 15


class _Dripping:
    """A server that sends a byte of its head every 50 ms, to the end of the test."""

    def __enter__(self) -> str:
        self._ending = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return f"127.0.0.1:{self._listening.getsockname()[1]}"

    def _serve(self) -> None:
        connection, _ = self._listening.accept()
        with connection:
            try:
                connection.sendall(b"HTTP/1.1 200 OK\r\nX-Header: ")
                while not self._ending.wait(0.05):
                    connection.sendall(b"x")
            except OSError:
                pass

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self._listening.close()


def test_a_416_with_the_length_of_the_blob_holds_nobody_up(quirks: Quirks) -> None:
    quirks.spoil("GET", "manifests", act.unsatisfiable(1 << 30))
    began = time.monotonic()

    with asking(read_timeout=20.0, unrelated_timeout=20.0) as client:
        with client.get(quirks.host) as reply:
            assert reply.failure("resuming").message.endswith("answered 416 Requested Range Not Satisfiable")
        client.get(quirks.host).close()
    assert time.monotonic() - began < 15


# ---- in words


def test_what_a_registry_says_is_passed_on_harmless(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.status(400, "MANIFEST_INVALID", "bad \x1b[2Jthing\r\nsecond" + "x" * 1000))

    with client.get(quirks.host) as reply:
        message = reply.failure("reading app").message

    assert "answered 400 Bad Request (MANIFEST_INVALID: bad \\x1b[2Jthing second" in message
    assert message.isprintable()
    assert len(message) < 500


def test_a_web_page_is_called_one(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", act.html(403))

    with client.get(quirks.host) as reply:
        failure = reply.failure("reading app")
    assert "with a web page: it may be no registry" in failure.message
    assert "Sign in" not in failure.message


@pytest.mark.parametrize("data", [b"", b"null", b"[1]", b'{"errors": 1}', b'{"errors": [1]}', b"{" * 100_000, b"\xff"])
def test_an_error_body_may_be_anything(quirks: Quirks, client: Asking, data: bytes) -> None:
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(404, {}, data))

    with client.get(quirks.host) as reply:
        failure = reply.failure("reading app")
    assert isinstance(failure, NotFound)
    assert failure.message == f"reading app: {quirks.host} answered 404 Not Found"


def test_an_error_body_without_end_holds_nobody_up(quirks: Quirks, client: Asking) -> None:
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(500, {}, b"x" * 1000, endless=True, length=None))
    began = time.monotonic()

    with client.get(quirks.host) as reply:
        assert "500" in reply.failure("reading app").message
    assert time.monotonic() - began < 15


# ---- all of it together


def _connections_to(port: int) -> int:
    """The sockets of this process that lead there: the server's own ends come from there."""
    found = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as one:
                found += one.getpeername()[1] == port
        except (OSError, IndexError):
            pass
    return found


def test_no_connection_is_left_open(quirks: Quirks) -> None:
    import gc

    quirks.put_blob("team/app", b"x" * 300_000)
    digest = next(iter(quirks.blobs))[1]
    gc.collect()
    gc.disable()
    try:
        for spoil in (
            act.cut(5),
            act.stall(5),
            act.reset(),
            act.silence(),
            act.endless(),
            act.html(500),
            act.unsatisfiable(1 << 20),
            act.moved("file:///x"),
            act.raw(b"\0"),
            act.without_length(),
            act.headers(),
        ):
            quirks.behave()
            quirks.spoil("GET", "blobs", spoil)
            with asking(attempts=1, read_timeout=0.1, unrelated_timeout=0.1) as client:
                try:
                    with client.get(quirks.host, f"/v2/team/app/blobs/{digest}") as reply:
                        reply.readinto(bytearray(10))
                except RegistryError:
                    pass
        assert _connections_to(quirks.port) == 0
    finally:
        gc.enable()


class TestTheSocketBelowAReply:
    @pytest.fixture
    def pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Ours and the server's end of a connection, with a reply of ten bytes of which five have come."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
            yield ours, theirs

    def test_after_its_end_it_is_left_to_the_next_request(self, pair: tuple[socket.socket, socket.socket]) -> None:
        ours, theirs = pair
        reply = Incoming(ours, settings=SETTINGS)
        reply.begin()
        reply.watch.limit(SETTINGS.read_timeout, 100)
        theirs.sendall(b"56789")
        came = b""
        while count := reply.some(buffer := bytearray(10)):
            came += buffer[:count]
        assert came == b"0123456789"
        ours.settimeout(1.25)  # as another thread does, whose request it is now
        reply.watch.lift()
        assert ours.gettimeout() == 1.25

    @pytest.mark.parametrize("is_limited", [False, True])
    def test_closed_under_a_reader_it_is_a_connection_that_broke(
        self, pair: tuple[socket.socket, socket.socket], *, is_limited: bool
    ) -> None:
        ours, _ = pair
        with Incoming(ours, settings=SETTINGS) as reply:
            reply.begin()
            assert reply.some(bytearray(5)) == 5
            if is_limited:
                reply.watch.limit(SETTINGS.read_timeout, 100)
            os.close(ours.detach())
            with pytest.raises(ConnectionAbortedError, match="closed while it was read"):
                reply.some(bytearray(5))


def test_many_threads_get_through_a_bad_time(quirks: Quirks, tokens: TokenService) -> None:
    quirks.tokens = tokens
    chance = random.Random(7)

    def sometimes(seen: Seen, answer: Answer) -> Answer:
        with lock:
            dice = chance.random()
            if dice < 0.02:
                tokens.revoke()
        if dice < 0.15:
            return evolve(answer, reset=True)
        return Answer(502) if dice < 0.2 else answer

    lock = threading.Lock()
    failures: list[object] = []
    with asking(attempts=20) as client:
        client.get(quirks.host).close()
        quirks.spoil("GET", "manifests", sometimes)

        def work() -> None:
            for _ in range(15):
                try:
                    with client.get(quirks.host) as reply:
                        if reply.status != 200 or reply.document(100) != b'{"schemaVersion": 2}':
                            failures.append(reply.status)
                except RegistryError as error:
                    failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # A token may be taken back between its being given and its being shown, twice in a row: that is a 401.
    assert [failure for failure in failures if failure != 401] == []
    assert len(failures) <= 12
    assert quirks.connections < 120
