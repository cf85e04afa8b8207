"""Names of images: docker's grammar, its defaults, and the way back to the short form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore import reference
from layerstore.errors import InvalidReference

DIGEST = "sha256:" + "ab" * 32


HEX = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"
LONG = "a/" * 127 + "a"  # 255 characters


# What docker makes of them: facts from distribution/reference's own tests, and from its grammar.
@pytest.mark.parametrize(
    ("text", "domain", "path", "tag"),
    [
        # Short names are Docker Hub's, and those of one word its official ones.
        ("debian", "docker.io", "library/debian", None),
        ("debian:12", "docker.io", "library/debian", "12"),
        ("library/debian", "docker.io", "library/debian", None),
        ("docker.io/debian", "docker.io", "library/debian", None),
        ("docker.io/library/debian:x", "docker.io", "library/debian", "x"),
        ("index.docker.io/debian", "docker.io", "library/debian", None),
        ("index.docker.io/library/debian", "docker.io", "library/debian", None),
        ("index.docker.io/fooo/bar", "docker.io", "fooo/bar", None),
        ("registry-1.docker.io/debian", "registry-1.docker.io", "debian", None),
        ("docker/migrator", "docker.io", "docker/migrator", None),
        ("docker.io/library/foo/bar", "docker.io", "library/foo/bar", None),
        ("store/foo/bar", "docker.io", "store/foo/bar", None),
        ("library/ubuntu-12.04-base", "docker.io", "library/ubuntu-12.04-base", None),
        # What is before the first slash is a host if it has a dot, a colon or a capital, or is localhost.
        ("test.com/foo", "test.com", "foo", None),
        ("test.com/library/foo:tag", "test.com", "library/foo", "tag"),
        ("gcr.io/library/busybox", "gcr.io", "library/busybox", None),
        ("test_com/foo", "docker.io", "test_com/foo", None),
        ("test.com", "docker.io", "library/test.com", None),
        ("test.com:5000", "docker.io", "library/test.com", "5000"),
        ("foo_bar.com:8080", "docker.io", "library/foo_bar.com", "8080"),
        ("foo/foo_bar.com:8080", "docker.io", "foo/foo_bar.com", "8080"),
        ("test:5000/repo", "test:5000", "repo", None),
        ("test:5000/repo:tag", "test:5000", "repo", "tag"),
        ("test-com:8080/foo", "test-com:8080", "foo", None),
        ("xn--n3h.com:18080/foo:xn--n3h.com", "xn--n3h.com:18080", "foo", "xn--n3h.com"),
        (
            "b.gcr.io/test.example.com/my-app:test.example.com",
            "b.gcr.io",
            "test.example.com/my-app",
            "test.example.com",
        ),
        ("localhost/app", "localhost", "app", None),
        ("localhost:5000/app", "localhost:5000", "app", None),
        ("localhost", "docker.io", "library/localhost", None),
        ("localhost:5000", "docker.io", "library/localhost", "5000"),
        ("Foo/bar", "Foo", "bar", None),
        ("FOO/bar:x", "FOO", "bar", "x"),
        ("192.168.0.1", "docker.io", "library/192.168.0.1", None),
        ("192.168.0.1:80", "docker.io", "library/192.168.0.1", "80"),
        ("192.168.0.1:8/debian", "192.168.0.1:8", "debian", None),
        ("127.0.0.1:5000/docker/docker:5050", "127.0.0.1:5000", "docker/docker", "5050"),
        ("[2001:db8::1]/repo", "[2001:db8::1]", "repo", None),
        ("[2001:db8:1:2:3:4:5:6]/repo:tag", "[2001:db8:1:2:3:4:5:6]", "repo", "tag"),
        ("[2001:db8::1]:5000/repo", "[2001:db8::1]:5000", "repo", None),
        ("[::1]:5000/team/app:1.0", "[::1]:5000", "team/app", "1.0"),
        # Words: one dot, one or two underscores, or any number of dashes between letters and digits.
        ("a__b--c.d_e", "docker.io", "library/a__b--c.d_e", None),
        ("docker---rules/docker", "docker.io", "docker---rules/docker", None),
        ("d/docker", "docker.io", "d/docker", None),
        ("lowercase:Uppercase", "docker.io", "library/lowercase", "Uppercase"),
        ("debian:_x", "docker.io", "library/debian", "_x"),
        ("debian:" + "x" * 128, "docker.io", "library/debian", "x" * 128),
        # 64 characters that are not all hexadecimal; and those that are, where they cannot be taken for an ID.
        ("g" * 64, "docker.io", "library/" + "g" * 64, None),
        (f"docker.io/{HEX}", "docker.io", f"library/{HEX}", None),
        (f"{HEX}:tag", "docker.io", f"library/{HEX}", "tag"),
        (f"quay.io/{HEX}", "quay.io", HEX, None),
        (HEX[1:], "docker.io", f"library/{HEX[1:]}", None),
        # The host does not count in the length.
        (f"{LONG}:tag-puts-this-over-max", "docker.io", LONG, "tag-puts-this-over-max"),
        ("example.com/" + "a" * 255, "example.com", "a" * 255, None),
    ],
)
def test_name_has_its_parts(text: str, domain: str, path: str, tag: str | None) -> None:
    assert reference.parse(text) == reference.Reference(domain, path, tag, None)
    assert reference.parse(f"{text}@{DIGEST}") == reference.Reference(domain, path, tag, DIGEST)


@pytest.mark.parametrize(
    "text",
    [
        *("", ":tag", "@" + DIGEST, HEX, "a b", "debian\n", "debian:12\n", "bücher", "debian:ü"),
        *("Debian", "Uppercase:tag", "docker/Docker", "docker.io/docker/Docker", "test:5000/Uppercase/lowercase:tag"),
        *("-docker", "-docker/docker", "docker-/docker", "-docker-/docker", "-docker.io/docker/docker", "debian-"),
        *("a..b", "dock..er/docker", "dock_.er/docker", "dock-.er/docker", "a___b", "____/____", "_docker/_docker"),
        *("a/", "/a", "a//b", "docker///docker", "docker.io/docker///docker", "docker.io/", "/"),
        *("https://github.com/docker/docker", "aa/asdf$$^/aa", "ho_st:5000/app", "host:/app", "host:port/app"),
        *("[fc00::1]", "[fc00::1]:5000", "[2001:db8::1]:tag", "fc00::1:5000/debian", "[fe80::1%eth0]:5000/debian"),
        *("[fe80::1%@invalidzone]:5000/repo", "[2001:db8:3:4::192.0.2.33]:5000/debian", "[]:5000/debian"),
        *(
            "x" * 256,
            "a/" * 128 + "a:tag",
            "docker.io/" + "a/" * 128,
            "example.com/" + "a" * 256,
            "library/" + "x" * 248,
        ),
        *("debian:", "debian:-x", "debian:.x", "debian:" + "x" * 129, "debian:a:b", "debian:a/b", "debian@"),
        *("debian@sha256:12", "debian@sha256:" + "ff" * 17, "debian@md5:abc", "debian@invaliddigest:" + "f" * 64),
        *("debian@" + DIGEST.upper(), "debian@sha256:" + "AB" * 32, f"debian@{DIGEST}:12", f"debian@{DIGEST}@{DIGEST}"),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        reference.parse(text)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian:latest", "debian:latest"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
        ("me/app", "docker.io/me/app:latest", "me/app:latest"),
        ("library/team/app", "docker.io/library/team/app:latest", "library/team/app:latest"),
        ("quay.io/me/app:1.0", "quay.io/me/app:1.0", "quay.io/me/app:1.0"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("host:5000/app", "host:5000/app:latest", "host:5000/app:latest"),
        ("[2001:db8::1]:5000/app", "[2001:db8::1]:5000/app:latest", "[2001:db8::1]:5000/app:latest"),
        (f"debian:12@{DIGEST}", "docker.io/library/debian:12", f"debian:12@{DIGEST}"),
        (f"quay.io/me/app@{DIGEST}", "quay.io/me/app:latest", f"quay.io/me/app@{DIGEST}"),
        # Whose short form would be read as something else.
        ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ("docker.io/localhost/c", "docker.io/localhost/c:latest", "docker.io/localhost/c:latest"),
        (f"docker.io/{HEX}", f"docker.io/library/{HEX}:latest", f"docker.io/library/{HEX}:latest"),
    ],
)
def test_name_has_a_full_and_a_short_form(text: str, full: str, familiar: str) -> None:
    parsed = reference.parse(text)
    assert (parsed.full, parsed.familiar) == (full, familiar)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("word", ("docker.io", "word")),
        ("team/app", ("docker.io", "team/app")),
        ("Foo/x", ("Foo", "x")),
        ("registry.example/A word", ("registry.example", "A word")),
        ("localhost/x", ("localhost", "x")),
        ("index.docker.io/x", ("docker.io", "x")),
        ("127.0.0.1:5000", ("docker.io", "127.0.0.1:5000")),
    ],
)
def test_words_that_are_searched_for_have_a_host_as_names_have(text: str, parts: tuple[str, str]) -> None:
    assert reference.split_host(text) == parts


def test_upper_case_is_explained() -> None:
    with pytest.raises(InvalidReference, match="lower case"):
        reference.parse("Debian:12")


def test_name_with_a_digest_has_a_form_without_its_tag() -> None:
    assert reference.parse(f"debian:12@{DIGEST}").pinned == f"docker.io/library/debian@{DIGEST}"
    assert reference.parse("debian:12").pinned is None
    assert reference.split(f"debian@{DIGEST}") == ("debian", "")


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("debian", "docker.io/library/debian:latest"),
        (f"debian@{DIGEST}", f"docker.io/library/debian@{DIGEST}"),
        (f"host:5000/app:1@{DIGEST}", f"host:5000/app:1@{DIGEST}"),
    ],
)
def test_the_complete_form_has_tag_and_digest(text: str, complete: str) -> None:
    assert reference.parse(text).complete == complete
    assert reference.parse(complete).complete == complete


def test_a_tag_is_no_digest() -> None:
    with pytest.raises(InvalidReference, match="not a digest"):
        reference.normalise(f"debian@{DIGEST}")


@pytest.mark.parametrize("text", [DIGEST, "sha256", "docker.io/sha256:x"])
def test_no_image_is_called_as_a_digest(text: str) -> None:
    with pytest.raises(InvalidReference, match="is a digest"):
        reference.normalise(text)


word = st.from_regex(r"[a-z0-9]{1,8}(?:[._-][a-z0-9]{1,4})?", fullmatch=True)
hosts = st.sampled_from(["", "", "quay.io/", "localhost/", "host:5000/", "docker.io/"])
tags = st.from_regex(r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?", fullmatch=True)


@given(hosts, st.lists(word, min_size=1, max_size=3), tags)
def test_short_form_reads_back_to_the_same_name(host: str, path: list[str], tag: str) -> None:
    full = reference.parse(host + "/".join(path) + tag).full
    assert reference.parse(reference.familiar(full)).full == full
    assert reference.parse(full).full == full
    assert ":".join(reference.split(reference.familiar(full))) == reference.familiar(full)
