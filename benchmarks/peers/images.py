"""The images of a run, in the two forms that everybody reads: one that is given, or one that is made here."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import random
import shutil
import sys
import tarfile
from pathlib import Path

from attrs import frozen

from benchmarks.bench import run

_LAYERS = 4
_APPLETS = ("sh", "true", "echo", "find", "head", "xargs", "rm", "sleep")
_DAY = 1_700_000_000
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@frozen
class Image:
    """One image, and what its name is in every store. `layout` is None where there is no skopeo to make it."""

    title: str
    archive: Path
    """docker-archive, its layers plain."""
    layout: Path | None
    """OCI layout, gzip layers, tag `1`."""
    packed: Path | None
    """The same as a tar: for those who read no folder."""

    @property
    def name(self) -> str:
        return f"localhost/bench/{self.title}:1"


def given(folder: Path, title: str, place: Path) -> Image:
    """FOLDER/TITLE.docker.tar, under the name that it has in a run."""
    source = folder / f"{title}.docker.tar"
    if not source.exists():
        sys.exit(f"{source} is not there: see benchmarks/README.md")
    if shutil.which("skopeo") is None:
        sys.exit("An image that is given is prepared by skopeo, which is not installed.")
    archive = place / f"{title}.tar"
    target = f"docker-archive:{archive}:localhost/bench/{title}:1"
    run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{source}", target)
    return _with_layout(title, archive)


def made(files: int, place: Path) -> Image:
    """busybox and so many files, the same ones each time, in four layers."""
    program = shutil.which("busybox")
    if program is None:
        sys.exit("busybox is not installed: it is the one program of the image that is made.")
    chance = random.Random(files)
    layers = []
    for number in range(_LAYERS):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
            if number == 0:
                _folders(tar, "bin", "proc", "sys", "dev", "run", "etc", "usr", "tmp")
                _file(tar, "bin/busybox", Path(program).read_bytes())
                for applet in _APPLETS:
                    link = tarfile.TarInfo(f"bin/{applet}")
                    link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "busybox", _DAY
                    tar.addfile(link)
            for one in range(files // _LAYERS):
                words = chance.randbytes(min(int(chance.lognormvariate(7.0, 1.3)), 1 << 18))
                # Half of it can be compressed, as most of what is in images can.
                _file(tar, f"usr/{number}/{one // 100}/{one}", words[: len(words) // 2] * 2)
        layers.append(buffer.getvalue())
    title = f"made-{files}"
    archive = place / f"{title}.tar"
    _write_archive(archive, f"localhost/bench/{title}:1", layers)
    return _with_layout(title, archive)


def _folders(tar: tarfile.TarFile, *names: str) -> None:
    for name in names:
        folder = tarfile.TarInfo(name)
        folder.type, folder.mode, folder.mtime = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755, _DAY
        tar.addfile(folder)


def _file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), 0o755, _DAY
    tar.addfile(info, io.BytesIO(content))


def _write_archive(archive: Path, name: str, layers: list[bytes]) -> None:
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": "2026-01-01T00:00:00Z", "created_by": "made for a benchmark"} for _ in layers],
    }
    words = json.dumps(config).encode()
    config_name = f"{hashlib.sha256(words).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": [f"{digest}/layer.tar" for digest in digests]}]
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        _file(tar, config_name, words)
        for digest, layer in zip(digests, layers, strict=True):
            _file(tar, f"{digest}/layer.tar", layer)
        _file(tar, "manifest.json", json.dumps(manifest).encode())


def _with_layout(title: str, archive: Path) -> Image:
    if shutil.which("skopeo") is None:
        return Image(title, archive, None, None)
    layout = archive.with_suffix(".oci")
    run("skopeo", "copy", "-q", "--insecure-policy", f"docker-archive:{archive}", f"oci:{layout}:1")
    packed = archive.with_suffix(".oci.tar")
    run("tar", "-C", layout, "-cf", packed, "oci-layout", "index.json", "blobs")
    return Image(title, archive, layout, packed)
