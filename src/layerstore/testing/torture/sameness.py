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

from layerstore.kernel.btrfs import is_read_only
from layerstore.kernel.files import filesystem_type
from layerstore.testing.filesystems import mountpoints
from layerstore.testing.tars import EPOCH, SECOND
from layerstore.testing.torture import rows
from layerstore.testing.torture.pictures import quota_groups

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

_UNTOLD = re.compile(r"0/(layerstore\.db(-wal|-shm|-journal)?|reserve|staging/\.spare)")
"""The database, whose rows are told, and free space."""

_ROOT_OF_SUBVOLUME = 256
"""The inode of one (linux/btrfs_tree.h: BTRFS_FIRST_FREE_OBJECTID)."""

_LETTERS = bytes.maketrans(b"0123456789abcdef", b"ghijklmnopqrstuv")
"""That no name has."""

_SHORT = 4096
"""Bytes of a file that are told as they are, for there may be a name in them; of more, the digest."""


def facts_of(memory: Path, data_root: Path, *more: Path) -> Sequence[bytes]:
    """All that there is in these folders, in the store's database and mounted in them. Nothing of it is altered.

    `memory`: where a copy of the database may lie meanwhile.
    """
    found: list[bytes] = []
    joined: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    is_btrfs = data_root.exists() and filesystem_type(data_root) == "btrfs"
    for number, folder in enumerate((data_root, *more)):
        for path, entry, facts in _below(str(folder), str(number)):
            found.append(os.fsencode(path) + b" " + _of_file(entry, facts))
            if facts.st_nlink > 1 and not stat.S_ISDIR(facts.st_mode):
                joined[facts.st_dev, facts.st_ino].append(path)
            elif is_btrfs and facts.st_ino == _ROOT_OF_SUBVOLUME:
                found.append(os.fsencode(f"{path} is a subvolume, read-only: {is_read_only(entry)}"))
    found += [b"one file: " + os.fsencode(" ".join(sorted(names))) for names in joined.values()]
    found += [_row(table, row) for table, row in rows.all_of(data_root / "layerstore.db", memory)]
    found += [b"mounted " + os.fsencode(name) for name in mountpoints() if Path(name).is_relative_to(data_root)]
    found.append(b"quota groups: %d" % quota_groups(data_root))
    return found


def names_in(facts: Iterable[bytes]) -> frozenset[bytes]:
    """The names in them that may be random."""
    return frozenset(name for fact in facts for name in _NAME.findall(fact))


def same(facts: Sequence[bytes], usual: Set[bytes]) -> str:
    """A digest that is the same for two moments of which the facts differ by the time and by random names alone.

    A name is random if it is not a `usual` one. It is told apart from others by where it stands, and by which others
    stand there, too.
    """
    names = {name: b"*" for name in names_in(facts) if name not in usual}
    for _ in range(2):
        places: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for fact, shape in zip(facts, _named(facts, names), strict=True):
            for at, name in enumerate(_NAME.findall(fact)):
                if name in names:
                    places[name].append(b"%d %s" % (at, shape))
        names = {name: _digest(b"\n".join(sorted(found))) for name, found in places.items()}
    return _digest(b"\n".join(sorted(_named(facts, names)))).decode()


def _named(facts: Iterable[bytes], names: Mapping[bytes, bytes]) -> Iterator[bytes]:
    return (_NAME.sub(lambda name: names.get(name[0], name[0]), fact) for fact in facts)


def _below(folder: str, name: str) -> Iterator[tuple[str, str, os.stat_result]]:
    """What it is called here, its path and its facts, of all that is told of."""
    for entry in os.scandir(folder):
        path = f"{name}/{entry.name}"
        if not _UNTOLD.fullmatch(path):
            facts = entry.stat(follow_symlinks=False)
            yield path, entry.path, facts
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
    return b"row of %s: %s" % (table.encode(), b", ".join(map(_shown, row.values())))


def _shown(value: object) -> bytes:
    if isinstance(value, bytes | str):
        return _PASSING.sub(b"T", value if isinstance(value, bytes) else os.fsencode(value))
    number = _PASSING.sub(b"T", repr(value).encode())
    return number.translate(_LETTERS)  # which is no name, however long it is


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode().translate(_LETTERS)
