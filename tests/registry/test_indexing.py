"""What `push --with-index` attaches: a referrer of the manifest, by which each layer's tar can be read from within."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from layerstore.digest import Digest
from layerstore.manifests import read
from layerstore.registry import browse
from layerstore.registry.indexing import indexes_of
from layerstore.seekable import INDEX_TYPE, LayerIndex, Ranges
from support import images
from support.properties import NIGHTLY

from .servers.debian import DockerRegistry
from .servers.quirks import Quirks

if TYPE_CHECKING:
    from layerstore import Image, Store
    from layerstore.registry.client.repository import Repository

pytestmark = pytest.mark.root

LAYERS = [
    images.layer(images.folder("etc"), images.file("etc/hosts", "localhost\n"), images.file("big", "y" * 3_000_000)),
    images.layer(images.file("etc/motd", "hello\n"), images.file("noise", bytes(range(256)) * 9000)),
    images.layer(images.whiteout("big")),
]


@pytest.fixture
def ours(store: Store, tmp_path: Path) -> Image:
    """An image of three layers, loaded."""
    [image] = store.load(images.docker_archive(tmp_path / "ours.tar", LAYERS))
    return image


def tar_by(repository: Repository, index: LayerIndex) -> bytes:
    """A layer's tar, read by what the registry has for it."""

    def pieces(digest: Digest, size: int) -> Callable[[int, int], list[bytes]]:
        return lambda offset, count: [read_at(digest, size)(offset, count)]

    def read_at(digest: Digest | None, size: int) -> Callable[[int, int], bytes]:
        def piece(offset: int, count: int) -> bytes:
            assert digest is not None
            found = bytearray(size - offset)
            at = 0
            with repository.blob(digest, size, start=offset) as reader:
                while count_read := reader.readinto(memoryview(found)[at:]):
                    at += count_read
            return bytes(found[:count])

        return piece

    ranges = Ranges(index, pieces(index.blob, index.size), read_at(index.windows, index.windows_size))
    return b"".join(data for _, data in ranges.chunks(0, index.chunks - 1))


def indexes(repository: Repository, digest: Digest, store: Store) -> list[LayerIndex]:
    """The indexes of the layers of an image, bottom to top."""
    found = indexes_of(repository, digest)
    limits = store._parts.config.limits
    blobs = read(repository.manifest(digest)).layers
    return [
        LayerIndex.unpacked(repository.small_blob(found[blob.digest], "index"), limits)
        for blob in blobs
        if blob.digest in found
    ]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("kind", ["debian", "quirks"])
def test_a_pushed_index_gives_each_layer_from_within(
    kind: str,
    compression: str,
    store: Store,
    ours: Image,
    docker_registry: DockerRegistry,
    quirks: Quirks,
    repository: str,
    opened: Callable[..., Repository],
) -> None:
    """In a registry that knows referrers, and in one that has them by a tag."""
    server: Any = docker_registry if kind == "debian" else quirks
    name = f"{server.host}/{repository}:1"
    ours.tag(name)
    said: list[str] = []

    pushed = store.push(name, compression=compression, with_index=True, done=lambda _, words: said.append(words))

    client = opened(server, repository)
    found = indexes(client, pushed.digest, store)
    assert [index.diff_id for index in found] == list(ours.layers)
    assert [tar_by(client, index) for index in found] == LAYERS
    assert said.count("Indexed") == 3
    again = store.push(name, compression=compression, with_index=True)
    assert again.digest == pushed.digest
    assert len(client.referrers(pushed.digest)) == 1


def test_a_layer_that_cannot_be_read_from_within_has_no_index(
    store: Store, tmp_path: Path, quirks: Quirks, opened: Callable[..., Repository]
) -> None:
    """One frame of zstd is no place to begin in the middle of; the image is pushed all the same, and it is said."""
    large = images.layer(images.file("big", bytes(17 << 20)))
    [image] = store.load(images.docker_archive(tmp_path / "large.tar", [large, LAYERS[1]]))
    name = f"{quirks.host}/a/b:1"
    image.tag(name)
    store.push(name, compression="zstd")
    said: list[tuple[str, str]] = []

    pushed = store.push(name, compression="zstd", with_index=True, done=lambda *words: said.append(words))

    assert [index.diff_id for index in indexes(opened(quirks), pushed.digest, store)] == [image.layers[1]]
    assert [label for label, words in said if words.startswith("Not indexed")] == [image.layers[0][7:19]]


def test_a_pulled_image_is_indexed_from_the_registry_that_has_it(
    store: Store, quirks: Quirks, opened: Callable[..., Repository]
) -> None:
    """Whoever compressed it: what the store cannot make again is read from where it was sent to."""
    blobs = [gzip.compress(layer[:5000], 4, mtime=1) + gzip.compress(layer[5000:], 9, mtime=2) for layer in LAYERS]
    digest = quirks.put_image("a/b", "1", LAYERS, blobs=blobs)
    name = f"{quirks.host}/a/b:1"
    store.pull(name)

    pushed = store.push(name, with_index=True)

    assert pushed.digest == digest
    found = indexes(opened(quirks), pushed.digest, store)
    assert [tar_by(opened(quirks), index) for index in found] == LAYERS


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"] if NIGHTLY else ["gzip"])
def test_an_image_is_read_by_its_indexes(ours: Image, store: Store, quirks: Quirks, compression: str) -> None:
    """Names without any of its layers' blobs, files by pieces of them; whatever is wrong with the index, as without."""
    data = random.Random(5).randbytes(6 << 20)
    layers = [images.layer(images.file("random", data)), *LAYERS]
    [image] = store.load(images.docker_archive(store.data_root.with_name("random.tar"), layers))
    name = f"{quirks.host}/team/{compression}:1"
    image.tag(name)
    store.push(name, with_index=True, compression=compression)
    with browse(name, indexes=True) as tree:
        assert [entry.path for entry in tree.walk("/")] == ["", "etc", "etc/hosts", "etc/motd", "noise", "random"]
        assert tree.fetched == 0
        assert tree.read("etc/motd") == b"hello\n"
        with tree.open("random") as file:
            file.seek(4_000_000)
            assert file.read(100) == data[4_000_000:4_000_100]
        assert 0 < tree.fetched < 4 << 20
        assert tree.read("noise") == bytes(range(256)) * 9000
        assert tree.read("random") == data
    with browse(name) as tree:
        assert tree.read("etc/motd") == b"hello\n"

    path = f"team/{compression}"
    for key, (kind, data) in list(quirks.manifests.items()):
        if INDEX_TYPE.encode() in data:
            manifest = json.loads(data)
            for part in manifest["layers"]:
                if part["mediaType"] == INDEX_TYPE:
                    part |= {"digest": quirks.put_blob(path, b"no index"), "size": 8}
            del quirks.manifests[key]
            quirks.put_manifest(path, None, manifest, kind)
    with browse(name, indexes=True) as tree:
        assert tree.read("etc/hosts") == b"localhost\n"
