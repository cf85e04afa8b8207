"""The volumes of a store: made, filled, given to containers, removed.

A volume's folder is made before its row and goes after it. What is done to the folder is written down before it is
begun (`rows.Unsettled`), under the volume's lock, and struck out when it is done: so a folder without a row that nobody
is at is known to be left by somebody who died, and goes; and one that is not known at all is never touched.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Protocol

from layerstore import facts
from layerstore.database import Database, Transaction
from layerstore.errors import (
    ConfigError,
    Damaged,
    DriverNotSupported,
    InUse,
    KernelError,
    LayerstoreError,
    NotFound,
    named,
)
from layerstore.images.trees import HasTree
from layerstore.kernel.files import fsync_folder, make_plain_folder, move_away, names_in, quota, remove_tree, syncfs
from layerstore.locks import Locks, of_volume
from layerstore.session import Session
from layerstore.values import frozen
from layerstore.volumes import backing, filling, rows
from layerstore.volumes.rows import Made, Unsettled, UseRow
from layerstore.volumes.volume import DATA, Attachment, Use, Volume
from layerstore.wording import in_words

__all__ = ["PrunedVolumes", "VolumeOwner", "Volumes"]

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LONGEST = 255
"""Bytes of a file's name."""


class VolumeOwner(HasTree, Protocol):
    """A container, as volumes know it."""

    @property
    def id(self) -> str:
        """Its ID."""
        ...


@frozen
class PrunedVolumes:
    """What `prune` removed: names, and the bytes that took."""

    names: tuple[str, ...]
    reclaimed: int


