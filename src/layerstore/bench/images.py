"""The images that the bench works on, made here and always the same for one seed and scale; as docker-archives.

The main one is like real images: eight layers, the lowest the largest; sizes of files spread log-normally with a median
of 4 KB and a few large ones; folders some levels deep, symlinks, some hard links; upper layers replace and remove a
little of what is below. The others are small and bare, each for one question. Nothing is kept in memory but a layer.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import random
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from layerstore.values import frozen

__all__ = ["LARGE_FILE", "SMALL_FILES", "Shape", "bottom_files", "main_image", "make_archive", "members"]

_WHEN: Final = 1_700_000_000
_SHARES: Final = (0.45, 0.22, 0.15, 0.09, 0.05, 0.02, 0.01, 0.01)
"""How the files of the main image are spread over its layers, bottom to top."""
_MEDIAN: Final = 4096
_SIGMA: Final = 1.5
_LARGEST: Final = 4 << 20
_POOL: Final = 8 << 20

LARGE_FILE: Final = "data/large.bin"
SMALL_FILES: Final = tuple(f"data/small-{number:02}" for number in range(20))
_BOTTOM: Final = 100
_WIDE_LAYERS: Final = 4

_SAID: Final = """
bin lib share doc include cache data core net http json yaml test unit locale en de fr icons fonts certs parser codec
driver plugin theme tools scripts config schema models views static images modules common internal
"""
_WORDS: Final = tuple(_SAID.split())
_ENDINGS: Final = (".py", ".so", ".txt", ".h", ".json", ".mo", ".pyc", ".conf", ".html", "", ".js", ".gz")


@frozen
class Shape:
    """How large everything is."""

    scale: float
    seed: int
    depths: tuple[int, ...]

    @property
    def files(self) -> int:
        """Files of the main image."""
        return max(round(10_000 * self.scale), 60)

    @property
    def large(self) -> int:
        """Bytes of the large file. 64 MiB unless the scale is that of a trial."""
        return (64 << 20) if self.scale >= 0.2 else max(round((64 << 20) * self.scale * 5), 1 << 20)

    @property
    def small_image(self) -> int:
        """Files of the image that many containers are made of at once."""
        return max(round(1000 * self.scale), 30)

    @property
    def names(self) -> int:
        """Names in each layer of the wide folder."""
        return max(round(2500 * self.scale), 25)


def bottom_files() -> list[str]:
    """The files that lie in the bottom layer of a deep image."""
    return [f"tree/bottom-{number:03}" for number in range(_BOTTOM)]


def make_archive(target: Path, kind: str, shape: Shape) -> int:
    """Write the image `main`, `big`, `wide`, `small` or `deep-N` as a docker-archive; how many bytes its layers are."""
    if kind == "main":
        layers = main_image(shape)
    elif kind == "big":
        layers = iter([_big(shape)])
    elif kind == "wide":
        layers = _wide(shape)
    elif kind == "small":
        layers = iter([_small(shape)])
    else:
        layers = _deep(int(kind.removeprefix("deep-")))
    return _archive(target, layers, f"bench:{kind}")


def members(archive: Path) -> list[tuple[int, int]]:
    """Where the layers' tars lie in a docker-archive with plain layers, bottom to top: offset and size."""
    with tarfile.open(archive, "r:") as tar:
        places = {info.name: (info.offset_data, info.size) for info in tar if info.isreg()}
        links = {info.name: info.linkname for info in tar.getmembers() if info.issym() or info.islnk()}
        offset, size = places["manifest.json"]
        with archive.open("rb") as file:
            file.seek(offset)
            [manifest] = json.loads(file.read(size))
    found = []
    for name in manifest["Layers"]:
        # Old archives have a link where two layers are the same.
        linked = os.path.normpath(os.path.join(os.path.dirname(name), links[name])) if name in links else name
        found.append(places[name] if name in places else places[linked])
    return found


# ---- the layers, each a tar


def _nameless() -> IO[bytes]:
    """A file that has no name, in memory while it is small."""
    return tempfile.SpooledTemporaryFile(max_size=4 << 20)


class _Layer:
    """A tar in the making, in a file that has no name."""

    def __init__(self) -> None:
        self.file = _nameless()
        """`_archive` closes it, once the layer is in the archive."""
        self._tar = tarfile.TarFile(fileobj=self.file, mode="w", format=tarfile.PAX_FORMAT)
        self._folders: set[str] = set()

    def folder(self, name: str) -> None:
        """A folder, after those it lies in."""
        if name in self._folders or not name:
            return
        self.folder(os.path.dirname(name))
        self._folders.add(name)
        self._add(name, tarfile.DIRTYPE, mode=0o755)

    def file_of(self, name: str, content: bytes | memoryview, mode: int = 0o644) -> None:
        """A regular file."""
        self.folder(os.path.dirname(name))
        self._add(name, tarfile.REGTYPE, content=content, mode=mode)

    def link(self, name: str, target: str, kind: bytes) -> None:
        """A symlink, or a hard link."""
        self.folder(os.path.dirname(name))
        self._add(name, kind, target=target, mode=0o777)

    def _add(self, name: str, kind: bytes, *, mode: int, content: bytes | memoryview = b"", target: str = "") -> None:
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname, info.mtime, info.size = kind, mode, target, _WHEN, len(content)
        self._tar.addfile(info, io.BytesIO(content))

    def done(self) -> IO[bytes]:
        """The tar, whole."""
        self._tar.close()
        return self.file


