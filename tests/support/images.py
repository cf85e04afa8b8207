"""Small images, made from bytes: tars of layers, docker-archives, OCI layouts.

Made with Python's own tarfile and json, so that layerstore is never tested against itself.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard
from attrs import field, frozen

EPOCH = 1_700_000_000


def digest(data: bytes) -> str:
    """`sha256:<hex>` of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@frozen
class Member:
    """One entry of a layer's tar. `xattrs` and a fractional `mtime` go into PAX headers."""

    name: str
    type: bytes = tarfile.REGTYPE
    content: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int | float = EPOCH
    target: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(factory=dict)


def file(name: str, content: bytes | str = b"", **facts: Any) -> Member:
    """A regular file."""
    return Member(name, content=content.encode() if isinstance(content, str) else content, **facts)


def folder(name: str, **facts: Any) -> Member:
    """A directory."""
    return Member(name, tarfile.DIRTYPE, **{"mode": 0o755, **facts})


def symlink(name: str, target: str, **facts: Any) -> Member:
    """A symbolic link."""
    return Member(name, tarfile.SYMTYPE, target=target, **{"mode": 0o777, **facts})


def hard_link(name: str, target: str, **facts: Any) -> Member:
    """One more name for `target`."""
    return Member(name, tarfile.LNKTYPE, target=target, **facts)


def fifo(name: str, **facts: Any) -> Member:
    """A named pipe."""
    return Member(name, tarfile.FIFOTYPE, **facts)


def device(name: str, major: int, minor: int, **facts: Any) -> Member:
    """A character device."""
    return Member(name, tarfile.CHRTYPE, device=(major, minor), **facts)


def whiteout(name: str) -> Member:
    """The marker that removes `name` of the layers below."""
    parent, _, base = name.rpartition("/")
    return Member(f"{parent}/.wh.{base}" if parent else f".wh.{base}", mode=0)


def opaque(name: str) -> Member:
    """The marker that hides everything that the layers below have in the folder `name` (``""``: the root)."""
    return Member(f"{name}/.wh..wh..opq" if name else ".wh..wh..opq", mode=0)


def layer(*members: Member) -> bytes:
    """The tar of a layer, in PAX format."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            info = tarfile.TarInfo(member.name)
            info.type, info.mode, info.uid, info.gid = member.type, member.mode, member.uid, member.gid
            info.mtime, info.linkname, info.size = member.mtime, member.target, len(member.content)
            info.devmajor, info.devminor = member.device
            info.pax_headers = {
                f"SCHILY.xattr.{name}": value.decode("utf-8", "surrogateescape")
                for name, value in member.xattrs.items()
            }
            tar.addfile(info, io.BytesIO(member.content))
    return buffer.getvalue()


def config(layers: Sequence[bytes], **more: Any) -> bytes:
    """An image configuration for these layers. `more`: other top-level keys, or other values for those here."""
    return json.dumps(
        {
            "created": "2024-01-02T03:04:05.678901234Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]},
            "history": [
                {"created": "2024-01-02T03:04:05Z", "created_by": f"layer {number}"} for number in range(len(layers))
            ],
            **more,
        }
    ).encode()


def docker_archive(
    target: Path, layers: Sequence[bytes], tags: Sequence[str] = ("test:latest",), *, image_config: bytes | None = None
) -> Path:
    """A docker-archive of one image, with plain layers named as skopeo names them."""
    settings = config(layers) if image_config is None else image_config
    config_name = digest(settings)[7:] + ".json"
    members = {digest(tar)[7:] + ".tar": tar for tar in layers}
    manifest = [{"Config": config_name, "RepoTags": list(tags), "Layers": [digest(tar)[7:] + ".tar" for tar in layers]}]
    with tarfile.open(target, "w") as archive:
        for name, data in [*members.items(), (config_name, settings), ("manifest.json", json.dumps(manifest).encode())]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return target


def oci_layout(
    target: Path,
    layers: Sequence[bytes],
    tag: str = "latest",
    *,
    compression: str = "gzip",
    image_config: bytes | None = None,
) -> Path:
    """An OCI layout of one image. `compression`: gzip, zstd or none."""
    settings = config(layers) if image_config is None else image_config
    blobs = target / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        (blobs / digest(data)[7:]).write_bytes(data)
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def put_layer(tar: bytes) -> dict[str, Any]:
        media_type = "application/vnd.oci.image.layer.v1.tar"
        if compression == "gzip":
            return put(gzip.compress(tar, 1, mtime=0), media_type + "+gzip")
        if compression == "zstd":
            return put(zstandard.ZstdCompressor().compress(tar), media_type + "+zstd")
        assert compression == "none", f"no such compression: {compression}"
        return put(tar, media_type)

    media_type = "application/vnd.oci.image.manifest.v1+json"
    manifest = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": put(settings, "application/vnd.oci.image.config.v1+json"),
        "layers": [put_layer(tar) for tar in layers],
    }
    descriptor = put(json.dumps(manifest).encode(), media_type)
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (target / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    (target / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return target