@in_words("volumes")
class Volumes:
    """The volumes of a store. Thread-safe."""

    folder: Path

    def __init__(self, folder: Path, database: Database, locks: Locks, session: Session) -> None:
        """`folder` is `<data-root>/volumes`; it is made with the first volume."""
        self.folder = folder
        self._database = database
        self._locks = locks
        self._session = session
        database.provide(rows.TABLES)

    # --- what there is ---

    def get(self, name: str) -> Volume:
        """The volume of this name. Raises `NotFound`."""
        with self._database.read() as tx:
            return Volume(self, _found(tx, name))

    def all(self) -> list[Volume]:
        """All volumes, by name."""
        with self._database.read() as tx:
            return [Volume(self, made) for made in rows.every(tx)]

    def of(self, container: str) -> list[Use]:
        """What the container with this ID has, by place."""
        with self._database.read() as tx:
            found = rows.uses_of(tx, container)
        return [Use(row.target, Volume(self, made), row.read_only) for row, made in found]

    def users(self, name: str) -> list[tuple[str, str]]:
        """The containers that use a volume, as ID and name, the oldest first."""
        with self._database.read() as tx:
            return rows.users(tx, name)

    def counts(self) -> dict[str, int]:
        """How many containers use each of the volumes that are used. @private"""
        with self._database.read() as tx:
            return rows.counts(tx)

    # --- made and given ---

    def create(
        self,
        name: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
        driver: str = backing.DRIVER,
        options: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make a volume; one of that name that is there already is returned as it is, as docker does.

        `options` are those of docker's driver `local`: `type`, `device` and `o`, as mount(8) has them, and `size`.
        Raises `ConfigError`, `DriverNotSupported` (a size, where none can be limited).
        """
        chosen = backing.checked(driver, options or {})
        anonymous = name is None
        name = _new_name() if name is None else _valid(name)
        wanted = Made(name, anonymous, time.time_ns(), dict(labels or {}), chosen)
        self._begin()
        with self._locks.one(of_volume(name)):
            known = self._settled([name]).get(name)
            if known is not None:
                if options and known.options != chosen:
                    raise ConfigError(
                        f"there is a volume {name} with other options", remedy="Remove it, or take another name."
                    )
                return Volume(self, known)
            with self._all_or_nothing([name]):
                self._announce([name])
                if "size" in chosen and (refusal := quota.refusal(self.folder)) is not None:
                    raise DriverNotSupported(f"the size of a volume cannot be limited: {refusal[0]}", remedy=refusal[1])
                self._make(wanted, None)
                self._sync_new([name], copied=False)
                with self._database.write() as tx:
                    rows.insert(tx, wanted)
        return Volume(self, wanted)

    def attach(
        self, container: VolumeOwner, wanted: Sequence[Attachment], *, also: Callable[[Transaction], None] | None = None
    ) -> list[Use]:
        """Let a container have volumes, from here on until it is removed. All of it happens, or nothing.

        Those that are not there are made, and those that are empty are filled from the container's tree (`Attachment`).
        `also` is called in the transaction in which the container gets them, to write down what else belongs to that.
        Raises `ConfigError` (a name that cannot be, a place that is named twice or is no absolute path), `NotFound`
        (the container was removed), `Damaged` (a volume whose folder is gone).
        """
        chosen = [
            (one, _new_name() if one.volume is None else _valid(one.volume), _place(one.target)) for one in wanted
        ]
        _require_apart(place for _, _, place in chosen)
        self._begin()
        now = time.time_ns()
        uses = [UseRow(container.id, place, name, one.read_only) for one, name, place in chosen]
        names = sorted({name for _, name, _ in chosen})
        anonymous = {name for one, name, _ in chosen if one.volume is None}
        with self._tree(container, chosen) as root, self._locks.several(of_volume(name) for name in names):
            known = self._settled(names)
            fresh = {name: Made(name, name in anonymous, now) for name in names if name not in known}
            with self._all_or_nothing(names):
                self._announce(fresh)
                filled = self._fill(root, chosen, known, fresh)
                with self._database.write() as tx:
                    for made in fresh.values():
                        rows.insert(tx, made)
                    rows.use(tx, uses)
                    rows.unsettle(tx, filled, Unsettled.COPIED)
                    if also is not None:
                        also(tx)
            for name in filled:
                self._settle(name, Unsettled.COPIED)
        return self.of(container.id)

    # --- removed ---

    def remove(self, name: str) -> None:
        """Remove a volume with all that is in it. Raises `NotFound`, `InUse`, which names the containers."""
        self._begin()
        with self._locks.one(of_volume(name)):
            self._settled([name])
            with self._database.write() as tx:
                _found(tx, name)
                users = rows.users(tx, name)
                if users:
                    raise _in_use(name, [container for _, container in users])
                rows.delete(tx, name)
            self._settle(name, Unsettled.GOING)

    def prune(self, *, all: bool = False, fits: Callable[[Volume], bool] | None = None) -> PrunedVolumes:
        """Remove the anonymous volumes that no container uses. `all`: those with names too. `fits`: only such."""
        used, gone, size = self.counts(), [], 0
        for volume in self.all():
            if volume.name in used or not (all or volume.is_anonymous) or not (fits is None or fits(volume)):
                continue
            try:
                occupied = volume.usage().size
                volume.remove()
            except (InUse, NotFound):
                continue  # used or removed meanwhile
            gone.append(volume.name)
            size += occupied
        return PrunedVolumes(tuple(gone), size)

    def problems(self) -> Iterator[tuple[str, str, Path]]:
        """What is missing, and what is there and no volume: a kind of problem, its text, and where it is.

        Folders are listed first and rows read last, and what a live process is at is no problem.

        @private
        """
        there = names_in(self.folder)
        with self._database.read() as tx:
            made, unsettled = {one.name: one for one in rows.every(tx)}, rows.unsettled(tx)
        for name in there:
            if name not in made and name not in unsettled and (self.folder / name).exists():
                yield "unknown volume", f"{self.folder / name} is no volume of this store", self.folder / name
        for name in unsettled:
            with self._locks.at_once(of_volume(name)) as free:
                if free and self._is_unsettled(name):
                    yield "garbage", f"{self.folder / name} was left by a process that died", self.folder / name
        for name, one in made.items():
            data = self.folder / name / DATA
            if "device" not in one.options and not data.is_dir() and self._has_row(name):
                yield "missing volume", f"the folder of volume {name} is gone: {data}", data

    def leave(self, tx: Transaction, container: str) -> list[str]:
        """In the transaction in which a container is removed: its anonymous volumes go with it; for `clear`.

        @private
        """
        return rows.leave(tx, container)

    def clear(self, names: Iterable[str]) -> None:
        """Remove the folders of volumes that have no row any more. @private"""
        for name in names:
            with self._locks.one(of_volume(name)):
                self._settled([name])

    def recover(self) -> None:
        """Put in order what the dead left. One that cannot be keeps no other from it; then its error is raised.

        @private
        """
        with self._database.read() as tx:
            names, made = list(rows.unsettled(tx)), [one.name for one in rows.every(tx)]
        # A power cut may take the note and leave the copy.
        names += [name for name in made if name not in names and (self.folder / name / filling.FRESH).exists()]
        failures = []
        for name in names:
            with self._locks.at_once(of_volume(name)) as free:
                if free:
                    try:
                        self._settled([name])
                        remove_tree(self.folder / name / filling.FRESH)
                    except LayerstoreError as problem:
                        failures.append(problem)
        if failures:
            raise failures[0]

    def _is_unsettled(self, name: str) -> bool:
        with self._database.read() as tx:
            return rows.state_of(tx, name) is not None

    def _has_row(self, name: str) -> bool:
        with self._database.read() as tx:
            return rows.find(tx, name) is not None

    def _begin(self) -> None:
        """From here on, if this process dies, the next `open` puts in order what it leaves."""
        self._database.require_writable()
        self._session.begin()

    # --- under the locks of the volumes ---

    def _settled(self, names: Sequence[str]) -> dict[str, Made]:
        """Those of the volumes that are there, with nothing left to be done to any of them."""
        with self._database.read() as tx:
            states = {name: state for name in names if (state := rows.state_of(tx, name)) is not None}
        for name, state in states.items():
            self._settle(name, state)
        with self._database.read() as tx:
            return {name: made for name in names if (made := rows.find(tx, name)) is not None}

    def _settle(self, name: str, state: Unsettled) -> None:
        """Bring to its end what was begun with a volume's folder, or undo it. If that fails, the next `open` does."""
        folder = self.folder / name
        try:
            match state:
                case Unsettled.COMING | Unsettled.GOING:
                    self._remove_folder(folder)
                case Unsettled.COPYING:
                    remove_tree(folder / filling.FRESH)
                case Unsettled.COPIED:
                    filling.move_in(folder)
        except LayerstoreError:
            facts.ask_for_recovery(self._database, self._session.stay)
            raise
        try:
            with self._database.write(durable=False) as tx:
                rows.settle(tx, [name])
        except KernelError:
            # It is done; what says that it is not can be struck out later.
            facts.ask_for_recovery(self._database, self._session.stay)

    def _remove_folder(self, folder: Path) -> None:
        target = self._session.folder / f"{self._session.new_key()}.{DATA}"
        try:
            quota.lift(folder, self.folder)
            is_there = move_away(folder, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise KernelError("rename", error.errno or errno.EIO, path=folder) from None
            remove_tree(folder)  # the volumes are on a filesystem of their own
            is_there = True
        if is_there:
            fsync_folder(self.folder)
        if target.exists():
            self._session.discard(target)

    @contextmanager
    def _all_or_nothing(self, names: Sequence[str]) -> Iterator[None]:
        """While inside, volumes are made and filled; if that fails, nothing is left of it."""
        try:
            yield
        except BaseException:
            with suppress(LayerstoreError):  # the one that is on its way says more
                self._settled(names)
            raise

    def _announce(self, names: Collection[str]) -> None:
        """Write down that these volumes are going to be made."""
        if names:
            if not self.folder.is_dir():  # without it, no store has volumes to put in order
                with named("mkdir", self.folder):
                    self.folder.mkdir(mode=0o711, exist_ok=True)
                    self.folder.chmod(0o711)  # whatever the umask
                fsync_folder(self.folder.parent)
            self._require_free(names)
            with self._database.write() as tx:
                rows.unsettle(tx, names, Unsettled.COMING)

    def _require_free(self, names: Iterable[str]) -> None:
        for name in names:
            if os.path.lexists(self.folder / name):
                raise ConfigError(
                    f"{self.folder / name} is there, and is no volume of this store",
                    remedy="Move it away; its content can then be copied into the volume.",
                    path=self.folder / name,
                )

    def _make(self, made: Made, content: int | None) -> None:
        """Make the folder of a volume, with what the descriptor `content` is of."""
        folder = self.folder / made.name
        with named("mkdir", folder):
            make_plain_folder(folder)
            folder.chmod(0o711)
            size = backing.size_of(made.options)
            if size is not None:
                quota.limit_new(folder, size)
            if content is None:
                make_plain_folder(folder / DATA)
        if content is not None:
            filling.copy(content, folder, DATA)

    def _sync_new(self, names: Iterable[str], *, copied: bool) -> None:
        if copied:
            syncfs(self.folder)
            return
        for name in names:
            fsync_folder(self.folder / name)
        fsync_folder(self.folder)

    def _fill(
        self,
        root: int | None,
        chosen: Sequence[tuple[Attachment, str, str]],
        known: Mapping[str, Made],
        fresh: Mapping[str, Made],
    ) -> list[str]:
        """Make the new volumes, and copy what is to be in them, and in those that are empty; the latter's names."""
        places: dict[str, str] = {}
        for one, name, place in chosen:
            if root is not None and not one.no_copy:
                places.setdefault(name, place)
        filled, copied = [], False
        for name in sorted({*known, *fresh}):
            with self._content(root, places.get(name)) as content:
                if name in fresh:
                    self._make(fresh[name], content)
                    copied = copied or content is not None
                elif self._is_to_be_filled(known[name]) and content is not None:
                    with self._database.write(durable=False) as tx:
                        rows.unsettle(tx, [name], Unsettled.COPYING)
                    filling.copy(content, self.folder / name, filling.FRESH)
                    filled.append(name)
        if fresh or filled:
            self._sync_new(fresh, copied=copied or bool(filled))
        return filled

    def _is_to_be_filled(self, made: Made) -> bool:
        if "device" in made.options:
            return False
        data = self.folder / made.name / DATA
        if not data.is_dir():
            raise Damaged(
                f"the folder of volume {made.name} is gone: {data}",
                remedy=f"Put it back; or remove the volume: layerstore volume rm {made.name}",
                path=data,
            )
        return filling.is_empty(data)

    def _content(self, root: int | None, place: str | None) -> AbstractContextManager[int | None]:
        return _nothing() if root is None or place is None else filling.source(root, place)

    @contextmanager
    def _tree(self, container: VolumeOwner, chosen: Sequence[tuple[Attachment, str, str]]) -> Iterator[int | None]:
        """While inside: the container's tree, if something of it may be copied.

        Before the locks of volumes: this takes the container's.
        """
        with self._database.read() as tx:
            there = {name: rows.find(tx, name) for _, name, _ in chosen}
        wanted = any(
            not one.no_copy and ((made := there[name]) is None or self._is_to_be_filled(made))
            for one, name, _ in chosen
        )
        if not wanted:
            yield None
            return
        with container.open_tree() as root:
            yield root


@contextmanager
def _nothing() -> Iterator[None]:
    yield None


def _found(tx: Transaction, name: str) -> Made:
    made = rows.find(tx, name)
    if made is None:
        raise NotFound(f"no such volume: {name}", remedy="`layerstore volume ls` shows what there is.")
    return made


def _in_use(name: str, containers: Sequence[str]) -> InUse:
    several = "s" if len(containers) > 1 else ""
    return InUse(
        f"volume {name} is in use by container{several} {', '.join(containers)}",
        holders=containers,
        remedy=f"Remove first: layerstore rm {' '.join(containers)}",
    )


def _new_name() -> str:
    return os.urandom(32).hex()


def _valid(name: str) -> str:
    if _NAME.fullmatch(name) is None or len(name) > _LONGEST:
        raise ConfigError(
            f"{name!r} cannot be the name of a volume",
            remedy="Use letters, digits, '_', '.' and '-', two or more, and begin with a letter or digit. "
            "A folder of the host is named by its absolute path.",
        )
    return name


def _require_apart(places: Iterable[str]) -> None:
    seen = set()
    for place in places:
        if place in seen:
            raise ConfigError(f"duplicate mount point: {place}", remedy="Name each place once.")
        seen.add(place)


def _place(target: str) -> str:
    """Where a container has a volume, as a path without `.`, `..` and slashes too many. Raises `ConfigError`."""
    if not target.startswith("/"):
        raise ConfigError(
            f"a volume cannot be mounted at {target!r}: it is no absolute path", remedy="Begin with a slash: /data"
        )
    place = "/" + os.path.normpath(target).lstrip("/")
    if place == "/":
        raise ConfigError("a volume cannot be mounted at /", remedy="Name a folder within the container.")
    return place
