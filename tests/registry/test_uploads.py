"""Blobs go into registries that differ: mounted, at once, in chunks; and what breaks on the way is mended."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable

import pytest
from attrs import evolve

from layerstore.digest import Digest
from layerstore.errors import Denied, KernelError, LayerstoreError, RegistryError, Unreachable
from layerstore.registry.client import uploads
from layerstore.registry.client.repository import Repository
from layerstore.registry.client.uploads import Sent
from layerstore.registry.transport.http import Body, Http
from layerstore.registry.transport.settings import Settings

from .reading import all_of, noise
from .servers import memory
from .servers.debian import DockerRegistry
from .servers.listening import Answer, Seen
from .servers.quirks import Quirks, hang_up, headers, moved, reset, silence, status, too_large
from .servers.tokens import TokenService

BOTH = ("pull", "push")
CHUNK = 100_000
DATA = noise(3 * CHUNK + 1)
NAME = Digest(memory.digest(DATA))
UPLOADS = "/blobs/uploads/"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 100 kB, and no host remembered."""
    monkeypatch.setattr(uploads, "CHUNK", CHUNK)
    monkeypatch.setattr(uploads, "_LEAST_CHUNK", CHUNK // 4)
    monkeypatch.setattr(uploads, "_chunks_of", {})


@pytest.fixture
def there(quirks: Quirks, opened: Callable[..., Repository]) -> Repository:
    """A repository of `quirks` that may be written to."""
    return opened(quirks, actions=BOTH)


def methods(server: Quirks) -> list[str]:
    """The methods of the requests that concern uploads."""
    return [seen.method for seen in server.asked(path=UPLOADS)]


# --- the usual ---


def test_a_blob_is_sent_at_once(quirks: Quirks, there: Repository) -> None:
    told: list[int] = []
    assert there.upload(NAME, Body.of(DATA), progress=told.append) is Sent.SENT
    assert quirks.blobs["a/b", NAME] == DATA
    assert methods(quirks) == ["POST", "PUT"]
    assert [seen.headers["Accept"] for seen in quirks.requests] == [None] * 3
    assert quirks.requests[-1].headers["Content-Type"] == "application/octet-stream"
    assert told[-1] == len(DATA)
    assert told == sorted(told)


def test_what_is_there_is_not_sent(quirks: Quirks, there: Repository) -> None:
    quirks.put_blob("a/b", DATA)
    assert there.upload(NAME, Body(len(DATA), never)) is Sent.PRESENT
    assert [seen.method for seen in quirks.requests] == ["HEAD"]
    quirks.forget()
    assert there.upload(NAME, Body.of(DATA), is_asked=True) is Sent.SENT
    assert "HEAD" not in [seen.method for seen in quirks.requests]


def never() -> io.BytesIO:
    raise AssertionError("nobody should read it")


@pytest.mark.parametrize("form", ["relative", "absolute"])
def test_the_newest_location_counts_with_its_query(quirks: Quirks, there: Repository, form: str) -> None:
    quirks.relative = form == "relative"
    uploads._chunks_of[quirks.host] = CHUNK
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    states = [seen.target.partition("?")[2].partition("&")[0] for seen in quirks.asked("PATCH")]
    assert states == [f"_state=a%2Bb%2F{number}%3D" for number in range(2, 6)]
    [last] = quirks.asked("PUT")
    assert last.target.partition("?")[2] == f"_state=a%2Bb%2F6%3D&digest=sha256%3A{NAME[7:]}"
    assert last.headers["Content-Length"] == "0"


def test_a_blob_of_unknown_size_is_sent_as_docker_does(
    quirks: Quirks, there: Repository, docker_registry: DockerRegistry, opened: Callable[..., Repository]
) -> None:
    assert there.upload(NAME, Body(None, lambda: io.BytesIO(DATA))) is Sent.SENT
    assert methods(quirks) == ["POST", "PATCH", "PUT"]
    real = opened(docker_registry, "unknown/size", actions=BOTH)
    assert real.upload(NAME, Body(None, lambda: io.BytesIO(DATA))) is Sent.SENT
    assert real.has_blob(NAME) == len(DATA)


def test_docker_registry_takes_chunks(docker_registry: DockerRegistry, opened: Callable[..., Repository]) -> None:
    there = opened(docker_registry, "in/chunks", actions=BOTH)
    uploads._chunks_of[docker_registry.host] = CHUNK
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert all_of(there.blob(NAME, len(DATA))) == DATA


# --- mounting ---


def test_a_blob_is_mounted(quirks: Quirks, there: Repository) -> None:
    quirks.put_blob("c/d", DATA)
    assert there.upload(NAME, Body(len(DATA), never), mount_from=["a/b", "c/d"]) is Sent.MOUNTED
    assert methods(quirks) == ["POST"]
    assert quirks.blobs["a/b", NAME] == DATA


def test_docker_registry_mounts_with_rights_to_both(
    token_registry: tuple[DockerRegistry, TokenService], opened: Callable[..., Repository]
) -> None:
    registry, tokens = token_registry
    tokens.anonymous = BOTH
    try:
        assert opened(registry, "mount/one", actions=BOTH).upload(NAME, Body.of(DATA)) is Sent.SENT
        tokens.forget()
        two = opened(registry, "mount/two", actions=BOTH)
        assert two.upload(NAME, Body(len(DATA), never), mount_from=["mount/one"]) is Sent.MOUNTED
        scopes = {scope for seen in tokens.requests for scope in seen.query["scope"]}
        assert scopes >= {"repository:mount/one:pull", "repository:mount/two:pull,push"}
    finally:
        tokens.anonymous = ("pull",)


def test_where_a_mount_is_not_done_its_session_is_used(quirks: Quirks, there: Repository) -> None:
    assert there.upload(NAME, Body.of(DATA), mount_from=["c/d"]) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT"]
    quirks.forget()
    del quirks.blobs["a/b", NAME]
    assert there.upload(NAME, Body.of(DATA), mount_from=["c/d", "e/f"]) is Sent.SENT
    assert methods(quirks) == ["POST", "DELETE", "POST", "PUT"]
    assert quirks.uploads == {}


@pytest.mark.parametrize("code", [401, 403, 404, 405, 400])
def test_a_refused_mount_is_no_failure(quirks: Quirks, there: Repository, code: int) -> None:
    quirks.spoil("POST", UPLOADS, status(code, "DENIED"), times=1)
    assert there.upload(NAME, Body.of(DATA), mount_from=["c/d"]) is Sent.SENT


def test_a_mount_asks_for_the_right_to_read_its_source(quirks: Quirks, there: Repository, tokens: TokenService) -> None:
    tokens.anonymous = BOTH
    quirks.tokens, quirks.scope_in_challenge = tokens, False
    quirks.put_blob("c/d", DATA)
    assert there.upload(NAME, Body(len(DATA), never), mount_from=["c/d"]) is Sent.MOUNTED
    # A token service may give nothing at all where it does not give all.
    tokens.refused.add("e/f")
    quirks.blobs.clear()
    assert there.upload(NAME, Body.of(DATA), mount_from=["e/f"]) is Sent.SENT


# --- too large ---


def test_a_blob_that_is_too_large_at_once_goes_in_chunks(quirks: Quirks, there: Repository) -> None:
    quirks.refuse("PUT", UPLOADS, too_large(2 * CHUNK))
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT", "POST", "PATCH", "PATCH", "PATCH", "PATCH", "PUT"]
    ranges = [seen.headers["Content-Range"] for seen in quirks.asked("PATCH")]
    assert ranges == ["0-99999", "100000-199999", "200000-299999", "300000-300000"]
    # Remembered of the host: the next one is not tried at once; a small one is.
    quirks.forget()
    other = noise(2 * CHUNK, seed=2)
    assert there.upload(Digest(memory.digest(other)), Body.of(other)) is Sent.SENT
    assert methods(quirks) == ["POST", "PATCH", "PATCH", "PUT"]
    quirks.forget()
    assert there.upload(Digest(memory.digest(b"small")), Body.of(b"small")) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT"]


def test_it_is_told_in_the_middle_or_not_at_all(quirks: Quirks, there: Repository) -> None:
    for refuse in (too_large(2 * CHUNK, read=50_000), hang_up(2 * CHUNK), hang_up(2 * CHUNK, read=70_000)):
        quirks.behave()
        quirks.blobs.clear()
        uploads._chunks_of.clear()
        quirks.refuse("PUT", UPLOADS, refuse)
        assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
        assert quirks.blobs["a/b", NAME] == DATA
        assert uploads._chunks_of == {quirks.host: CHUNK}


def test_chunks_become_smaller_where_they_are_too_large(quirks: Quirks, there: Repository) -> None:
    quirks.refuse(None, UPLOADS, too_large(CHUNK // 3))
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert uploads._chunks_of == {quirks.host: CHUNK // 4}
    quirks.behave()
    quirks.blobs.clear()
    quirks.refuse(None, UPLOADS, too_large(1000))
    with pytest.raises(RegistryError, match="413"):
        there.upload(NAME, Body.of(DATA))


def test_chunks_have_at_least_what_the_registry_wants(quirks: Quirks, there: Repository) -> None:
    quirks.chunk_min = 140_000
    uploads._chunks_of[quirks.host] = CHUNK
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert [len(seen.body) for seen in quirks.asked("PATCH")] == [140_000, 140_000, 20_001]
    quirks.forget()
    quirks.blobs.clear()
    quirks.chunk_min = 1 << 50  # whoever says so gets it at once
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT"]


# --- what breaks ---


def test_the_registry_says_where_chunks_go_on(quirks: Quirks, there: Repository, settings: Settings) -> None:
    """A chunk that was cut, in each of three ways to notice it: never more is sent than is missing."""
    uploads._chunks_of[quirks.host] = CHUNK

    def half(seen: Seen, answer: Answer) -> Answer:
        [content] = quirks.uploads.values()
        del content[150_000:]
        return quirks._upload(202, "a/b", next(iter(quirks.uploads)))

    def half_and_reset(seen: Seen, answer: Answer) -> Answer:
        half(seen, answer)
        return Answer(reset=True)

    for spoilt in (half, half_and_reset):
        quirks.behave()
        quirks.blobs.clear()
        quirks.forget()
        quirks.spoil("PATCH", UPLOADS, spoilt, after=1, times=1)
        assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
        starts = [int(seen.headers["Content-Range"].partition("-")[0]) for seen in quirks.asked("PATCH")]
        assert starts == [0, 100_000, 150_000, 250_000]
    # 416: the registry has more than we know of.
    quirks.behave()
    quirks.blobs.clear()
    quirks.forget()
    quirks.spoil("PATCH", UPLOADS, headers(Range="0-49999"), times=1)
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert methods(quirks) == ["POST", "PATCH", "PATCH", "GET", "PATCH", "PATCH", "PATCH", "PUT"]
    # 0-0 is what docker-registry says where it has nothing.
    quirks.behave()
    quirks.blobs.clear()
    quirks.forget()

    def forgotten(seen: Seen, answer: Answer) -> Answer:
        [content] = quirks.uploads.values()
        content.clear()
        return quirks._upload(202, "a/b", next(iter(quirks.uploads)))

    quirks.spoil("PATCH", UPLOADS, forgotten, times=1)
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert methods(quirks) == ["POST", *["PATCH"] * 5, "PUT"]
    # One that never gets further is given up.
    quirks.behave()
    quirks.blobs.clear()
    quirks.refuse("PATCH", UPLOADS, hang_up(0))
    with pytest.raises(Unreachable):
        there.upload(NAME, Body.of(DATA))


def test_a_connection_that_breaks_is_followed_by_a_new_session(quirks: Quirks, there: Repository) -> None:
    small = DATA[:5000]
    name = Digest(memory.digest(small))
    quirks.refuse("PUT", UPLOADS, hang_up(0, read=1000), times=2)
    assert there.upload(name, Body.of(small)) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT"] * 3
    quirks.refuse("PUT", UPLOADS, hang_up(0))
    quirks.blobs.clear()
    with pytest.raises(Unreachable):
        there.upload(name, Body.of(small))


def test_where_a_line_breaks_often_chunks_become_smaller(quirks: Quirks, there: Repository) -> None:
    """Bodies of more than 30 kB hardly ever arrive, and nobody says why."""
    quirks.refuse("PUT", UPLOADS, hang_up(30_000, read=20_000))
    quirks.refuse("PATCH", UPLOADS, hang_up(30_000, read=20_000))
    blob = DATA[:90_000]
    assert there.upload(Digest(memory.digest(blob)), Body.of(blob)) is Sent.SENT
    assert [len(seen.body) for seen in quirks.asked("PATCH")][1:] == [25_000, 25_000, 25_000, 15_000]
    # It says nothing of the host.
    assert uploads._chunks_of == {}


def test_an_upload_that_is_dropped_with_its_broken_chunk_is_begun_again(
    quirks: Quirks, there: Repository, settings: Settings
) -> None:
    """As docker-registry does; if it never works, the error is the line's."""
    uploads._chunks_of[quirks.host] = CHUNK
    quirks.refuse("PATCH", UPLOADS, hang_up(0), times=1)
    quirks.spoil("GET", UPLOADS, status(404, "BLOB_UPLOAD_INVALID"))
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    quirks.forget()
    quirks.blobs.clear()
    quirks.refuse("PATCH", UPLOADS, hang_up(0))
    with pytest.raises(Unreachable):
        there.upload(NAME, Body.of(DATA))
    assert methods(quirks) == ["POST", "PATCH", "GET"] * settings.attempts


@pytest.mark.hasty
def test_a_blob_may_have_arrived_although_nobody_said_so(quirks: Quirks, there: Repository) -> None:
    for lost in (reset(), silence()):
        quirks.blobs.clear()
        quirks.forget()
        quirks.spoil("PUT", UPLOADS, lost, times=1)
        assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
        assert methods(quirks) == ["POST", "PUT"]


@pytest.mark.hasty
def test_a_registry_that_needs_long_for_a_large_blob_is_waited_for(
    quirks: Quirks, there: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_COPYING", len(DATA) // 3)

    def copy(seen: Seen, answer: Answer) -> Answer:
        del quirks.blobs["a/b", NAME]
        threading.Timer(2.5, quirks.put_blob, ("a/b", DATA)).start()
        return evolve(answer, stall=-1)

    quirks.spoil("PUT", UPLOADS, copy, times=1)
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT"]


def test_a_wrong_digest_gets_one_more_session(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("PUT", UPLOADS, status(400, "DIGEST_INVALID"), times=1)
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert len({seen.path for seen in quirks.asked("PUT")}) == 2
    quirks.forget()
    with pytest.raises(RegistryError, match="DIGEST_INVALID") as caught:
        there.upload(Digest("sha256:" + "0" * 64), Body.of(DATA))
    assert "sending blob sha256:000" in str(caught.value)
    assert methods(quirks) == ["POST", "PUT"] * 2


def test_a_session_that_is_forgotten_is_begun_again(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("PUT", UPLOADS, status(404, "BLOB_UPLOAD_UNKNOWN"), times=1)
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT"] * 2


def test_a_registry_that_takes_only_what_comes_at_once(quirks: Quirks, there: Repository) -> None:
    """Artifactory, which keeps the last chunk only, and Google's, which knows no chunks."""
    uploads._chunks_of[quirks.host] = CHUNK

    def keep_the_last(seen: Seen, answer: Answer) -> Answer:
        for content in quirks.uploads.values():
            content[:] = seen.body
        return Answer(202, answer.headers | {"Range": seen.headers["Content-Range"]})

    for spoilt in (keep_the_last, status(405, "UNSUPPORTED"), status(400)):
        quirks.behave()
        quirks.blobs.clear()
        quirks.forget()
        quirks.uploads.clear()
        quirks.spoil("PATCH", UPLOADS, spoilt)
        assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
        assert methods(quirks)[-2:] == ["POST", "PUT"]
        assert quirks.blobs["a/b", NAME] == DATA


def test_a_registry_that_takes_no_put_of_all(quirks: Quirks, there: Repository) -> None:
    quirks.refuse("PUT", UPLOADS, lambda seen: Answer(405) if int(seen.headers["Content-Length"]) else None)
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert methods(quirks) == ["POST", "PUT", "POST", "PATCH", "PUT"]


def test_what_may_not_be_written_is_denied(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("POST", UPLOADS, status(403, "DENIED", "you \x1b[31mmay not"))
    with pytest.raises(Denied, match="beginning an upload to") as caught:
        there.upload(NAME, Body(len(DATA), never))
    assert "\x1b" not in str(caught.value)
    assert len(quirks.asked("POST")) == 1


def test_an_upload_without_a_location_is_an_error(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("POST", UPLOADS, headers(Location=None))
    with pytest.raises(RegistryError, match="no Location"):
        there.upload(NAME, Body.of(DATA))


def test_an_upload_elsewhere_is_not_told_who_we_are(
    quirks: Quirks, elsewhere: Quirks, there: Repository, tokens: TokenService
) -> None:
    tokens.anonymous = BOTH
    quirks.tokens = tokens
    elsewhere.uploads["session1"] = bytearray()
    quirks.spoil("POST", UPLOADS, headers(Location=f"{elsewhere.url}/v2/a/b/blobs/uploads/session1?x=y"))
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert elsewhere.blobs["a/b", NAME] == DATA
    assert [seen.authorization for seen in elsewhere.requests] == [None]
    assert quirks.asked("POST")[-1].authorization is not None


def test_a_put_that_is_redirected_is_sent_again(quirks: Quirks, elsewhere: Quirks, there: Repository) -> None:
    elsewhere.uploads["session1"] = bytearray()
    quirks.spoil("PUT", UPLOADS, moved(elsewhere.url))
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert elsewhere.blobs["a/b", NAME] == DATA


def test_a_token_that_ends_in_the_middle_is_renewed(quirks: Quirks, there: Repository, tokens: TokenService) -> None:
    tokens.anonymous = BOTH
    quirks.tokens = tokens
    uploads._chunks_of[quirks.host] = CHUNK

    def revoke(seen: Seen, answer: Answer) -> Answer:
        tokens.revoke()
        return answer

    quirks.spoil(None, UPLOADS, revoke)
    assert there.upload(NAME, Body.of(DATA)) is Sent.SENT
    assert quirks.blobs["a/b", NAME] == DATA


# --- what is read ---


def test_a_source_that_fails_is_not_taken_for_the_network(quirks: Quirks, there: Repository) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 50_000:
                raise OSError(5, "Input/output error")
            return super().read(min(size or 0, 10_000))

    with pytest.raises(KernelError, match="read"):
        there.upload(NAME, Body(len(DATA), lambda: Broken(DATA)))
    assert len(quirks.asked("POST")) == 1


def test_a_source_that_is_too_short_is_an_error(quirks: Quirks, there: Repository) -> None:
    with pytest.raises(LayerstoreError, match="ends after 1000 bytes, and should have 2000"):
        there.upload(NAME, Body(2000, lambda: io.BytesIO(DATA[:1000])))
    assert quirks.blobs == {}


def test_a_source_is_read_once_and_closed(quirks: Quirks, there: Repository) -> None:
    made: list[io.BytesIO] = []

    def make() -> io.BytesIO:
        made.append(io.BytesIO(DATA))
        return made[-1]

    uploads._chunks_of[quirks.host] = CHUNK
    assert there.upload(NAME, Body(len(DATA), make)) is Sent.SENT
    assert len(made) == 1
    quirks.blobs.clear()
    quirks.refuse("PATCH", UPLOADS, hang_up(0, read=10), times=1, after=1)
    assert there.upload(NAME, Body(len(DATA), make)) is Sent.SENT
    assert all(stream.closed for stream in made)


def test_many_go_at_once(quirks: Quirks, there: Repository, http: Http) -> None:
    from concurrent.futures import ThreadPoolExecutor

    blobs = [noise(20_000, seed) for seed in range(20)]
    with ThreadPoolExecutor(5) as pool:
        sent = list(pool.map(lambda data: there.upload(Digest(memory.digest(data)), Body.of(data)), blobs))
    assert sent == [Sent.SENT] * 20
    assert set(quirks.blobs.values()) == set(blobs)
    assert quirks.connections <= 5
