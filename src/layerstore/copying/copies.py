"""A copy from one tree to another, from a tar, and into one: where it lands, and how."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO

from attrs import evolve

from layerstore.copying import entries, places, tarring
from layerstore.copying.entries import Entry
from layerstore.copying.places import Landing, Spot, Tree
from layerstore.copying.writing import Manner, Writer
from layerstore.errors import CannotCopy, named
from layerstore.values import frozen


@frozen
class Copied:
    """What was copied: how many files, folders and other things, the bytes of the files, and what was left out."""

    entries: int
    size: int
    notices: tuple[str, ...] = ()


def copy(
    source: Tree, path: str, target: Tree, place: str, *, owner: tuple[int, int], archive: bool, follow: bool
) -> Copied:
    """Copy what `path` means in one tree to `place` in another, by docker's rules.

    All becomes `owner`'s. `archive`: owners stay as they are, and so do setuid bits, extended attributes and devices,
    which are left out otherwise. `follow`: if `path` is a symbolic link, what it leads to is copied.
    """
    manner = Manner(None if archive else owner, exact=archive, folders=archive)
    with places.source(source, path, follow=follow) as found, places.spot(target, place) as there:
        lands = places.landing(
            folder=found.is_folder, contents=found.contents, there=there, folder_only=places.asked(place).folder_only
        )
        above: tuple[str, ...] = ()
        if lands is not Landing.MERGED:
            above = (there.name if lands is Landing.AT else found.name,)
        with _base(there, inside=lands is not Landing.AT) as base:
            return _written(Writer(base, manner), _below(above, entries.of_tree(found.handle, xattrs=archive)))


def copy_from_tar(stream: BinaryIO, target: Tree, place: str, *, archive: bool) -> Copied:
    """Unpack a tar into the folder `place`, with all that it says of its entries.

    `archive`: folders that are there get the attributes that the tar has for them, too.
    """
    manner = Manner(None, exact=True, folders=archive)
    with places.spot(target, place) as there:
        if not there.is_folder:
            raise CannotCopy(f"the destination {place} {target.where} must be a directory", path=place)
        with _base(there, inside=True) as base:
            writer = Writer(base, manner, root=target.root, place=place, links=True)
            return _written(writer, tarring.of_tar(stream))


def copy_to_tar(source: Tree, path: str, stream: BinaryIO, *, follow: bool) -> Copied:
    """Write what `path` means in a tree as a tar, whose names begin with the path's last one."""
    with places.source(source, path, follow=follow) as found:
        above = () if found.contents and found.is_folder else (found.name,)
        with (
            tarring.writing(stream) as writer,
            closing(_below(above, entries.of_tree(found.handle, xattrs=True))) as listed,
        ):
            for entry in listed:
                writer.put(entry)
    return Copied(writer.entries, writer.size, tuple(writer.notices))


def _written(writer: Writer, found: Generator[Entry]) -> Copied:
    # Closed at once, whoever keeps the error: a container cannot be unmounted while something in it is open.
    with closing(found), closing(writer):
        for entry in found:
            writer.put(entry)
        writer.finish()
    return Copied(writer.entries, writer.size, tuple(writer.notices))


def _below(above: tuple[str, ...], found: Generator[Entry]) -> Generator[Entry]:
    """The entries under other names: below those of `above`."""
    with closing(found):
        for entry in found:
            same_as = None if entry.same_as is None else (*above, *entry.same_as)
            yield evolve(entry, path=(*above, *entry.path), same_as=same_as) if above else entry


@contextmanager
def _base(there: Spot, *, inside: bool) -> Iterator[int]:
    """The folder that is written into: the one that is there, or the one that it is to be in."""
    if not inside or not there.name:
        yield there.folder
        return
    with named("open", there.text):
        fd = os.open(there.name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=there.folder)
    try:
        yield fd
    finally:
        os.close(fd)
