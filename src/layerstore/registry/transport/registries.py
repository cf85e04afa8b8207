"""containers/image's registries.conf: what it blocks, and where what an image is called by is really read from.

The rules are containers-registries.conf(5)'s. Not taken are those for names without a host: `debian` is Docker Hub's
here, as to docker, whatever `aliases` and `unqualified-search-registries` say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from layerstore.errors import ConfigError, InvalidReference
from layerstore.reference import Reference, parse, registry_at
from layerstore.registry.transport.machine import IGNORE, own_folder, read, stamp
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = ["Place", "blocking", "insecure_hosts", "places_of"]

_FITS: Final = {"all": (True, True), "digest-only": (True, False), "tag-only": (False, True)}
"""What of `pull-from-mirror` holds for images that are named by a digest, and for all others."""


@frozen
class Place:
    """Where a repository is read from: its registry, and its name there. `insecure`: as registries.conf calls it."""

    domain: str
    path: str
    insecure: bool


@frozen
class _Entry:
    """A table `[[registry]]`."""

    file: Path
    prefix: str
    table: Mapping[str, Any]

    def wrong(self, what: str) -> ConfigError:
        """It cannot be understood."""
        return ConfigError(
            f"{self.file}: [[registry]] {printable(self.prefix)}: {what}", remedy=f"Mend it. {IGNORE}", path=self.file
        )


def blocking(wanted: Reference) -> tuple[Path, str] | None:
    """The file and the prefix that keep an image from being pulled, if there are such."""
    entry = _entry_of(wanted)
    return (entry.file, entry.prefix) if entry is not None and entry.table.get("blocked") is True else None


def insecure_hosts() -> tuple[str, ...]:
    """The registries that are called insecure, as a whole."""
    return tuple(
        prefix
        for prefix, entry in _entries().items()
        if "/" not in prefix
        and not prefix.startswith("*")
        and entry.table.get("location", prefix) == prefix
        and entry.table.get("insecure") is True
    )


def places_of(wanted: Reference, *, is_image: bool = True) -> tuple[Place, ...] | None:
    """Where an image is read from, the mirrors in their order, and last what is not a mirror; None: nothing is said.

    `is_image=False`: without tag and digest, `wanted` is a repository whose images may be named by either: each mirror
    may be asked, and no table is meant that is of one tag. Raises `ConfigError` for a table that cannot be understood.
    """
    is_any = not is_image and wanted.tag is None and wanted.digest is None
    entry = _entry_of(wanted, is_any=is_any)
    if entry is None:
        return None
    location = entry.table.get("location", "" if entry.prefix.startswith("*.") else entry.prefix)
    mirrors = entry.table.get("mirror", [])
    if not isinstance(mirrors, list) or not all(isinstance(mirror, dict) for mirror in mirrors):
        raise entry.wrong("mirror is no list of tables")
    return (
        *(
            _place(entry, wanted, mirror.get("location", ""), mirror)
            for mirror in mirrors
            if _is_used(entry, mirror, by_digest=None if is_any else wanted.digest is not None)
        ),
        _place(entry, wanted, location, entry.table),
    )


def _is_used(entry: _Entry, mirror: Mapping[str, Any], *, by_digest: bool | None) -> bool:
    """Is this mirror for images that are named so? None: in some way, which nobody knows any more."""
    if not mirror.get("location"):
        raise entry.wrong("a mirror has no location")
    said = mirror.get("pull-from-mirror") or ""
    only_digests = entry.table.get("mirror-by-digest-only") is True
    if said and only_digests:
        raise entry.wrong("pull-from-mirror cannot be with mirror-by-digest-only")
    if not isinstance(said, str) or (said or "all") not in _FITS:
        raise entry.wrong(f"pull-from-mirror is one of {', '.join(_FITS)}, not {printable(str(said))}")
    of_digests, of_others = _FITS["digest-only" if only_digests else said or "all"]
    return by_digest is None or (of_digests if by_digest else of_others)


def _place(entry: _Entry, wanted: Reference, location: object, table: Mapping[str, Any]) -> Place:
    """What an image's name becomes when `location` is in the place of the prefix."""
    if not isinstance(location, str):
        raise entry.wrong("location is no text")
    is_insecure = table.get("insecure") is True
    root = location.rstrip("/")
    if not root:  # only of `*.example.com`: all of it stays where it is
        return Place(wanted.domain, wanted.path, is_insecure)
    if entry.prefix.startswith("*."):
        rest = wanted.name[len(wanted.domain.partition(":")[0]) :]
    elif len(entry.prefix) > len(wanted.name):
        ending = entry.prefix[len(wanted.name) :]  # the prefix is of one tag or digest
        if not root.endswith(ending):
            raise entry.wrong(f"location {printable(root)} does not end with {printable(ending)}, as its prefix does")
        root, rest = root.removesuffix(ending), ""
    else:
        rest = wanted.name[len(entry.prefix) :]
    try:
        found = parse(root + rest)
    except InvalidReference as error:
        raise entry.wrong(f"location {printable(root)} gives no name of an image: {error.message}") from None
    host = registry_at((root + rest).partition("/")[0])
    if registry_at(found.domain) != host or found.tag is not None or found.digest is not None:
        raise entry.wrong(f"location {printable(root)} has to begin with a registry: host, or host:port")
    return Place(host, found.path, is_insecure)


