"""What manifests and indexes of registries say: read with suspicion, and the image for a platform found in them."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import pytest

from layerstore import platforms
from layerstore.digest import Digest
from layerstore.errors import InvalidArchive, UnsupportedMediaType
from layerstore.manifests import Descriptor, Manifest, media_type_of, read
from layerstore.manifests.media_types import is_foreign
from layerstore.registry.client.manifests import image_in, told_of, written

from .servers.memory import CONFIG, INDEX, LAYER, MANIFEST, digest

DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def describe(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    """A descriptor, as JSON has it."""
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


class Documents:
    """Manifests by their digests, as a registry gives them out."""

    def __init__(self) -> None:
        self.all: dict[str, Manifest] = {}
        self.fetched: list[str] = []

    def add(self, media_type: str = MANIFEST, **fields: Any) -> Manifest:
        """A manifest with these fields."""
        content = {"schemaVersion": 2, "mediaType": media_type, **fields}
        manifest = Manifest.of(media_type, json.dumps(content).encode())
        self.all[manifest.digest] = manifest
        return manifest

    def image(self, word: str, **more: Any) -> Manifest:
        """An image, different for each word."""
        config = describe(word.encode(), CONFIG)
        return self.add(config=config, layers=[describe(word.encode() + b"layer", LAYER + "+gzip")], **more)

    def index(self, *entries: tuple[Manifest, str | None], media_type: str = INDEX, **more: Any) -> Manifest:
        """An index of manifests, each with a platform or none."""
        listed = []
        for manifest, platform in entries:
            fields = describe(manifest.data, manifest.media_type)
            if platform is not None:
                system, architecture, *variant = platform.split("/")
                fields["platform"] = {"os": system, "architecture": architecture}
                fields["platform"] |= {"variant": variant[0]} if variant else {}
            listed.append(fields)
        return self.add(media_type, manifests=listed, **more)

    def fetch(self, descriptor: Descriptor) -> Manifest:
        """As `Repository.manifest` would."""
        self.fetched.append(descriptor.digest)
        return self.all[descriptor.digest]


@pytest.fixture
def documents() -> Documents:
    return Documents()


def chosen(documents: Documents, top: Manifest, platform: str | None = None) -> Digest:
    """The image that is found."""
    wanted = None if platform is None else platforms.parse(platform)
    way = image_in(top, wanted, documents.fetch, what="team/app:1")
    assert way.documents[0] == top
    for above, below in pairwise(way.documents):
        assert below.digest in [entry.digest for entry in read(above).manifests]
    assert way.contents.manifest == way.documents[-1]
    return way.documents[-1].digest


# --- the image for a platform ---


def test_a_manifest_is_its_image_whatever_it_is_made_for(documents: Documents) -> None:
    image = documents.image("one")
    assert chosen(documents, image, "windows/arm64") == image.digest
    assert documents.fetched == []


@pytest.mark.parametrize("media_type", [INDEX, DOCKER_LIST])
def test_an_index_has_an_image_for_a_platform(documents: Documents, media_type: str) -> None:
    names = ("linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "windows/amd64")
    images = {name: documents.image(name) for name in names}
    index = documents.index(*((image, name) for name, image in images.items()), media_type=media_type)
    for name, image in images.items():
        assert chosen(documents, index, name) == image.digest
    assert chosen(documents, index) == images[str(platforms.host().usual)].digest
    assert chosen(documents, index, "linux/arm/v8") == images["linux/arm/v7"].digest
    assert len(documents.fetched) == len(images) + 2


def test_which_platforms_there_are_is_said(documents: Documents) -> None:
    index = documents.index((documents.image("a"), "linux/s390x"), (documents.image("b"), "linux/arm/v7"))
    with pytest.raises(InvalidArchive, match="team/app:1 has no image for linux/riscv64") as caught:
        chosen(documents, index, "linux/riscv64")
    assert caught.value.remedy == "It has linux/arm/v7, linux/s390x: ask for one of these."
    assert documents.fetched == []
    with pytest.raises(InvalidArchive, match="has no image for"):
        chosen(documents, documents.index())


def test_a_single_image_may_be_for_no_platform(documents: Documents) -> None:
    image = documents.image("a")
    assert chosen(documents, documents.index((image, None)), "linux/arm64") == image.digest
    with pytest.raises(InvalidArchive, match="has no image for linux/arm64"):
        chosen(documents, documents.index((image, None), (documents.image("b"), "linux/amd64")), "linux/arm64")


def test_indexes_lead_to_indexes(documents: Documents) -> None:
    image, other = documents.image("a"), documents.image("b")
    inner = documents.index((other, "linux/arm64"), (image, "linux/amd64"))
    outer = documents.index((inner, None), (documents.image("c"), "linux/s390x"))
    assert chosen(documents, outer, "linux/amd64") == image.digest
    deep = inner
    for _ in range(4):
        deep = documents.index((deep, None))
    with pytest.raises(InvalidArchive, match="nested more than 4 deep"):
        chosen(documents, deep, "linux/amd64")
    wide = documents.index(*((documents.index(note=str(number)), None) for number in range(101)))
    documents.fetched.clear()
    with pytest.raises(InvalidArchive, match="or more than 100"):
        chosen(documents, wide, "linux/amd64")
    assert len(documents.fetched) <= 100


def test_attestations_are_no_images(documents: Documents) -> None:
    image, attestation = documents.image("a"), documents.image("b")
    index = documents.index((image, None), (attestation, "unknown/unknown"))
    assert chosen(documents, index) == image.digest
    fields = json.loads(documents.index((attestation, "linux/amd64")).data)
    fields["manifests"][0]["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}
    with pytest.raises(InvalidArchive, match="has no image for"):
        chosen(documents, Manifest.of(INDEX, json.dumps(fields).encode()), "linux/amd64")


def test_an_artifact_is_no_image(documents: Documents) -> None:
    chart = documents.add(config=describe(b"{}", "application/vnd.cncf.helm.config.v1+json"), layers=[])
    with pytest.raises(UnsupportedMediaType, match=r"an artifact of type application/vnd\.cncf\.helm\.config"):
        chosen(documents, chart)
    strange = documents.image("a", artifactType="\x1b[31mred")
    assert chosen(documents, strange) == strange.digest
    strange = documents.add(config=describe(b"{}", "x/y"), layers=[], artifactType="\x1b[31mred")
    with pytest.raises(UnsupportedMediaType) as caught:
        chosen(documents, strange)
    assert "\x1b" not in str(caught.value)


# --- what they say ---


def test_embedded_content_counts_if_it_is_the_blob(documents: Documents) -> None:
    def data_of(value: object, size: int = 2) -> bytes | None:
        config = {"mediaType": CONFIG, "digest": digest(b"{}"), "size": size, "data": value}
        contents = read(documents.add(config=config, layers=[]))
        assert contents.config is not None
        return contents.config.data

    assert data_of(base64.b64encode(b"{}").decode()) == b"{}"
    for wrong in (base64.b64encode(b"[]").decode(), "e30", "!", "", 7, None, ["e30="]):
        assert data_of(wrong) is None
    assert data_of("e30=", size=3) is None


def test_a_manifest_that_is_two_things_is_refused(documents: Documents) -> None:
    both = documents.image("a", manifests=[])
    with pytest.raises(InvalidArchive, match="an index and a manifest at once"):
        read(both)
    with pytest.raises(InvalidArchive, match="announced as"):
        read(Manifest.of(INDEX, documents.image("a").data))


@pytest.mark.parametrize("size", [-1, 1 << 63, 1.5, "7", True, None])
def test_a_size_that_is_none_is_refused(documents: Documents, size: object) -> None:
    wrong = documents.add(config=describe(b"{}", CONFIG) | {"size": size}, layers=[])
    with pytest.raises(InvalidArchive, match="is no size"):
        read(wrong)


def test_a_list_has_an_end(documents: Documents) -> None:
    entry = describe(b"x", LAYER)
    with pytest.raises(InvalidArchive, match="has 10001 entries"):
        read(documents.add(config=describe(b"{}", CONFIG), layers=[entry] * 10_001))


def test_foreign_layers_are_known_with_their_urls(documents: Documents) -> None:
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    urls = ["https://example.com/layer", 7, None]
    [layer] = read(documents.add(config=describe(b"{}", CONFIG), layers=[describe(b"x", foreign, urls=urls)])).layers
    assert layer.urls == ("https://example.com/layer",)
    assert is_foreign(layer.media_type)
    assert not is_foreign(LAYER)


def test_a_media_type_is_found_out(documents: Documents) -> None:
    image = documents.image("a")
    assert media_type_of(image.data, None, "it") == MANIFEST
    assert media_type_of(image.data, f"{DOCKER_LIST}; charset=utf-8", "it") == DOCKER_LIST
    assert media_type_of(b'{"manifests": []}', "text/plain", "it") == INDEX
    assert media_type_of(b'{"config": {}}', "text/plain", "it") == MANIFEST
    for wrong in (b"{}", b'{"mediaType": "a/b"}', b'{"mediaType": ["a"], "config": {}}'):
        with pytest.raises(UnsupportedMediaType, match="neither a manifest's nor an index's"):
            media_type_of(wrong, "text/plain", "it")
    with pytest.raises(InvalidArchive, match="it is no JSON"):
        media_type_of(b"<html>", None, "it")


def test_an_index_that_is_written_is_read_again(documents: Documents) -> None:
    entries = [
        Descriptor(MANIFEST, Digest(digest(b"a")), 1, annotations={"a": "b"}, artifact_type="text/sbom"),
        Descriptor(MANIFEST, Digest(digest(b"b")), 1, platform={"os": "linux", "architecture": "amd64"}),
    ]
    assert list(read(written(entries)).manifests) == entries
    assert written(entries) == written(entries)


def test_what_is_wrong_is_told_as_a_registry_s(documents: Documents) -> None:
    with pytest.raises(InvalidArchive) as caught, told_of("registry.example"):
        read(documents.add(config=7, layers=[]))
    assert caught.value.remedy == "So has registry.example it: have the image pushed again."
    with pytest.raises(UnsupportedMediaType) as caught, told_of("registry.example"):
        read(documents.add(schemaVersion=1))
    assert "today" in str(caught.value.remedy)
