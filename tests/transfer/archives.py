"""Archives as bytes, for tests of what reads them: any members, in any order, true or false."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

from layerstore import Limits
from support import images


@frozen
class Link:
    """A member that leads to another."""

    target: str
    hard: bool = False


Members = Sequence[tuple[str, bytes | Link]]


def tar(members: Members, *, format: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar with these members, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, Link):
                info.type = tarfile.LNKTYPE if content.hard else tarfile.SYMTYPE
                info.linkname = content.target
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def encoded(value: object) -> bytes:
    """JSON."""
    return json.dumps(value).encode()


def manifest(config: str, layers: Sequence[str], tags: Sequence[str] | None = ("test:latest",)) -> bytes:
    """`manifest.json` of a docker-archive with one image."""
    return encoded([{"Config": config, "RepoTags": tags, "Layers": list(layers)}])


OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


class Layout:
    """An OCI layout in the making. `members` are its files."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.entries: list[dict[str, Any]] = []

    def put(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """Add a blob; its descriptor."""
        self.blobs["blobs/sha256/" + images.digest(data)[7:]] = data
        return {"mediaType": media_type, "digest": images.digest(data), "size": len(data), **more}

    def image(self, layers: Sequence[bytes], config: bytes | None = None, **more: Any) -> dict[str, Any]:
        """Add an image with plain layers; the descriptor of its manifest."""
        settings = images.config(layers) if config is None else config
        return self.manifest(self.put(settings, OCI_CONFIG), [self.put(layer, OCI_LAYER) for layer in layers], **more)

    def manifest(self, config: Mapping[str, Any], layers: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """Add a manifest; its descriptor."""
        fields = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}
        return self.put(encoded(fields), OCI_MANIFEST, **more)

    def index(self, entries: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """Add a nested index; its descriptor."""
        return self.put(encoded({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}), OCI_INDEX, **more)

    def add(self, descriptor: dict[str, Any], *names: str) -> None:
        """List something in index.json, under each of the names."""
        key = "org.opencontainers.image.ref.name"
        self.entries += [descriptor | {"annotations": {key: name}} for name in names] or [descriptor]

    @property
    def files(self) -> dict[str, bytes]:
        """All members."""
        return {
            "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
            **self.blobs,
            "index.json": encoded({"schemaVersion": 2, "manifests": self.entries}),
        }

    def tar(self) -> bytes:
        """The layout as a tar."""
        return tar(list(self.files.items()))


def platform(architecture: str, variant: str = "", system: str = "linux") -> dict[str, str]:
    """A descriptor's platform."""
    return {"os": system, "architecture": architecture} | ({"variant": variant} if variant else {})


@frozen
class Held:
    """`Documents`, held in memory."""

    members: Mapping[str, bytes]
    limits: Limits = field(factory=Limits)

    def document(self, name: str, kind: str = "manifest") -> bytes | None:
        data = self.members.get(name)
        self.limits.check_document(kind, len(data or b""), name)
        return data

    def size(self, name: str) -> int | None:
        data = self.members.get(name)
        return None if data is None else len(data)


def staying(data_root: Path) -> list[Path]:
    """What is in staging and stays there. Deletion goes on in the background."""
    deadline = time.monotonic() + 10
    while staged := [path for session in (data_root / "staging").iterdir() for path in session.iterdir()]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    return staged
