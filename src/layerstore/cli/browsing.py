"""The commands that read the trees of images, containers and checkpoints without a mount: ls, cat, find, du."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

import click

from layerstore.cli import completion, output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Column, Form, format_option, show_rows
from layerstore.cli.objects import no_such
from layerstore.errors import InvalidReference, LayerstoreError, NotFound
from layerstore.values import define, frozen

if TYPE_CHECKING:
    from collections.abc import Hashable

    from layerstore.containers import Checkpoint, Container
    from layerstore.images import Image
    from layerstore.store import Store
    from layerstore.trees import Entry, Tree

_KINDS: Final = {
    "f": stat.S_IFREG,
    "d": stat.S_IFDIR,
    "l": stat.S_IFLNK,
    "c": stat.S_IFCHR,
    "b": stat.S_IFBLK,
    "p": stat.S_IFIFO,
    "s": stat.S_IFSOCK,
}
_TYPES: Final = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}
_LONG: Final = "{{.Mode}}\t{{.UID}}\t{{.GID}}\t{{.Size}}\t{{.Modified}}\t{{.Shown}}"
_IN_A_LINE: Final = {ord("\t"): "\\t", ord("\n"): "\\n"}
_PIECE: Final = 1 << 20
_REGISTRY: Final = "docker://"
_PLACE = "IMAGE|CONTAINER[:PATH]"


# --- what a place means ---


@contextmanager
def browsed(arguments: Arguments, place: str, *, indexes: bool) -> Iterator[tuple[Tree, str]]:
    """While inside: the tree of NAME:PATH, and the path in it.

    The name of an image can have colons itself: its path begins with a slash, and a relative one is what is behind the
    last colon of what is no name as a whole. With `docker://` before it, it is read in its registry; `indexes` is as
    for `registry.browse`.
    """
    name, colon, rest = place.removeprefix(_REGISTRY).partition(":/")
    if place.startswith(_REGISTRY):
        from layerstore import registry

        with registry.browse(name, config=arguments.config, indexes=indexes) as remote:
            yield remote, f"/{rest}"
        return
    with arguments.open() as store, _found(store, place, f"/{rest}" if colon else None) as found:
        yield found


@contextmanager
def _found(store: Store, place: str, path: str | None) -> Iterator[tuple[Tree, str]]:
    """`path`: what is behind the first `:/`."""
    if path is not None:
        subject = _subject(store, place.partition(":/")[0])
    else:
        try:
            subject, path = _subject(store, place), "/"
        except NotFound:
            shorter, colon, path = place.rpartition(":")
            if not colon:
                raise
            subject = _subject(store, shorter)
    with subject.browse() as tree:
        yield tree, path


def _subject(store: Store, name: str) -> Image | Container | Checkpoint:
    try:
        return store.subject(name)
    except (NotFound, InvalidReference) as problem:
        if name.startswith("/"):
            raise NotFound(
                f"no such object: {name}", remedy=f"A path is written behind the name that has it: NAME:{name}"
            ) from None
        raise no_such(name, problem) from None


@frozen
class _Line:
    """One entry as it is listed: under the name that a list shows."""

    entry: Entry
    name: str

    @property
    def shown(self) -> str:
        """The name, and where a link leads."""
        text = f"{self.name} -> {self.entry.target()}" if self.entry.is_symlink else self.name
        return text.translate(_IN_A_LINE)


_COLUMNS: Final[Mapping[str, Column[_Line]]] = {
    "Mode": Column("MODE", lambda line: stat.filemode(line.entry.mode)),
    "UID": Column("UID", lambda line: line.entry.uid),
    "GID": Column("GID", lambda line: line.entry.gid),
    "Size": Column("SIZE", lambda line: _size(line.entry)),
    "Modified": Column("MODIFIED", lambda line: _time(line.entry.mtime_ns)),
    "Name": Column("NAME", lambda line: line.name),
    "Shown": Column("NAME", lambda line: line.shown, listed=False),
    "Path": Column("PATH", lambda line: f"/{line.entry.path}"),
    "Type": Column("TYPE", lambda line: _TYPES.get(stat.S_IFMT(line.entry.mode), "")),
    "Bytes": Column("BYTES", lambda line: line.entry.size),
    "Target": Column("TARGET", lambda line: line.entry.target()),
    "MtimeNs": Column("MTIME", lambda line: line.entry.mtime_ns),
}


def _size(entry: Entry) -> str:
    """Of a file its bytes, of a device its numbers."""
    if entry.device != (0, 0):
        return "{}, {}".format(*entry.device)
    return units.size(entry.size)


def _time(ns: int) -> str:
    try:
        return datetime.fromtimestamp(ns // 1_000_000_000).strftime("%Y-%m-%d %H:%M")
    except (OverflowError, ValueError, OSError):  # a tar can say what no calendar does
        return f"@{ns // 1_000_000_000}"


# --- commands ---

_indexes_option = click.option(
    "--indexes", is_flag=True, help="In a registry: read by what `push --with-index` attached, and believe it"
)


@click.command(cls=Command)
@click.argument("places", metavar=f"{_PLACE}...", nargs=-1, required=True, shell_complete=completion.places)
@click.option("-l", "--long", "is_long", is_flag=True, help="Show mode, owner, size and time of each")
@click.option("-d", "--directory", "itself", is_flag=True, help="Show a folder itself, not what is in it")
@_indexes_option
@format_option(rows=True)
@click.pass_obj
def ls_command(
    arguments: Arguments, *, places: tuple[str, ...], is_long: bool, itself: bool, indexes: bool, form: Form
) -> int:
    """List what is in a folder of an image or container, or of a checkpoint (CONTAINER@LABEL).

    Nothing is mounted, and no program of the image runs. Names that begin with a dot are shown as well. Several places
    are shown one after the other.
    """

    def show(place: str) -> None:
        with browsed(arguments, place, indexes=indexes) as (tree, path):
            found = tree.find(path, follow=not (itself or is_long) or path.endswith("/"))
            if found.is_folder and not itself:
                lines: Iterable[_Line] = (_Line(entry, entry.name) for entry in tree.children(found))
            else:
                lines = [_Line(found, path)]
            if is_long or form.template is not None or form.is_table:
                show_rows(lines, _COLUMNS, form, _LONG)
            else:
                output.lines(line.name for line in lines)

    return _each(places, show, headed=form.template is None)


@click.command(cls=Command)
@click.argument("places", metavar="IMAGE|CONTAINER:PATH...", nargs=-1, required=True, shell_complete=completion.places)
@_indexes_option
@click.pass_obj
def cat_command(arguments: Arguments, *, places: tuple[str, ...], indexes: bool) -> int:
    """Write files of images and containers to standard output. Nothing is mounted."""

    def show(place: str) -> None:
        with browsed(arguments, place, indexes=indexes) as (tree, path), tree.open(path) as file:
            while piece := file.read(_PIECE):
                output.write_bytes(piece)

    output.flush()
    return _each(places, show)


@click.command(cls=Command)
@click.argument("place", metavar=_PLACE, shell_complete=completion.places)
@click.option("--name", metavar="PATTERN", help="Only those of such a name: * ? [a-z]")
@click.option("--path", "whole", metavar="PATTERN", help="Only those of such a path; * matches / as well")
@click.option(
    "--type", "kind", type=click.Choice(list(_KINDS)), help="Files, folders, links, devices, pipes, sockets only"
)
@click.option("--maxdepth", type=click.IntRange(min=0), metavar="LEVELS", help="Go down so many folders at most")
@click.option("-0", "--print0", "zero", is_flag=True, help="A zero byte after each path, in the place of a line break")
@_indexes_option
@format_option(rows=True)
@click.pass_obj
def find_command(
    arguments: Arguments,
    *,
    place: str,
    name: str | None,
    whole: str | None,
    kind: str | None,
    maxdepth: int | None,
    zero: bool,
    indexes: bool,
    form: Form,
) -> None:
    """List all that is below a path of an image or container, or what of it fits. No link is followed."""

    def fits(entry: Entry) -> bool:
        return (
            (name is None or fnmatchcase(entry.name, name))
            and (whole is None or fnmatchcase(f"/{entry.path}", whole))
            and (kind is None or stat.S_IFMT(entry.mode) == _KINDS[kind])
        )

    with browsed(arguments, place, indexes=indexes) as (tree, path):
        lines = (_Line(entry, f"/{entry.path}") for entry in _walked(tree, path, maxdepth) if fits(entry))
        if form.template is not None or form.is_table:
            show_rows(lines, _COLUMNS, form, _LONG)
        elif zero:
            for line in lines:
                output.write_bytes(os.fsencode(line.name) + b"\0")
        else:
            output.lines(line.name for line in lines)


def _walked(tree: Tree, path: str, depth: int | None) -> Iterator[Entry]:
    waiting = [(tree.find(path), 0)]
    while waiting:
        entry, level = waiting.pop()
        yield entry
        if entry.is_folder and (depth is None or level < depth):
            waiting += [(child, level + 1) for child in reversed(list(tree.children(entry)))]


@click.command(cls=Command)
@click.argument("place", metavar=_PLACE, shell_complete=completion.places)
@click.option("-a", "--all", "with_files", is_flag=True, help="Show files, too")
@click.option("-b", "--bytes", "exact", is_flag=True, help="Show bytes")
@click.option("-d", "--max-depth", "depth", type=click.IntRange(min=0), metavar="LEVELS", help="Show so many levels")
@click.option("-s", "--summarize", "total", is_flag=True, help="Show the sum alone")
@_indexes_option
@format_option(rows=True)
@click.pass_obj
def du_command(
    arguments: Arguments,
    *,
    place: str,
    with_files: bool,
    exact: bool,
    depth: int | None,
    total: bool,
    indexes: bool,
    form: Form,
) -> None:
    """Show what is in the files below a path of an image or container, folder by folder.

    It is the bytes that can be read, and of a file with several names they count once, where it is met first.
    """
    columns: Mapping[str, Column[_Sum]] = {
        "Size": Column("SIZE", lambda one: str(one.bytes) if exact else units.size(one.bytes)),
        "Bytes": Column("BYTES", lambda one: one.bytes),
        "Files": Column("FILES", lambda one: one.files),
        "Path": Column("PATH", lambda one: one.path.translate(_IN_A_LINE)),
    }
    with browsed(arguments, place, indexes=indexes) as (tree, path):
        sums = _sums(tree, tree.find(path), 0 if total else depth, with_files=with_files)
        if form.template is not None or form.is_table:
            show_rows(sums, columns, form, "{{.Size}}\t{{.Files}}\t{{.Path}}")
        else:
            output.lines(f"{columns['Size'].value(one)}\t{one.path}" for one in sums)


@frozen
class _Sum:
    path: str
    bytes: int
    files: int


@define
class _Open:
    """A folder while what is in it is summed up."""

    entry: Entry
    rest: Iterator[Entry]
    bytes: int = 0
    files: int = 0

    def add(self, size: int, files: int) -> None:
        self.bytes += size
        self.files += files


def _sums(tree: Tree, root: Entry, depth: int | None, *, with_files: bool) -> Iterator[_Sum]:
    """The sums of folders, each after what is in it; with files, where they are wanted."""
    if not root.is_folder:
        yield _Sum(f"/{root.path}", root.size, 1)
        return
    seen: set[Hashable] = set()
    within = [_Open(root, tree.children(root))]
    while within:
        folder = within[-1]
        child = next(folder.rest, None)
        if child is None:
            within.pop()
            if within:
                within[-1].add(folder.bytes, folder.files)
            if depth is None or len(within) <= depth:
                yield _Sum(f"/{folder.entry.path}", folder.bytes, folder.files)
        elif child.is_folder:
            within.append(_Open(child, tree.children(child)))
        else:
            size = child.size if child.is_file and child.identity not in seen else 0
            seen.add(child.identity)
            folder.add(size, 1)
            if with_files and (depth is None or len(within) <= depth):
                yield _Sum(f"/{child.path}", size, 1)


def _each(places: tuple[str, ...], show: Callable[[str], None], *, headed: bool = False) -> int:
    """Show each place, with its name above it where there are several and that is wanted. The exit code."""
    code = 0
    for number, place in enumerate(places):
        if headed and len(places) > 1:
            output.lines([*([""] if number else []), f"{place}:"])
        try:
            show(place)
        except LayerstoreError as problem:
            output.error(problem)
            code = 1
    return code
