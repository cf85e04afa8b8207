"""Whether a store is in a state that was met before, to the bit, but for random names and the time.

Where an operation fails, it mostly comes to one of few states, so that a walk over all of its points judges each of
them once (`check`, what is shown, the operation done again), and knows it when it meets it again.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path

from layerstore.testing.filesystems import mountpoints
from layerstore.testing.tars import EPOCH, SECOND
from layerstore.testing.torture import rows

__all__ = ["facts_of", "names_in", "same"]

_NAME = re.compile(
    rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9A-F]{16}|[0-9a-f]{8,}|(?<=layerstore-probe-)[a-z0-9_]{8}"
)
"""What may be random, or follow from the time, as an image's ID does."""

_PASSING = re.compile(
    rb"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?|\b1[6-9]\d{8,17}\b"
    rb"|(?<=127\.0\.0\.1:)\d+|(?<=\"process\": )\d+"
)
"""Times, in words or in seconds or less since the epoch; the port of a server and the number of a process."""

_LATEST = (EPOCH + 10**6) * SECOND
"""What was modified later than this was written just now."""

_UNTOLD = re.compile(r"layerstore\.db(-wal|-shm|-journal)?|reserve|\.spare")
"""The database, whose rows are told, and free space."""

_OF_THE_KERNEL = frozenset({"mount_id", "namespace", "pid", "started", "mount_namespace", "namespace_id"})
"""Columns with numbers that are others each time."""

_SHORT = 4096
"""Bytes of a file that are told as they are, for there may be a name in them; of more, the digest."""


def facts_of(memory: Path, data_root: Path, *more: Path) -> Sequence[bytes]:
    """All that there is in these folders, in the store's database and mounted in them. Nothing of it is altered.

    `memory`: where a copy of the database may lie meanwhile.
    """
    folders = (data_root, *more)
    found = [b"%d%s" % (number, fact) for number, folder in enumerate(folders) for fact in _below(str(folder), "")]
    found += [_row(table, row) for table, row in rows.all_of(data_root / "layerstore.db", memory)]
    found += [b"mounted " + os.fsencode(name) for name in mountpoints() if Path(name).is_relative_to(data_root)]
    return found


def names_in(facts: Iterable[bytes]) -> frozenset[bytes]:
    """The names in them that may be random."""
    return frozenset(name for fact in facts for name in _NAME.findall(fact))


def same(facts: Sequence[bytes], usual: Set[bytes]) -> str:
    """A digest that is the same for two moments of which the facts differ by the time and by random names alone.

    A name is random if it is not a `usual` one. It is told apart from others by where it stands.
    """
    places: defaultdict[bytes, list[bytes]] = defaultdict(list)
    for fact in facts:
        names = [name for name in _NAME.findall(fact) if name not in usual]
        if names:
            shape = _NAME.sub(lambda name: name[0] if name[0] in usual else b"*", fact)
            for at, name in enumerate(names):
                places[name].append(b"%d %s" % (at, shape))
    told = {name: _digest(b"\n".join(sorted(found))) for name, found in places.items()}
    named = (_NAME.sub(lambda name: told.get(name[0], name[0]), fact) for fact in facts)
    return _digest(b"\n".join(sorted(named))).decode()


def _below(folder: str, name: str) -> Iterator[bytes]:
    for entry in os.scandir(folder):
        if not _UNTOLD.fullmatch(entry.name):
            path = f"{name}/{entry.name}"
            facts = entry.stat(follow_symlinks=False)
            yield os.fsencode(path) + b" " + _of_file(entry.path, facts)
            if stat.S_ISDIR(facts.st_mode):
                yield from _below(entry.path, path)


def _of_file(path: str, facts: os.stat_result) -> bytes:
    modified = 0 if facts.st_mtime_ns > _LATEST else facts.st_mtime_ns
    links, content = 0, b""
    if stat.S_ISREG(facts.st_mode):
        links, content = facts.st_nlink, Path(path).read_bytes()
    elif stat.S_ISLNK(facts.st_mode):
        content = os.fsencode(os.readlink(path))
    xattrs = sorted(os.listxattr(path, follow_symlinks=False))
    values = [os.getxattr(path, xattr, follow_symlinks=False) for xattr in xattrs]
    attributes = (facts.st_mode, facts.st_uid, facts.st_gid, facts.st_rdev, modified, links, xattrs, values)
    told = _PASSING.sub(b"T", content) if len(content) < _SHORT else _digest(content)
    return _digest(repr(attributes).encode()) + b" " + told


def _row(table: str, row: Mapping[str, object]) -> bytes:
    values = b", ".join(_shown(value) for column, value in row.items() if column not in _OF_THE_KERNEL)
    return _PASSING.sub(b"T", b"row of %s: %s" % (table.encode(), values))


def _shown(value: object) -> bytes:
    return value if isinstance(value, bytes) else repr(value).encode("utf-8", "surrogateescape")


def _digest(content: bytes) -> bytes:
    """In letters that no name has."""
    digits = hashlib.sha256(content).hexdigest()
    return digits.translate(str.maketrans("0123456789abcdef", "ghijklmnopqrstuv")).encode()
