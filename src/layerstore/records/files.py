"""The files of records: `<data-root>/records/<kind>/<name>`, JSON, with a line that proves it.

A file is written in place and not synced: whatever opens the store after a power cut, or after somebody died, puts all
of them in step with the database, and one that is not whole is known by its proof.
"""

from __future__ import annotations

import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from layerstore.errors import Damaged, named
from layerstore.kernel.files import names_in
from layerstore.kernel.files.descriptors import is_no_file, private, read_own
from layerstore.values import frozen

__all__ = ["Records", "packed", "unpacked"]

_BYTES = "base64:"
"""What begins a text that stands for bytes; a text that begins so itself gets one more."""


_COMMITS = "commits"
"""In the folder of records: a number, twice, always as long."""


def packed(value: Mapping[str, object]) -> bytes:
    """A record as it is written: a line with the sha256 of the rest, then JSON."""
    import hashlib  # here and below: most commands that open a store read and write no record, and it takes 2 ms

    text = json.dumps(_plain(value), sort_keys=True).encode() + b"\n"
    return hashlib.sha256(text).hexdigest().encode() + b"\n" + text


def unpacked(data: bytes, path: Path) -> dict[str, object]:
    """What a record says. Raises `Damaged`."""
    import hashlib

    proof, _, text = data.partition(b"\n")
    if hashlib.sha256(text).hexdigest().encode() != proof:
        raise Damaged(f"the record {path} is damaged", path=path)
    value = _rich(json.loads(text))
    assert isinstance(value, dict)
    return value


def _overwrite(path: Path, data: bytes) -> None:
    """In place: a new file, or a new name, would have each sync of the database write more than its own log."""
    with named("write", path), open(path, "r+b" if path.exists() else "wb", opener=private) as file:
        file.write(data)
        file.truncate(len(data))


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
        """One of them; None if there is none, or an empty file: one that was not on the disk when the power failed.

        Raises `Damaged`, `KernelError`.
        """
        path = self.path(kind, name)
        with named("read", path):
            try:
                data = read_own(path)
            except FileNotFoundError:
                return None
        return unpacked(data, path) if data else None

    def has(self, kind: str, name: str, text: str) -> bool:
        """Does the record of something hold this text? Whether it is damaged is not looked at. Raises `KernelError`."""
        path = self.path(kind, name)
        with named("read", path):
            try:
                return text.encode() in read_own(path)
            except FileNotFoundError:
                return False

    def write(self, kind: str, name: str, value: Mapping[str, object] | None) -> None:
        """Let the record of something say this; None: there is none any more. Raises `KernelError`."""
        path = self.path(kind, name)
        if value is None:
            with named("unlink", path):
                path.unlink(missing_ok=True)
            return
        with named("mkdir", path.parent):
            if not path.parent.is_dir():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.folder.chmod(0o700)
        _overwrite(path, packed(value))

    def commits(self) -> int:
        """How many commits `note_commits` was last told of; 0 if nothing says so."""
        try:
            first, second = read_own(self.folder / _COMMITS).split()
            return int(first) if first == second else 0
        except (OSError, ValueError, Damaged):
            return 0

    def note_commits(self, count: int) -> None:
        """Write down that so many durable commits are on the disk. Raises `KernelError`."""
        _overwrite(self.folder / _COMMITS, f"{count:020} {count:020}\n".encode())

    def every(self) -> Iterator[tuple[str, str]]:
        """The kind and the name of each record that there is, and of other files that lie there."""
        for path in self._there():
            with named("stat", path):
                is_file = path.is_file()
            if is_file:
                yield path.parent.name, path.name

    def strange(self) -> Iterator[Path]:
        """What lies there and is no file: no record can be that."""
        for path in self._there():
            with named("stat", path):
                is_strange = is_no_file(path)
            if is_strange:
                yield path

    def _there(self) -> Iterator[Path]:
        for kind in names_in(self.folder):
            with named("stat", self.folder / kind):
                is_folder = (self.folder / kind).is_dir()
            if is_folder:
                for name in names_in(self.folder / kind):
                    yield self.folder / kind / name
