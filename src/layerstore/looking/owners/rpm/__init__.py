"""Fedora's, Red Hat's, SUSE's: headers in an SQLite database (rpm 4.16 and later), found by the names of files.

Older databases (Berkeley DB, ndb) are told, and not read.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from layerstore.looking.owners.rpm.header import Header
from layerstore.looking.owners.rpm.rows import headers
from layerstore.looking.owners.values import Owner
from layerstore.looking.places import read_file

__all__ = ["NAME", "owners_of"]

NAME = "rpm"
_HOMES = ("usr/lib/sysimage/rpm", "var/lib/rpm")
_OTHERS = {"Packages.db": "an ndb database", "Packages": "a Berkeley DB"}


def owners_of(root: int, names: Sequence[bytes]) -> list[Owner] | str | None:
    """The packages that have a path, which is called by these names. None: there is no such database.

    A sentence: there is one that cannot be read.
    """
    for home in _HOMES:
        database = read_file(root, f"{home}/rpmdb.sqlite")
        if database is not None:
            return _asked(database, read_file(root, f"{home}/rpmdb.sqlite-wal"), names)
    for home in _HOMES:
        for name, kind in _OTHERS.items():
            if read_file(root, f"{home}/{name}") is not None:
                return f"/{home}/{name} is {kind}, which only rpm itself can read"
    return None


def _asked(database: bytes, log: bytes | None, names: Sequence[bytes]) -> list[Owner] | str:
    with tempfile.TemporaryDirectory(prefix="layerstore-") as folder:
        place = Path(folder) / "rpmdb.sqlite"
        place.write_bytes(database)
        if log:  # what was written last is there alone
            place.with_name("rpmdb.sqlite-wal").write_bytes(log)
        try:
            return list(_found(place, names))
        except sqlite3.Error as error:
            return f"rpmdb.sqlite cannot be read: {error}"


def _found(database: Path, names: Sequence[bytes]) -> Iterator[Owner]:
    for name in names:
        folder, _, base = name.rpartition(b"/")
        for header in map(Header, headers(database, base)):
            if header.has(b"/" + folder + b"/" if folder else b"/", base):
                yield Owner(NAME, header.name, header.version, header.architecture)
