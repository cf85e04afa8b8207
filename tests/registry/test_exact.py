"""What was pulled goes back to the byte, though nobody has the blobs any more: they are made again of the layers."""

from __future__ import annotations

import gzip
import io
import struct
import subprocess
import zlib
from contextlib import closing
from typing import Any

import pytest
import zstandard

from compressing.samples import words
from layerstore.compression import goflate, pigz
from layerstore.store import Store
from support import images as make

from .servers.debian import DockerRegistry
from .servers.memory import CONFIG, LAYER, MANIFEST
from .servers.quirks import Quirks

pytestmark = pytest.mark.root

TARS = [make.layer(*(make.file(f"layer{n}/{k}", words(10 * n + k, 200_000)) for k in range(7))) for n in range(5)]


def framed(speed: int, system: int, tar: bytes, body: bytes) -> bytes:
    """gzip's frame around a stream of deflate."""
    return bytes([0x1F, 0x8B, 8, 0, 0, 0, 0, 0, speed, system]) + body + struct.pack("<II", zlib.crc32(tar), len(tar))


def by_docker(tar: bytes) -> bytes:
    stream = goflate.Deflate(6)
    return framed(0, 255, tar, stream.feed(tar) + stream.finish())


def by_debian(tar: bytes) -> bytes:
    with closing(pigz.Deflate(9, 2)) as stream:
        return framed(2, 3, tar, stream.feed(memoryview(tar)) + stream.finish())


def by_python(tar: bytes) -> bytes:
    made = io.BytesIO()
    with gzip.GzipFile("layer.tar", "wb", 9, made, mtime=1234567) as file:
        file.write(tar)
    return made.getvalue()


def by_zstd(tar: bytes) -> bytes:
    coder = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()
    return coder.compress(tar) + coder.flush()


def plain(tar: bytes) -> bytes:
    return tar


FORMS = [by_docker, by_debian, by_python, by_zstd, plain]
_SUFFIXES = {by_zstd: "+zstd", plain: ""}


@pytest.fixture
def origin(quirks: Quirks, repository: str) -> str:
    """The name of an image whose layers five compressors wrote."""
    layers: list[dict[str, Any]] = [
        quirks.describe(repository, form(tar), LAYER + _SUFFIXES.get(form, "+gzip"))
        for form, tar in zip(FORMS, TARS, strict=True)
    ]
    config = quirks.describe(repository, make.config(TARS), CONFIG)
    quirks.put_manifest(
        repository, "1", {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    )
    return f"{quirks.host}/{repository}:1"


def test_pulled_from_one_registry_and_pushed_to_another(
    store: Store, quirks: Quirks, origin: str, docker_registry: DockerRegistry, repository: str
) -> None:
    image = store.pull(origin)
    quirks.blobs.clear()
    quirks.manifests.clear()
    target = f"{docker_registry.host}/{repository}:2"
    store.tag(origin, target)
    assert store.push(target).digest == image.digest
    assert store.blobs.guesses() == []
    assert store.blobs.remains().kept == 0  # nothing of it was kept as a file


@pytest.mark.tools("skopeo")
def test_what_was_made_again_is_what_others_take(
    store: Store, origin: str, docker_registry: DockerRegistry, repository: str
) -> None:
    store.pull(origin)
    target = f"{docker_registry.host}/{repository}:3"
    store.tag(origin, target)
    store.push(target)
    copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{target}"]
    folder = store.data_root.with_name("copied")
    subprocess.run([*copy, f"dir:{folder}"], check=True)
    sizes = sorted(path.stat().st_size for path in folder.iterdir() if len(path.name) == 64)
    assert sizes[-5:] == sorted(len(form(tar)) for form, tar in zip(FORMS, TARS, strict=True))
