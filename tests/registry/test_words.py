"""What registries send in headers and bodies, in its parts and fit for people."""

from __future__ import annotations

import json
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.registry.transport import retries
from layerstore.registry.transport.challenges import Challenge, parse
from layerstore.registry.transport.retries import Limit, limit_of, retry_after, warnings
from layerstore.registry.transport.tokens import Rights, merged
from layerstore.registry.transport.words import Complaint, complaints, listed, printable

# ---- challenges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Basic", [("basic", {})]),
        ('Basic realm="Registry Realm"', [("basic", {"realm": "Registry Realm"})]),
        (
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
            [
                (
                    "bearer",
                    {
                        "realm": "https://auth.docker.io/token",
                        "service": "registry.docker.io",
                        "scope": "repository:a/b:pull,push",
                    },
                )
            ],
        ),
        ('BEARER REALM="x" , SERVICE = y', [("bearer", {"realm": "x", "service": "y"})]),
        ('Basic realm="a", Bearer realm="b"', [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
        ("Negotiate, Basic realm=a", [("negotiate", {}), ("basic", {"realm": "a"})]),
        ('Bearer realm="a\\"b\\\\c"', [("bearer", {"realm": 'a"b\\c'})]),
        ('Bearer realm="a, Basic realm=b"', [("bearer", {"realm": "a, Basic realm=b"})]),
        ('Bearer realm="first",realm="second"', [("bearer", {"realm": "first"})]),
        ("Bearer realm=", [("bearer", {"realm": ""})]),
        ("", []),
        (",,,", []),
        ('realm="x"', []),
        ('Bearer realm="open', [("bearer", {})]),
    ],
)
def test_a_challenge_in_its_parts(header: str, expected: list[tuple[str, dict[str, str]]]) -> None:
    found = [(challenge.scheme, dict(challenge.parameters)) for challenge in parse([header])]
    if header.endswith("open"):
        assert found[0][0] == "bearer"
        return
    assert found == expected


names = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8)


@given(
    st.lists(
        st.tuples(names, st.dictionaries(names, st.text(st.characters(codec="latin-1"), max_size=20), max_size=3)),
        max_size=3,
    )
)
def test_any_challenges_are_read_back(wanted: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    parts = []
    for scheme, parameters in wanted:
        words = ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        parts.append(f"{scheme} {words}".strip())
    read = parse([", ".join(parts)])

    assert [(one.scheme, dict(one.parameters)) for one in read] == wanted


@given(st.text(st.characters(codec="latin-1"), max_size=200))
def test_no_header_is_too_strange(text: str) -> None:
    assert all(isinstance(one, Challenge) for one in parse([text]))


# ---- scopes


def test_scopes_of_one_repository_become_one() -> None:
    assert Rights("team/app", ("pull", "push")).scope == "repository:team/app:pull,push"
    assert merged(["repository:a:pull", "repository:b:pull", "repository:a:pull,push"]) == (
        "repository:a:pull,push",
        "repository:b:pull",
    )
    assert merged(["registry:catalog:*", "repository:host:5000/a:pull"]) == (
        "registry:catalog:*",
        "repository:host:5000/a:pull",
    )
    assert merged([]) == ()


# ---- waits


def test_how_long_to_wait() -> None:
    now = 1_800_000_000.0
    assert retry_after({"Retry-After": "120"}) == 120
    assert retry_after({"Retry-After": formatdate(now + 90, usegmt=True)}, now) == 90
    assert retry_after({"Retry-After": formatdate(now - 90, usegmt=True)}, now) == 0
    assert retry_after({"Retry-After": "999999999999"}) == 30 * 86_400
    for text in ("", "soon", "-1", "1e9", "12:00", "\u0661", "9" * 50):
        assert retry_after({"Retry-After": text}) is None
    assert retry_after({}) is None


def test_a_rate_limit_in_its_parts() -> None:
    hub = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
    assert limit_of(hub) == Limit(100, 76, 21600)
    assert limit_of({"X-RateLimit-Limit": "5000", "X-RateLimit-Remaining": "12"}) == Limit(5000, 12, None)
    assert limit_of({"RateLimit-Remaining": "7"}) == Limit(None, 7, None)
    for text in ("", "many", "-1", ";w=5"):
        assert limit_of({"RateLimit-Remaining": text}) is None


def test_pauses_grow_and_differ() -> None:
    for attempt, most in ((1, 0.5), (2, 1.0), (3, 2.0), (30, 10.0)):
        pauses = {retries.pause(attempt, 0.5) for _ in range(20)}
        assert max(pauses) <= most
        assert min(pauses) >= most / 2
        assert len(pauses) > 1
    assert all(10 <= retries.spread(10.0) <= 11 for _ in range(20))


def test_when_it_ends_is_told_with_its_day_where_that_is_another() -> None:
    now = 1_800_000_000.0
    assert len(retries.clock(now + 1, now)) == 5
    assert len(retries.clock(now + 3 * 86_400, now)) == 16


def test_warnings_are_those_for_people() -> None:
    assert warnings({"Warning": '299 - "soon gone", 299 - "really", 199 - "other"'}) == ["soon gone", "really"]
    assert warnings({"Warning": '299 - "a\x1b[2J\\"b"'}) == ['a\\x1b[2J"b']
    assert warnings({"Warning": "299 - none"}) == warnings({}) == warnings({"Warning": '299 - ""'}) == []


# ---- for people


@given(st.text(max_size=2000))
def test_what_is_shown_is_one_short_harmless_line(text: str) -> None:
    shown = printable(text)
    assert len(shown) <= 300
    assert shown.isprintable()


def test_characters_that_turn_the_text_are_shown_as_codes() -> None:
    assert printable("a\u202eb\x07\x9bc\ud800") == "a\\u202eb\\x07\\x9bc\\ud800"


def test_complaints_of_registries_and_of_token_services() -> None:
    def of(content: object) -> list[Complaint]:
        return complaints(json.dumps(content).encode())

    assert of({"errors": [{"code": "DENIED", "message": "no", "detail": None}]}) == [Complaint("DENIED", "no")]
    assert of({"errors": [{"code": "X", "message": "no", "detail": "because"}]}) == [Complaint("X", "no: because")]
    assert of({"details": "incorrect username or password"}) == [Complaint("", "incorrect username or password")]
    assert of({"error": "invalid_grant", "error_description": "gone"}) == [Complaint("invalid_grant", "gone")]
    assert of({"message": "artifactory says no", "status": 403}) == [Complaint("", "artifactory says no")]
    assert of({"errors": [{"status": 404, "message": "not here"}]}) == [Complaint("", "not here")]
    assert of({}) == of([]) == of({"errors": []}) == complaints(b"<html>") == []


@given(st.binary(max_size=100))
def test_any_body_is_read(body: bytes) -> None:
    assert isinstance(complaints(body), list)


def test_lists_are_read_aloud() -> None:
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
