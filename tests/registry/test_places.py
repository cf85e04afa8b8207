"""Where images lie, in skopeo's words."""

from __future__ import annotations

import pytest

from layerstore import reference
from layerstore.errors import ConfigError, InvalidReference, LayerstoreError
from layerstore.transfer import places
from layerstore.transfer.places import AtPath, InArchive, InRegistry

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize("name", ["debian", "debian:12", "host:5000/team/app:1", f"debian@{DIGEST}", "[::1]:5000/app"])
def test_a_name_in_a_registry_is_dockers(name: str) -> None:
    assert places.parse(f"docker://{name}") == InRegistry(reference.parse(name))


# Facts from the tests of containers/image (oci/layout, oci/archive, docker/archive).
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("oci:dir", InArchive("oci", "dir")),
        ("oci:/a/b:12", InArchive("oci", "/a/b", "12")),
        ("oci:dir:", InArchive("oci", "dir")),
        ("oci:dir:debian:12", InArchive("oci", "dir", "debian:12")),
        ("oci:dir:quay.io/team/app:1.0", InArchive("oci", "dir", "quay.io/team/app:1.0")),
        (f"oci:dir:app@{DIGEST}", InArchive("oci", "dir", f"app@{DIGEST}")),
        ("oci-archive:x.tar", InArchive("oci-archive", "x.tar")),
        ("oci-archive:../x.tar:v1+a--b", InArchive("oci-archive", "../x.tar", "v1+a--b")),
        ("docker-archive:/path", InArchive("docker-archive", "/path")),
        ("docker-archive:/path:", InArchive("docker-archive", "/path")),
        ("docker-archive:/path:busybox", InArchive("docker-archive", "/path", "docker.io/library/busybox:latest")),
        ("docker-archive:/path:busybox:x", InArchive("docker-archive", "/path", "docker.io/library/busybox:x")),
        ("docker-archive:/path:host:1/a:x", InArchive("docker-archive", "/path", "host:1/a:x")),
        ("docker-archive:/path:@0", InArchive("docker-archive", "/path", index=0)),
        ("docker-archive:/path:@999999", InArchive("docker-archive", "/path", index=999999)),
    ],
)
def test_an_archive_has_a_path_and_a_name(text: str, place: InArchive) -> None:
    assert places.parse(text) == place


@pytest.mark.parametrize(
    "text", ["x.tar", "/a/b/", "-", "", "debian", "./oci:x", "dir/docker-archive:x", "docker:debian", "OCI:x", "a:b"]
)
def test_anything_else_is_a_path(text: str) -> None:
    assert places.parse(text) == AtPath(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("docker://", InvalidReference),
        ("docker://Debian", InvalidReference),
        ("docker:///debian", InvalidReference),
        ("oci:", ConfigError),
        ("oci::tag", ConfigError),
        ("oci:dir:a b", ConfigError),
        ("oci:dir:-x", ConfigError),
        ("oci:dir:a//b", ConfigError),
        ("oci-archive:", ConfigError),
        ("docker-archive:", ConfigError),
        ("docker-archive:/path:UPPER", InvalidReference),
        (f"docker-archive:/path:busybox@{DIGEST}", InvalidReference),
        ("docker-archive:/path:busybox@0", InvalidReference),
        ("docker-archive:/path:@", ConfigError),
        ("docker-archive:/path:@-1", ConfigError),
        ("docker-archive:/path:@+1", ConfigError),
        ("docker-archive:/path:@0:busybox", ConfigError),
    ],
)
def test_what_is_wrong_is_said(text: str, error: type[LayerstoreError]) -> None:
    with pytest.raises(error) as caught:
        places.parse(text)
    assert caught.value.remedy


@pytest.mark.parametrize("path", ["dir:x", "containers-storage:debian", "docker-daemon:debian", "https://host/x.tar"])
def test_kinds_that_are_not_known_can_be_told_from_paths(path: str) -> None:
    with pytest.raises(ConfigError, match="no place that is known"):
        places.require_known(places.parse(path))
    places.require_known(places.parse(f"./{path}".replace("://", ":")))


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("ocy:x", "oci:x"),
        ("oc:x", "oci:x"),
        ("docker-archve:x.tar", "docker-archive:x.tar"),
        ("docker-arhcive:x.tar", "docker-archive:x.tar"),
        ("oci-archiv:x:1", "oci-archive:x:1"),
    ],
)
def test_a_kind_that_is_mistyped_is_no_path(path: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean {meant}"):
        places.require_known(places.parse(path))
    places.require_known(places.parse(f"./{path}"))


@pytest.mark.parametrize(
    "path",
    ["backup:1.tar", "docs:1.tar", "archive:1.tar", "docker-image:1.tar", "doc:x", "social:x", "a:b", "x", ":x"],
)
def test_any_other_word_before_a_colon_is_part_of_a_path(path: str) -> None:
    assert places.require_known(places.parse(path)) == places.AtPath(path)
