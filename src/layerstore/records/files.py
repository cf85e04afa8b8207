"""The files of records: `<data-root>/records/<kind>/<name>`, JSON, with a line that proves it.

A file is written beside and renamed, so it is whole or not there; and it is not synced, for whatever opens the store
after a power cut puts all of them in step with the database.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from layerstore.errors import Damaged, named
from layerstore.values import frozen

__all__ = ["Records", "for_its_owner", "packed", "unpacked"]

_BYTES = "base64:"
"""What begins a text that stands for bytes; a text that begins so itself gets one more."""


def packed(value: Mapping[str, object]) -> bytes:
    """A record as it is written: a line with the sha256 of the rest, then JSON."""
    text = json.dumps(_plain(value), sort_keys=True).encode() + b"\n"
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def unpacked(data: bytes, path: Path) -> dict[str, object]:
    """What a record says. Raises `Damaged`."""
    proof, _, text = data.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != proof:
        raise Damaged(f"the record {path} is damaged", path=path)
    value = _rich(json.loads(text))
    assert isinstance(value, dict)
    return value


def _plain(value: object) -> object:
    match value:
        case bytes():
            return _BYTES + binascii.b2a_base64(value, newline=False).decode()
        case str():
            return f"{_BYTES}:{value}" if value.startswith(_BYTES) else value
        case Mapping():
            return {key: _plain(part) for key, part in value.items()}
        case list() | tuple():
            return [_plain(part) for part in value]
        case _:
            return value


def _rich(value: object) -> object:
    match value:
        case str() if value.startswith(f"{_BYTES}:"):
            return value.removeprefix(f"{_BYTES}:")
        case str() if value.startswith(_BYTES):
            return binascii.a2b_base64(value.removeprefix(_BYTES))
        case dict():
            return {key: _rich(part) for key, part in value.items()}
        case list():
            return [_rich(part) for part in value]
        case _:
            return value


@frozen
class Records:
    """The records of one store. `folder` need not exist."""

    folder: Path

    def path(self, kind: str, name: str) -> Path:
        """Where the record of something lies."""
        return self.folder / kind / name.removeprefix("sha256:")

    def read(self, kind: str, name: str) -> dict[str, object] | None:
        """One of them; None if there is none. Raises `Damaged`, `KernelError`."""
        path = self.path(kind, name)
        with named("read", path):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                return None
        return unpacked(data, path)

    def write(self, kind: str, name: str, value: Mapping[str, object] | None) -> None:
        """Let the record of something say this; None: there is none any more. Raises `KernelError`."""
        path = self.path(kind, name)
        if value is None:
            with named("unlink", path):
                path.unlink(missing_ok=True)
            return
        beside = path.with_name(f".{path.name}.new")
        with named("write", beside):
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.folder.chmod(0o700)
            with open(beside, "wb", opener=for_its_owner) as file:
                file.write(packed(value))
        with named("rename", path):
            path.unlink(missing_ok=True)  # a rename over it would have ext4 write the new one to the disk first
            beside.rename(path)

    def every(self) -> Iterator[tuple[str, str]]:
        """The kind and the name of the file of each record that there is, and of what else lies there."""
        for kind in self._listed(self.folder):
            if (self.folder / kind).is_dir():
                for name in self._listed(self.folder / kind):
                    yield kind, name

    def _listed(self, folder: Path) -> list[str]:
        with named("open", folder):
            try:
                return sorted(os.listdir(folder))
            except FileNotFoundError:
                return []


def for_its_owner(path: str, flags: int) -> int:
    """An opener of files that nobody else may read."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
