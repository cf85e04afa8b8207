"""Debian's and Ubuntu's: a list of paths for each package in `info`, facts in `status`, or a file each in `status.d`.

`status.d` is of images without a package manager (distroless). Forms: deb(5), dpkg-divert(1).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from layerstore.looking.owners.values import Owner
from layerstore.looking.places import names_of, read_file

__all__ = ["NAME", "owners_of"]

NAME = "dpkg"
_HOME = "var/lib/dpkg"


def owners_of(root: int, names: Sequence[bytes]) -> list[Owner] | str | None:
    """The packages that have a path, which is called by these names. None: there is no such database."""
    lists = [name for name in names_of(root, f"{_HOME}/info") if name.endswith(".list")]
    slim = names_of(root, f"{_HOME}/status.d")
    status = read_file(root, f"{_HOME}/status")
    if not lists and not slim and status is None:
        return None
    diverted = list(_diversions(read_file(root, f"{_HOME}/diversions") or b""))
    wanted = {b"/" + name for name in names}
    found: dict[str, str] = {}
    for there, away, package in diverted:
        if away in wanted:  # here lies what others have as `there`
            for name in _listing(root, lists, {there}):
                if package in ("", name.partition(":")[0]):
                    continue
                found[name] = f"diverted from {os.fsdecode(there)}" + (f" by {package}" if package else "")
    taken = {package for there, _, package in diverted if there in wanted}
    for name in _listing(root, lists, wanted):
        if not taken or name.partition(":")[0] in taken:
            found.setdefault(name, "")
    facts = _facts(status or b"") if found else {}
    owners = [_owner(name, note, facts) for name, note in found.items()]
    return [*owners, *_of_slim(root, slim, set(names))]


def _listing(root: int, lists: Sequence[str], wanted: set[bytes]) -> Iterator[str]:
    """The packages whose lists have one of these paths."""
    for name in lists:
        text = read_file(root, f"{_HOME}/info/{name}") or b""
        # Most lists have none of them: a search for the bytes is ten times as fast as a look at each line.
        if any(path in text for path in wanted) and not wanted.isdisjoint(text.split(b"\n")):
            yield name.removesuffix(".list")


def _diversions(text: bytes) -> Iterator[tuple[bytes, bytes, str]]:
    """Where a file would be, where it is, and the package whose own file is there instead ("": the administrator's)."""
    lines = text.split(b"\n")
    for there, away, package in zip(lines[::3], lines[1::3], lines[2::3], strict=False):
        yield there, away, "" if package == b":" else package.decode(errors="replace")


def _facts(status: bytes) -> dict[str, tuple[str, str]]:
    """Version and architecture of each package, by its name and by `name:architecture`."""
    facts: dict[str, tuple[str, str]] = {}
    for paragraph in status.split(b"\n\n"):
        fields = _fields(paragraph)
        name, architecture = fields.get("Package", ""), fields.get("Architecture", "")
        if name:
            facts[name] = facts[f"{name}:{architecture}"] = fields.get("Version", ""), architecture
    return facts


def _fields(paragraph: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in paragraph.decode(errors="replace").split("\n"):
        key, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            fields[key] = value.strip()
    return fields


def _owner(name: str, note: str, facts: Mapping[str, tuple[str, str]]) -> Owner:
    version, architecture = facts.get(name, ("", ""))
    return Owner(NAME, name.partition(":")[0], version, architecture, note)


def _of_slim(root: int, names: Sequence[str], wanted: set[bytes]) -> Iterator[Owner]:
    for name in names:
        if not name.endswith(".md5sums"):
            continue
        text = read_file(root, f"{_HOME}/status.d/{name}") or b""
        paths = {line.partition(b"  ")[2].removeprefix(b"./").removeprefix(b"/") for line in text.split(b"\n")}
        if not wanted.isdisjoint(paths):
            fields = _fields(read_file(root, f"{_HOME}/status.d/{name.removesuffix('.md5sums')}") or b"")
            title = fields.get("Package") or name.removesuffix(".md5sums")
            yield Owner(NAME, title, fields.get("Version", ""), fields.get("Architecture", ""))
