"""Blobs come whole from registries that misbehave, and no byte more than is needed; or an error says why not."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from layerstore import reference
from layerstore.digest import Digest
from layerstore.errors import Denied, NotFound, RateLimited, RegistryError, Unreachable
from layerstore.registry.client.repository import Repository
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings
from support.properties import by_day

from .reading import all_of, noise
from .servers import memory
from .servers import quirks as ways
from .servers.listening import Answer, Seen
from .servers.quirks import Quirk, Quirks, body, content_range, cut, moved, reset, stall, status, unsatisfiable, whole
from .servers.tokens import TokenService

SIZE = 200_000
DATA = noise(SIZE)
NAME = Digest(memory.digest(DATA))
BLOBS = "/blobs/sha256:"


@pytest.fixture
def there(quirks: Quirks, opened: Callable[..., Repository]) -> Repository:
    """A repository of `quirks` that has the blob."""
    quirks.put_blob("a/b", DATA)
    return opened(quirks)


def ranges(server: Quirks) -> list[str | None]:
    """The ranges that were asked for."""
    return [seen.headers["Range"] for seen in server.asked("GET", BLOBS)]


# --- what breaks off goes on ---


@pytest.mark.parametrize("way", ["cut", "reset", pytest.param("stall", marks=pytest.mark.hasty)])
def test_a_blob_goes_on_from_the_byte_that_was_reached(quirks: Quirks, there: Repository, way: str) -> None:
    spoilt: dict[str, Quirk] = {"cut": cut(70_000), "reset": cut(70_000, reset=True), "stall": stall(70_000)}
    quirks.spoil("GET", BLOBS, spoilt[way], times=2)
    assert all_of(there.blob(NAME, SIZE)) == DATA
    if way == "reset":  # what was still in the sockets is lost
        assert quirks.sent(BLOBS) <= 1.8 * SIZE
    else:
        assert ranges(quirks) == [None, "bytes=70000-199999", "bytes=140000-199999"]
        assert quirks.sent(BLOBS) == SIZE


def test_a_blob_that_breaks_all_the_time_comes_nevertheless(
    quirks: Quirks, there: Repository, settings: Settings
) -> None:
    quirks.spoil("GET", BLOBS, cut(9_999))
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert len(quirks.requests) == 21 > settings.attempts
    assert quirks.sent(BLOBS) == SIZE


def test_a_blob_that_gets_no_further_is_given_up(quirks: Quirks, there: Repository, settings: Settings) -> None:
    quirks.spoil("GET", BLOBS, cut(0), after=1)
    quirks.spoil("GET", BLOBS, cut(30_000), times=1)
    reader = there.blob(NAME, SIZE)
    with pytest.raises(Unreachable):
        all_of(reader)
    assert reader.at == 30_000
    assert len(quirks.requests) == settings.attempts
    quirks.behave()
    assert all_of(there.blob(NAME, SIZE, start=reader.at)) == DATA[30_000:]
    # A byte at a time is no progress.
    quirks.spoil("GET", BLOBS, cut(1))
    with pytest.raises(Unreachable):
        all_of(there.blob(NAME, SIZE))


def test_a_server_without_lengths_may_break_off_too(quirks: Quirks, there: Repository) -> None:
    def cut_without_length(seen: Seen, answer: Answer) -> Answer:
        return evolve(answer, length=None, cut=50_000)

    quirks.spoil("GET", BLOBS, cut_without_length, times=3)
    assert all_of(there.blob(NAME, SIZE)) == DATA


def test_nothing_is_asked_for_at_the_end(quirks: Quirks, there: Repository) -> None:
    assert all_of(there.blob(NAME, SIZE, start=SIZE)) == b""
    assert quirks.requests == []
    with pytest.raises(ValueError, match="no offset"):
        there.blob(NAME, SIZE, start=SIZE + 1)


def test_all_ranges_have_an_end(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("GET", BLOBS, ways.only_closed())
    quirks.spoil("GET", BLOBS, cut(50_000))
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert len(ranges(quirks)) == 4
    assert all(asked is None or re.fullmatch(r"bytes=\d+-199999", asked) for asked in ranges(quirks))


def test_a_token_that_ends_in_the_middle_is_renewed(quirks: Quirks, there: Repository, tokens: TokenService) -> None:
    quirks.tokens = tokens

    def revoke(seen: Seen, answer: Answer) -> Answer:
        tokens.revoke()
        return evolve(answer, cut=60_000)

    quirks.spoil("GET", BLOBS, lambda seen, answer: revoke(seen, answer) if answer.status < 300 else answer)
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert quirks.sent(BLOBS) < SIZE + 5000


# --- ranges that are not what was asked for ---


def test_the_whole_instead_of_a_range_is_read_over(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("GET", BLOBS, cut(60_000), times=1)
    quirks.spoil("GET", BLOBS, whole(DATA), after=1, times=1)
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert quirks.sent(BLOBS) == 60_000 + SIZE


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "bytes 0-199999/200000",
        "bytes 60001-199999/200000",
        "bytes 59999-199999/200000",
        "bytes 60000-59999/200000",
        "bytes */200000",
        "60000-199999/200000",
        "bytes 60000-100/*",
        "bytes -1-199999/200000",
        "bytes 99999999999999999999-199999/200000",
    ],
)
def test_a_range_that_may_be_another_is_not_taken(quirks: Quirks, there: Repository, text: str | None) -> None:
    quirks.spoil("GET", BLOBS, cut(60_000), times=1)
    if text is not None and (match := re.fullmatch(r"bytes (\d{1,6})-199999/200000", text)):
        quirks.spoil("GET", BLOBS, body(DATA[int(match[1]) :]), after=1, times=1)
    quirks.spoil("GET", BLOBS, content_range(text), after=1, times=1)
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert ranges(quirks) == [None, "bytes=60000-199999", None]


def test_a_range_may_be_shorter_than_what_was_asked_for(quirks: Quirks, there: Repository) -> None:
    def shorter(seen: Seen, answer: Answer) -> Answer:
        first = int((seen.headers["Range"] or "bytes=0").removeprefix("bytes=").partition("-")[0])
        last = min(first + 49_999, SIZE - 1)
        return evolve(
            answer, headers=answer.headers | {"Content-Range": f"bytes {first}-{last}/*"}, body=DATA[first : last + 1]
        )

    quirks.spoil("GET", BLOBS, shorter)
    assert all_of(there.blob(NAME, SIZE, start=10_000)) == DATA[10_000:]
    assert quirks.sent(BLOBS) == SIZE - 10_000


@pytest.mark.parametrize("form", [unsatisfiable(SIZE), status(416), status(416, "UNSUPPORTED")])
def test_after_a_416_the_blob_comes_from_its_first_byte(
    quirks: Quirks, there: Repository, form: Quirk, settings: Settings
) -> None:
    """docker-registry's says the length of the blob, and sends 33 bytes: nobody waits for the rest."""
    quirks.spoil("GET", BLOBS, cut(60_000), times=1)
    quirks.spoil("GET", BLOBS, form, after=1, times=1)
    patient = evolve(settings, read_timeout=60.0)
    began = time.monotonic()
    with Http(patient) as http:
        assert all_of(Repository(http, patient, reference.parse(there.name)).blob(NAME, SIZE)) == DATA
    assert time.monotonic() - began < 20
    assert ranges(quirks) == [None, "bytes=60000-199999", None]
    quirks.behave()
    quirks.spoil("GET", BLOBS, status(416))
    with pytest.raises(RegistryError, match="416"):
        all_of(there.blob(NAME, SIZE, start=5))


