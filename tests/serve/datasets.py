"""What the conformance suite of the distribution-spec pushes, by its names: images, indexes, artifacts, and odd ones.

Made anew from what the suite's sources say of each; here the images are real ones, whose layers unpack.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import define, field

from serve.client import INDEX, MANIFEST, digest
from support import images

EMPTY = "application/vnd.oci.empty.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
ARTIFACT, OTHER = "application/vnd.example.oci.conformance", "application/vnd.example.oci.conformance.v2"
NOTES = {"org.opencontainers.conformance": "hello conformance test"}

Descriptor = dict[str, Any]


@define
class Dataset:
    """Blobs, manifests in the order in which they are pushed, tags, and what refers to what; all by digest."""

    algorithm: str = "sha256"
    embed: bool = False
    """Descriptors have the content, too."""
    blobs: dict[str, bytes] = field(factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(factory=dict)
    tags: dict[str, str] = field(factory=dict)
    referrers: dict[str, list[Descriptor]] = field(factory=dict)
    images: int = 0
    """How many of the tags become images of the store."""

    def blob(self, data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
        """One more blob."""
        name = digest(data, self.algorithm)
        self.blobs[name] = data
        return self._descriptor(name, data, media_type)

    def manifest(self, document: Mapping[str, Any], *, tag: str = "") -> Descriptor:
        """One more manifest or index."""
        data, media_type = json.dumps(document).encode(), document["mediaType"]
        name = digest(data, self.algorithm)
        self.manifests[name] = (media_type, data)
        if tag:
            self.tags[tag] = name
        descriptor = self._descriptor(name, data, media_type)
        if "subject" in document:
            kind = document.get("artifactType") or document.get("config", {}).get("mediaType")
            shown = descriptor | ({"artifactType": kind} if kind else {})
            shown |= {"annotations": document["annotations"]} if "annotations" in document else {}
            self.referrers.setdefault(document["subject"]["digest"], []).append(shown)
        return descriptor

    def image(
        self, *, layers: int = 2, architecture: str = "amd64", compress: bool = True, tag: str = "", **more: Any
    ) -> Descriptor:
        """One more image, of random files."""
        tars = [images.layer(images.file(f"file{number}", os.urandom(20))) for number in range(layers)]
        config = images.config(tars, architecture=architecture, **more.pop("config_fields", {}))
        kind, pack = (f"{LAYER}+gzip", _gzip) if compress else (LAYER, bytes)
        descriptors = [self.blob(pack(tar), kind) for tar in tars]
        return self.manifest(_manifest(self.blob(config, CONFIG), descriptors, **more), tag=tag)

    def artifact(self, *, kind: str = ARTIFACT, layer: bytes | None = None, tag: str = "", **more: Any) -> Descriptor:
        """One more artifact: an empty config, and a layer that is no tar."""
        content = self.blob(os.urandom(30), kind) if layer is None else self.blob(layer, EMPTY)
        more.setdefault("artifactType", kind)
        return self.manifest(_manifest(self.blob(b"{}", EMPTY), [content], **more), tag=tag)

    def index(self, children: Sequence[Descriptor], *, tag: str = "", **more: Any) -> Descriptor:
        """One more index."""
        fields = {"schemaVersion": 2, "mediaType": INDEX, "manifests": list(children), **more}
        return self.manifest(fields, tag=tag)

    def platforms(self, *, tag: str = "", child: Callable[..., Descriptor] | None = None, **more: Any) -> Descriptor:
        """One more index, of an image for each of two platforms."""
        found = []
        for architecture in ("amd64", "arm64"):
            made = self.image(architecture=architecture) if child is None else child()
            found.append(made | {"platform": {"os": "linux", "architecture": architecture}})
        return self.index(found, tag=tag, **more)

    def _descriptor(self, name: str, data: bytes, media_type: str) -> Descriptor:
        found = {"mediaType": media_type, "digest": name, "size": len(data)}
        return found | ({"data": base64.b64encode(data).decode()} if self.embed else {})


def _manifest(config: Descriptor, layers: Sequence[Descriptor], **more: Any) -> dict[str, Any]:
    return {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": list(layers), **more}


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1, mtime=0)


def _foreign(data: Dataset) -> None:
    tar = images.layer(images.file("here", "x"))
    away = [images.layer(images.file(name, "x")) for name in ("packed", "plain")]
    layers = [
        {
            "mediaType": f"application/vnd.oci.image.layer.nondistributable.v1.tar{suffix}",
            "digest": digest(other),
            "size": 12345,
            "urls": [f"https://store.example.com/{digest(other)}"],
        }
        for other, suffix in zip(away, ("+gzip", ""), strict=True)
    ]
    config = data.blob(images.config([*away, tar]), CONFIG)
    data.manifest(_manifest(config, [*layers, data.blob(_gzip(tar), f"{LAYER}+gzip")]), tag="foreign")


def _nested(data: Dataset) -> None:
    data.index([data.platforms(), data.platforms()], tag="index-of-index")


def _subjects(data: Dataset) -> None:
    subject = data.image(tag="image")
    data.image(subject=subject)
    unique = {"org.example.unique": os.urandom(4).hex()}
    data.artifact(subject=subject, annotations=NOTES | unique, tag="tagged-artifact1")
    data.artifact(kind=OTHER, subject=subject, annotations=NOTES, tag="tagged-artifact2")


def _index_subject(data: Dataset) -> None:
    subject = data.platforms(tag="index")
    data.platforms(child=data.artifact, subject=subject, artifactType=ARTIFACT, annotations=NOTES, tag="artifact")
    data.platforms(subject=subject, tag="untyped")


def _missing_subject(data: Dataset) -> None:
    subject = {"mediaType": MANIFEST, "digest": digest(b"missing content"), "size": 123}
    data.artifact(subject=subject, annotations=NOTES, tag="tagged-artifact")


DATASETS: Mapping[str, tuple[int, Callable[[Dataset], object]]] = {
    "image": (1, lambda data: data.image(tag="image")),
    "image-uncompressed": (1, lambda data: data.image(compress=False, tag="image-uncompressed")),
    "large-manifest": (
        1,
        lambda data: data.image(annotations={f"large-{number}": "A" * 10000 for number in range(390)}, tag="large"),
    ),
    "index": (1, lambda data: data.platforms(tag="index")),
    "nested-index": (0, _nested),
    "empty-index": (0, lambda data: data.index([], tag="index")),
    "artifact": (0, lambda data: data.artifact(tag="artifact")),
    "artifact-index": (
        0,
        lambda data: data.platforms(child=data.artifact, artifactType=ARTIFACT, tag="artifact-index"),
    ),
    "artifact-without-layers": (0, lambda data: data.artifact(layer=b"{}", tag="artifact")),
    "artifacts-with-subject": (1, _subjects),
    "index-with-subject": (2, _index_subject),
    "missing-subject": (0, _missing_subject),
    "non-distributable-layers": (0, _foreign),
    "custom-fields": (1, lambda data: data.platforms(tag="custom", **{"org.example.field": [1, {"a": None}]})),
    "no-layers": (1, lambda data: data.image(layers=0, tag="no-layers")),
}


def make(name: str, *, algorithm: str = "sha256", embed: bool = False) -> Dataset:
    """The data of this name. `data-field`, `sha512` and the like are others with an algorithm, or embedded content."""
    data = Dataset(algorithm, embed)
    data.images, fill = DATASETS[name]
    fill(data)
    return data
