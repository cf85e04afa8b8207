"""Images in registries by fsspec: names in paths, and what is fetched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

from layerstore.fs import RegistryFileSystem
from layerstore.fs.registries import _MOST
from registry.servers.quirks import Quirks
from registry.test_browsing import LARGE, put


@pytest.fixture
def quirks() -> Iterator[Quirks]:
    with Quirks() as server:
        yield server


def test_a_registry_is_read_as_a_filesystem(quirks: Quirks) -> None:
    name = put(quirks, "zstd:chunked", LARGE)
    with fsspec.open(f"docker://{name}/etc/link", "r", skip_instance_cache=True) as file:
        assert file.read(6) == "wanted"
    fs: Any = fsspec.filesystem("layerstore+docker", skip_instance_cache=True)
    assert fs.ls(name, detail=False) == [f"{name}/{one}" for one in ("etc", "large", "opt", "rest")]
    assert fs.find(f"{name}/etc") == [f"{name}/etc/first", f"{name}/etc/link"]
    assert fs.cat_file(f"{name}/large", 0, 10) == fs.cat(f"{name}/large")[:10]
    assert 3_000_000 < fs.fetched < 3_100_000
    with pytest.raises(OSError, match="never altered"):
        fs.rm(f"{name}/etc/first")
    asked = len(quirks.requests)
    assert fs.isfile(f"{name}/etc/link")
    assert len(quirks.requests) == asked
    fs.close()
    assert fs.fetched > 3_000_000


def test_a_name_has_its_tag_or_digest(quirks: Quirks) -> None:
    split = RegistryFileSystem(skip_instance_cache=True)._split
    for name in ("debian:12", "team/app:1", "localhost:5000/app:1", "ghcr.io/a/b/c:1.2", "debian@sha256:0"):
        assert split(f"{name}/var/lib/dpkg/info/libc6:amd64.list") == (name, "var/lib/dpkg/info/libc6:amd64.list")
        assert split(name) == (name, "")
    with pytest.raises(FileNotFoundError, match="which image is meant"):
        RegistryFileSystem(skip_instance_cache=True).cat("debian/etc/os-release")


def test_images_beyond_some_are_closed_and_opened_again(quirks: Quirks) -> None:
    name = put(quirks, "eStargz", LARGE)
    reference, _, _ = name.rpartition(":")
    digest = quirks.tags["a/b", "1"]
    for number in range(_MOST + 2):
        quirks.tags["a/b", f"t{number}"] = digest
    fs = RegistryFileSystem(skip_instance_cache=True)
    for number in (*range(_MOST + 2), 0):
        assert fs.cat(f"{reference}:t{number}/etc/first") == b"first"
    assert len(fs._trees) == _MOST
    fs.close()