# ---- the files


def _entry_of(wanted: Reference, *, is_any: bool = False) -> _Entry | None:
    entries = _entries()
    match = _longest(entries, wanted, is_any=is_any)
    return None if match is None else entries[match]


def _entries() -> dict[str, _Entry]:
    """The tables `[[registry]]` of all files by their prefix; of one prefix, what is said last."""
    return {prefix: _Entry(file, prefix, table) for file in _files() for prefix, table in _tables(file).items()}


def _files() -> Iterator[Path]:
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF", "")
    own = own_folder()
    main = Path(named) if named else None
    if main is None and own is not None and os.path.exists(own / "registries.conf"):
        main = own / "registries.conf"
    yield main or Path("/etc/containers/registries.conf")
    if not named:
        for folder in (Path("/etc/containers/registries.conf.d"), own and own / "registries.conf.d"):
            yield from sorted(folder.glob("*.conf")) if folder is not None else ()


def _tables(file: Path) -> Mapping[str, Mapping[str, Any]]:
    found = stamp(file)
    return {} if found is None else _read_tables(file, found)


@lru_cache(maxsize=32)
def _read_tables(file: Path, _: object) -> Mapping[str, Mapping[str, Any]]:
    import tomllib

    try:
        content = tomllib.loads(read(file).decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: no TOML: {error}", remedy=f"Mend it. {IGNORE}", path=file) from None
    tables = content.get("registry", [])
    found: dict[str, Mapping[str, Any]] = {}
    for table in tables if isinstance(tables, list) else ():
        prefix = table.get("prefix") or table.get("location") if isinstance(table, dict) else None
        if isinstance(prefix, str):
            found[prefix.rstrip("/")] = table
    return found


def _longest(entries: Mapping[str, object], wanted: Reference, *, is_any: bool) -> str | None:
    """The most precise prefix that an image is named by: `host/team/app:tag`, `host/team`, `host`, `*.example`."""
    if is_any:
        names = [wanted.name]
    else:
        names = [wanted.full] if wanted.pinned is None else [wanted.pinned, *([wanted.full] if wanted.tag else [])]
    ends = [
        prefix
        for prefix in entries
        if any(name == prefix or name.startswith((f"{prefix}/", f"{prefix}:", f"{prefix}@")) for name in names)
    ]
    if ends:
        return max(ends, key=len)
    host = wanted.domain.partition(":")[0]
    wild = [prefix for prefix in entries if prefix.startswith("*.") and host.endswith(prefix[1:])]
    return max(wild, key=len) if wild else None