def main_image(shape: Shape) -> Iterator[IO[bytes]]:
    """The layers of an image like real ones."""
    chance = random.Random(shape.seed)
    pool = memoryview(_pool(chance))
    below: list[str] = []
    for number, share in enumerate(_SHARES):
        layer, names = _Layer(), _Names(chance, number)
        count = max(round(shape.files * share), 3)
        own: list[str] = []
        for index in range(count):
            name = names.new()
            kind = chance.random()
            if kind < 0.07 and own:
                layer.link(name, os.path.basename(chance.choice(own)), tarfile.SYMTYPE)
            elif kind < 0.08 and own:
                layer.link(name, chance.choice(own), tarfile.LNKTYPE)
            else:
                layer.file_of(name, _content(chance, pool, index, number), 0o755 if chance.random() < 0.1 else 0o644)
                own.append(name)
        for name in chance.sample(below, min(len(below), count // 20)):
            if chance.random() < 0.7:
                layer.file_of(name, _content(chance, pool, 1, number))
            else:
                layer.file_of(os.path.join(os.path.dirname(name), f".wh.{os.path.basename(name)}"), b"")
                below.remove(name)
        below += own
        yield layer.done()


def _content(chance: random.Random, pool: memoryview, index: int, number: int) -> memoryview:
    """What a file holds. The first file of the three lowest layers is a large one."""
    if index == 0 and number < 3:
        size = _LARGEST - chance.randrange(_LARGEST // 4)
    else:
        size = min(round(_MEDIAN * math.exp(chance.gauss(0, _SIGMA))), _LARGEST)
    start = chance.randrange(len(pool) - size)
    return pool[start : start + size]


def _pool(chance: random.Random) -> bytes:
    """Bytes to cut files from: half of them text that compresses, half of them not."""
    words = " ".join(chance.choices(_WORDS, k=_POOL // 12)).encode()
    text = (words * (_POOL // len(words) + 1))[: _POOL // 2]
    return text + chance.randbytes(_POOL // 2)


class _Names:
    """New names, in folders with some files each, some levels deep."""

    def __init__(self, chance: random.Random, layer: int) -> None:
        self._chance = chance
        self._layer = layer
        self._count = 0
        self._folder = ""
        self._left = 0

    def new(self) -> str:
        if not self._left:
            depth = self._chance.choices((1, 2, 3, 4, 5, 6), (2, 5, 6, 5, 3, 1))[0]
            top = self._chance.choice(("usr/lib", "usr/share", "usr/bin", "opt/app", "var/lib", "etc"))
            inner = "/".join(self._chance.choice(_WORDS) for _ in range(depth))
            self._folder = f"{top}/{inner}"
            self._left = self._chance.choices((2, 8, 20, 60), (4, 5, 3, 1))[0]
        self._left -= 1
        self._count += 1
        word = self._chance.choice(_WORDS)
        return f"{self._folder}/{word}-{self._layer}{self._count:x}{self._chance.choice(_ENDINGS)}"


def _big(shape: Shape) -> IO[bytes]:
    chance = random.Random(shape.seed)
    layer = _Layer()
    for name in SMALL_FILES:
        layer.file_of(name, chance.randbytes(_MEDIAN))
    layer.file_of(LARGE_FILE, chance.randbytes(shape.large))
    return layer.done()


def _wide(shape: Shape) -> Iterator[IO[bytes]]:
    for number in range(_WIDE_LAYERS):
        layer = _Layer()
        for index in range(shape.names):
            layer.file_of(f"names/{number}-{index:05}", b"")
        yield layer.done()


def _small(shape: Shape) -> IO[bytes]:
    chance = random.Random(shape.seed)
    layer = _Layer()
    for index in range(shape.small_image):
        layer.file_of(f"usr/lib/{index % 20}/{index}", chance.randbytes(chance.randrange(2 * _MEDIAN)))
    return layer.done()


def _deep(depth: int) -> Iterator[IO[bytes]]:
    """A folder with files, and on it layers that each put the same one file into this folder."""
    layer = _Layer()
    for name in bottom_files():
        layer.file_of(name, name.encode())
    yield layer.done()
    for number in range(1, depth):
        layer = _Layer()
        layer.file_of("tree/top", f"{number}\n".encode())
        yield layer.done()


# ---- the archive


def _archive(target: Path, layers: Iterator[IO[bytes]], tag: str) -> int:
    diff_ids: list[str] = []
    total = 0
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for file in layers:
            with file:
                size = file.tell()
                total += size
                file.seek(0)
                digest = hashlib.sha256()
                while block := file.read(1 << 20):
                    digest.update(block)
                file.seek(0)
                if digest.hexdigest() not in diff_ids:
                    _member(archive, f"{digest.hexdigest()}.tar", size, file)
                diff_ids.append(digest.hexdigest())
        config = _config(diff_ids)
        name = f"{hashlib.sha256(config).hexdigest()}.json"
        manifest = [{"Config": name, "RepoTags": [tag], "Layers": [f"{digits}.tar" for digits in diff_ids]}]
        _member(archive, name, len(config), io.BytesIO(config))
        content = json.dumps(manifest).encode()
        _member(archive, "manifest.json", len(content), io.BytesIO(content))
    return total


def _member(archive: tarfile.TarFile, name: str, size: int, file: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    archive.addfile(info, file)


def _config(diff_ids: Sequence[str]) -> bytes:
    content = {
        "created": "2024-01-01T00:00:00Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digits}" for digits in diff_ids]},
    }
    return json.dumps(content).encode()
