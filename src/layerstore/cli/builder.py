"""The commands `builder ls`, `df` and `prune`, and `builder cache ls`, `export`, `import` and `rm`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final

import click

from layerstore import options
from layerstore.cli import completion, filters, output, units
from layerstore.cli.filters import filter_option
from layerstore.cli.front import Arguments, Command, Group
from layerstore.cli.listing import Column, Form, format_option, rows, show_rows
from layerstore.errors import KernelError, LayerstoreError
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.build.cache import CacheMount, Record
    from layerstore.store import Store

builder_command = Group(
    (
        ("build", "build:build_command", "Build an image from a Dockerfile"),
        ("cache", "builder:cache_command", "Commands on the folders that steps share: ls, export, import, rm"),
        ("df", "builder:df_command", "Show what the cache of builds takes of the room"),
        ("ls", "builder:ls_command", "List what the cache of builds has"),
        ("prune", "builder:prune_command", "Remove what the cache of builds has"),
    ),
    name="builder",
    help="Commands on what builds remember",
)
cache_command = Group(
    (
        ("export", "builder:export_command", "Write what a shared folder holds as a tar"),
        ("import", "builder:import_command", "Put what a tar holds into a shared folder"),
        ("ls", "builder:cache_ls_command", "List the folders that steps share"),
        ("rm", "builder:cache_rm_command", "Remove folders that steps share"),
    ),
    name="cache",
    help="Commands on the folders that steps share (RUN --mount=type=cache)",
)

_FILTERS: Final = ("description", "id", "inuse", "private", "shared", "type", "unused-for", "until")


def moment(ns: int) -> datetime:
    """A time of the cache."""
    return datetime.fromtimestamp(ns // 1000 / 1e6, UTC)


_TRUTH: Final = {True: "true", False: "false"}
"""As a cell of a table."""

COLUMNS: Final[Mapping[str, Column[Record]]] = {
    "ID": Column("CACHE ID", lambda line: line.short_id),
    "CacheType": Column("CACHE TYPE", lambda line: line.kind),
    "Size": Column("SIZE", lambda line: units.size(line.size)),
    "CreatedSince": Column("CREATED", lambda line: units.ago(moment(line.made))),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(moment(line.made))),
    "LastUsedSince": Column("LAST USED", lambda line: units.ago(moment(line.used))),
    "LastUsedAt": Column("LAST USED AT", lambda line: units.local(moment(line.used))),
    "UsageCount": Column("USAGE", lambda line: str(line.uses)),
    "Shared": Column("SHARED", lambda line: _TRUTH[line.shared]),
    "InUse": Column("IN USE", lambda line: _TRUTH[line.in_use]),
    "Reclaimable": Column("RECLAIMABLE", lambda line: _TRUTH[not line.in_use]),
    "Description": Column("DESCRIPTION", lambda line: units.ellipsis(units.one_line(line.description), 60)),
}
_USUAL: Final = "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}\t{{.Description}}"
SUMMARY: Final = (
    "{{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}"
)
"""The table of `system df -v`, as docker has it."""
_DF: Final = "{{.ID}}\t{{.Reclaimable}}\t{{.Size}}\t{{.LastUsedSince}}"

_MOUNTS: Final[Mapping[str, Column[CacheMount]]] = {
    "ID": Column("ID", lambda line: line.id),
    "Container": Column("CONTAINER", lambda line: line.name),
    "Start": Column("BEGAN AS", lambda line: line.start),
    "Size": Column("SIZE", lambda line: units.size(line.size)),
    "CreatedSince": Column("CREATED", lambda line: units.ago(moment(line.made))),
    "CreatedAt": Column("CREATED AT", lambda line: units.local(moment(line.made))),
    "LastUsedSince": Column("LAST USED", lambda line: units.ago(moment(line.used))),
    "LastUsedAt": Column("LAST USED AT", lambda line: units.local(moment(line.used))),
    "UsageCount": Column("USAGE", lambda line: str(line.uses)),
    "InUse": Column("IN USE", lambda line: _TRUTH[line.in_use]),
}


@click.command("ls", cls=Command)
@filter_option("-f", "--filter", known=_FILTERS, verb="Show")
@format_option(rows=True)
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.pass_obj
def ls_command(arguments: Arguments, *, given: tuple[tuple[str, str], ...], form: Form, quiet: bool) -> None:
    """List what the cache of builds has: results of steps, and folders that steps share; last used first."""
    fits = _predicate(given)
    with arguments.open() as store:
        chosen = [record for record in found(store) if fits(record)]
        show_rows(chosen, COLUMNS, form, _USUAL, "{{.ID}}" if quiet else None)


@click.command("df", cls=Command)
@filter_option("-f", "--filter", known=_FILTERS, verb="Show")
@format_option(rows=True)
@click.option("-v", "--verbose", is_flag=True, help="Show all that is known of each")
@click.pass_obj
def df_command(arguments: Arguments, *, given: tuple[tuple[str, str], ...], form: Form, verbose: bool) -> None:
    """Show what the cache of builds takes of the room, and how much of it `builder prune` can free."""
    fits = _predicate(given)
    with arguments.open() as store:
        chosen = [record for record in found(store) if fits(record)]
        output.lines(rows(chosen, COLUMNS, form, _USUAL if verbose else _DF))
        if form.template is None or form.is_table:
            output.lines(aligned_totals(chosen))


@frozen
class Totals:
    """Bytes of the cache, each layer counted once."""

    shared: int
    private: int
    reclaimable: int

    @property
    def total(self) -> int:
        return self.shared + self.private


def totals(records: list[Record]) -> Totals:
    """What these take of the room. What images have, too, is `shared`, and takes nothing more."""
    sizes: dict[str, tuple[int, bool, bool]] = {}
    for one in records:
        name = one.id if one.layer is None else str(one.layer.diff_id)
        used = one.in_use or (name in sizes and sizes[name][2])
        sizes[name] = (one.size, one.shared, used)
    kept = sizes.values()
    return Totals(
        shared=sum(size for size, shared, _ in kept if shared),
        private=sum(size for size, shared, _ in kept if not shared),
        reclaimable=sum(size for size, shared, used in kept if not shared and not used),
    )


def aligned_totals(records: list[Record]) -> Iterator[str]:
    """The lines below the table, as BuildKit has them."""
    sums = totals(records)
    yield ""
    for word, size in (
        ("Shared", sums.shared),
        ("Private", sums.private),
        ("Reclaimable", sums.reclaimable),
        ("Total", sums.total),
    ):
        yield f"{word + ':':<16}{units.size(size, digits=4)}"


def found(store: Store) -> list[Record]:
    """What the cache of builds of a store has."""
    from layerstore.build.cache import Cache, records

    return records(Cache(store))


@click.command("prune", cls=Command)
@click.option("-a", "--all", "everything", is_flag=True, help="Remove what images have, too, which frees no room")
@filter_option("--filter", known=_FILTERS, verb="Remove")
@click.option("-f", "--force", is_flag=True, help="Do not ask")
@click.option(
    "--keep-storage",
    "--reserved-space",
    "keep",
    metavar="BYTES",
    help="Remove what was used longest ago, until the rest takes no more than this",
)
@click.option("-v", "--verbose", is_flag=True, help="Show what was removed")
@click.pass_obj
def prune_command(
    arguments: Arguments,
    *,
    everything: bool,
    given: tuple[tuple[str, str], ...],
    force: bool,
    keep: str | None,
    verbose: bool,
) -> int:
    """Remove results of steps, and folders that steps share. What a build uses that goes on stays."""
    from layerstore.build.cache import Cache, prune
    from layerstore.build.steps.session import sweep

    try:
        limit = options.size(keep)
    except ValueError as error:
        raise click.UsageError(f"keep-storage is {error}, not {keep!r}") from None
    fits = _predicate(given)
    if not force:
        what = "all build cache" if everything else "all build cache that no image has"
        output.warn(f"WARNING! This will remove {what}.")
        if not output.asked("Are you sure you want to continue?"):
            output.error("nothing was removed")
            return 1
    with arguments.open() as store:
        sweep(store)
        pruned = prune(Cache(store), all=everything, keep=limit, fits=fits if given else None)
    if verbose and pruned.records:
        show_rows(pruned.records, COLUMNS, Form(is_table=True), _USUAL)
    elif pruned.records:
        output.lines(["Deleted build cache objects:", *(one.short_id for one in pruned.records), ""])
    output.lines([f"Total reclaimed space: {units.size(pruned.reclaimed, digits=4)}"])
    return 0


def _predicate(given: tuple[tuple[str, str], ...]) -> Callable[[Record], bool]:
    """The filters, as one question to a record."""
    wanted = filters.grouped(given)
    bounds = [filters.time(name, value) for name in ("until", "unused-for") for value in wanted.get(name, ())]
    switches = {
        name: {filters.truth(name, value) for value in wanted[name]}
        for name in ("inuse", "private", "shared")
        if name in wanted
    }

    def fits(record: Record) -> bool:
        facts = {"inuse": record.in_use, "private": not record.shared, "shared": record.shared}
        return (
            all(moment(record.used) < bound for bound in bounds)
            and all(facts[name] in values for name, values in switches.items())
            and filters.any_of(wanted.get("id", ()), record.id.startswith)
            and filters.any_of(wanted.get("type", ()), lambda value: value == record.kind)
            and filters.any_of(wanted.get("description", ()), lambda value: value in record.description)
        )

    return fits


# --- folders that steps share ---


@click.command("ls", cls=Command)
@format_option(rows=True)
@click.option("-q", "--quiet", is_flag=True, help="Show only IDs")
@click.pass_obj
def cache_ls_command(arguments: Arguments, *, form: Form, quiet: bool) -> None:
    """List the folders that steps share, by their IDs."""
    from layerstore.build.cache import CacheMounts

    usual = "{{.ID}}\t{{.Container}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.InUse}}"
    with arguments.open() as store:
        show_rows(CacheMounts(store).all(), _MOUNTS, form, usual, "{{.ID}}" if quiet else None)


@click.command("export", cls=Command)
@click.argument("cache", metavar="CACHE", shell_complete=completion.caches)
@click.argument("file", metavar="FILE", default="-")
@click.pass_obj
def export_command(arguments: Arguments, *, cache: str, file: str) -> None:
    """Write what a folder that steps share holds as a tar: to FILE, or to standard output.

    CACHE is the ID that its mount has (its target, where the Dockerfile gives none), or the name of its container.
    """
    from layerstore.build.cache import CacheMounts

    with arguments.open() as store:
        if file == "-":
            output.binary_output()
            CacheMounts(store).export(cache, output.write_bytes, waits=_wait)
            return
        try:
            with _replacing(file) as target:
                CacheMounts(store).export(cache, partial(_write, target), waits=_wait)
        except OSError as error:
            raise KernelError("write", error.errno or 0, path=file) from error


def _wait() -> None:
    output.warn("waiting for a build that uses it")


@contextmanager
def _replacing(path: str) -> Iterator[BinaryIO]:
    """A file to be written, which gets its name when it is whole. What is no file is written to as it is."""
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as other:
            yield other
        return
    draft = f"{os.path.realpath(path)}.{os.urandom(4).hex()}"
    try:
        with open(draft, "xb") as file:
            yield file
        os.replace(draft, os.path.realpath(path))
    finally:
        with suppress(FileNotFoundError):
            os.unlink(draft)


def _write(target: BinaryIO, data: memoryview) -> None:
    target.write(data)


@click.command("import", cls=Command)
@click.argument("cache", metavar="CACHE", shell_complete=completion.caches)
@click.argument("file", metavar="FILE", default="-")
@click.pass_obj
def import_command(arguments: Arguments, *, cache: str, file: str) -> None:
    """Put what a tar holds, plain or compressed, into a folder that steps share, beside and over what is there.

    One that is not there is made, empty and root's. FILE is the tar, or "-": standard input.
    """
    from layerstore.build.cache import CacheMounts

    with arguments.open() as store:
        if file == "-":
            name = CacheMounts(store).take_in(cache, output.binary_input(), waits=_wait)
        else:
            try:
                with open(file, "rb") as source:
                    name = CacheMounts(store).take_in(cache, source, waits=_wait)
            except OSError as error:
                raise KernelError("open", error.errno or 0, path=file) from error
    output.lines([name])


@click.command("rm", cls=Command)
@click.argument("caches", metavar="CACHE...", nargs=-1, required=True, shell_complete=completion.caches)
@click.pass_obj
def cache_rm_command(arguments: Arguments, *, caches: tuple[str, ...]) -> int:
    """Remove folders that steps share, with all that is in them. One that a step has stays."""
    from layerstore.build.cache import CacheMounts

    failed = 0
    with arguments.open() as store:
        for cache in caches:
            try:
                output.lines([CacheMounts(store).remove(cache).name])
            except LayerstoreError as problem:
                output.error(problem)
                failed = 1
    return failed
