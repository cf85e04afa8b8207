"""Names of images: docker's grammar, its defaults, and the way back to the short form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore import reference
from layerstore.errors import InvalidReference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("docker.io/library/debian:x", "docker.io/library/debian:x", "debian:x"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("library/team/app", "docker.io/library/team/app:latest", "library/team/app:latest"),
        ("quay.io/me/app:1.0", "quay.io/me/app:1.0", "quay.io/me/app:1.0"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app:latest"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest", "[2001:db8::1]:5000/app:latest"),
        ("a__b--c.d_e", "docker.io/library/a__b--c.d_e:latest", "a__b--c.d_e:latest"),
        (f"debian:12@{DIGEST}", "docker.io/library/debian:12", "debian:12"),
    ],
)
def test_name_has_a_full_and_a_short_form(text: str, full: str, familiar: str) -> None:
    parsed = reference.parse(text)
    assert (parsed.full, parsed.familiar) == (full, familiar)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":tag", "Debian", "-debian", "debian-", "a..b", "a/", "/a", "a b", "a//b", "ho_st:5000/app", "x" * 256),
        *("debian:", "debian:-x", "debian:" + "x" * 129, "ab" * 32, "debian@sha256:12", "debian@md5:abc"),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        reference.parse(text)


def test_upper_case_is_explained() -> None:
    with pytest.raises(InvalidReference, match="lower case"):
        reference.parse("Debian:12")


def test_a_tag_is_no_digest() -> None:
    with pytest.raises(InvalidReference, match="not a digest"):
        reference.normalise(f"debian@{DIGEST}")


word = st.from_regex(r"[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,4})?", fullmatch=True)
hosts = st.sampled_from(["", "", "quay.io/", "localhost/", "host:5000/", "docker.io/"])
tags = st.from_regex(r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?", fullmatch=True)


@given(hosts, st.lists(word, min_size=1, max_size=3), tags)
def test_short_form_reads_back_to_the_same_name(host: str, path: list[str], tag: str) -> None:
    full = reference.parse(host + "/".join(path) + tag).full
    assert reference.parse(reference.familiar(full)).full == full
    assert reference.parse(full).full == full
    assert ":".join(reference.split(reference.familiar(full))) == reference.familiar(full)