# --- sizes that are lies ---


@pytest.mark.parametrize("claimed", [10, SIZE - 1, SIZE + 1, 1 << 40])
@pytest.mark.parametrize("start", [0, 7])
def test_another_size_than_the_descriptor_says_is_an_error(
    quirks: Quirks, there: Repository, claimed: int, start: int
) -> None:
    with pytest.raises(RegistryError, match=f"has 200000 bytes, not {claimed} as its descriptor says"):
        all_of(there.blob(NAME, claimed, start=start))
    assert len(quirks.requests) == 1


@pytest.mark.parametrize("length", [None, "200000"])
def test_a_body_without_an_end_is_read_no_further_than_the_blob(
    quirks: Quirks, there: Repository, length: str | None
) -> None:
    quirks.spoil("GET", BLOBS, ways.endless(length=length))
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert quirks.sent(BLOBS) < SIZE + (16 << 20)


def test_a_web_page_is_not_the_blob(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("GET", BLOBS, ways.html())
    with pytest.raises(RegistryError, match="not 200000 as its descriptor says"):
        all_of(there.blob(NAME, SIZE))


# --- what is refused ---


def test_what_a_registry_refuses_in_the_middle_is_told(quirks: Quirks, there: Repository) -> None:
    for spoilt, error in (
        (status(404, "BLOB_UNKNOWN"), NotFound),
        (status(403, "DENIED"), Denied),
        (status(429, "TOOMANYREQUESTS", Retry_After="3600"), RateLimited),
        (status(500), Unreachable),
        (status(451), RegistryError),
    ):
        quirks.behave()
        quirks.spoil("GET", BLOBS, cut(60_000), times=1)
        quirks.spoil("GET", BLOBS, spoilt, after=1)
        reader = there.blob(NAME, SIZE)
        with pytest.raises(error) as caught:
            all_of(reader)
        assert reader.at == 60_000
        assert caught.value.remedy or type(caught.value) is RegistryError


def test_a_limit_that_ends_soon_is_waited_for(quirks: Quirks, there: Repository) -> None:
    quirks.spoil("GET", BLOBS, status(429, "TOOMANYREQUESTS", Retry_After="1"), times=1)
    assert all_of(there.blob(NAME, SIZE)) == DATA


# --- redirects ---


def test_a_blob_that_lies_elsewhere_is_asked_for_anew_each_time(
    quirks: Quirks, elsewhere: Quirks, there: Repository, tokens: TokenService
) -> None:
    """As with a CDN whose URLs last for minutes; it never sees who asks the registry."""
    elsewhere.put_blob("a/b", DATA)
    quirks.tokens = tokens
    quirks.spoil(
        "GET", BLOBS, lambda seen, answer: moved(elsewhere.url)(seen, answer) if answer.status < 300 else answer
    )
    elsewhere.spoil("GET", BLOBS, cut(80_000))
    assert all_of(there.blob(NAME, SIZE)) == DATA
    assert ranges(elsewhere) == [None, "bytes=80000-199999", "bytes=160000-199999"]
    assert len(quirks.asked("GET", BLOBS)) == 4  # the first wanted a token
    assert {seen.authorization for seen in elsewhere.requests} == {None}
    assert elsewhere.sent() == SIZE


# --- whatever happens ---


def misbehaviours() -> st.SearchStrategy[Any]:
    """Ways to spoil an answer that has bytes of the blob."""
    offsets = st.integers(0, 5000)
    return st.one_of(
        offsets.map(cut),
        offsets.map(lambda at: cut(at, reset=True)),
        st.just(whole(DATA[:5000])),
        st.just(reset()),
        st.just(unsatisfiable(5000)),
        st.sampled_from([416, 500, 503, 408]).map(status),
        st.just(ways.without_length()),
        st.sampled_from([None, "bytes 0-4999/5000", "bytes 17-4999/*", "x"]).map(content_range),
        st.just(lambda seen, answer: answer),
    )


@given(spoilt=st.lists(misbehaviours(), max_size=12), start=st.integers(0, 5000))
@by_day(40)
def test_the_bytes_are_right_or_there_are_none(spoilt: list[Quirk], start: int) -> None:
    from layerstore import reference

    data = DATA[:5000]
    settings = Settings(attempts=40, pause=0.0001, read_timeout=20.0, longest_pause=0.1)
    with Quirks() as server, Http(settings) as http:
        name = Digest(server.put_blob("a/b", data))
        for number, quirk in enumerate(spoilt):
            server.spoil("GET", BLOBS, quirk, after=number, times=1)
        there = Repository(http, settings, reference.parse(f"{server.host}/a/b"))
        try:
            found = all_of(there.blob(name, len(data), start=start), piece=700)
        except RegistryError as error:
            # 416 is an answer to a range; who gives it to the whole refuses.
            found = data[start:] if error.status == 416 else b"an error"
        assert found == data[start:]
