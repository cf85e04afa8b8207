"""COPY and ADD: files from elsewhere become a layer, read from where they lie, without a container.

What is listed: each entry that is copied, the new folders on the way to it, and the folders above that are there, with
the attributes that they have: whoever unpacks the layer by itself must not lose them. With `--link` nobody looks at
what is below, so nothing above the copied is listed.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Protocol

from attrs import evolve

from layerstore import StoredLayer, patterns
from layerstore.build.cache import step_key
from layerstore.build.context import (
    Chosen,
    Digests,
    GitRepository,
    Validators,
    checked_out,
    fetched_unless,
    is_remote,
    open_context,
    repository_of,
)
from layerstore.build.errors import BuildError
from layerstore.build.events import Doing, Warned
from layerstore.build.graph import Base
from layerstore.build.language import Add, Copy, Modes, modes_of, names_folder, one_place_for_several
from layerstore.build.steps.adding import unpacked
from layerstore.build.steps.laying import Entry, Target, apart, lay, require_free
from layerstore.build.steps.memory import written_in_memory
from layerstore.build.steps.origins import Files, Origin
from layerstore.build.steps.places import Spot, absolute, folders_above, names_in, new_folders, owner_of, spot
from layerstore.build.steps.state import StageState
from layerstore.build.steps.steady import Steady
from layerstore.build.steps.work import Key, Record, Work
from layerstore.gathering import Folder, Piece, layer_of
from layerstore.values import frozen

__all__ = ["Copying", "Part", "copied"]


@frozen
class Part:
    """Some of what is copied: where it is, what of it, and whether owners came with it (of an image, of a tar)."""

    origin: Origin
    chosen: Sequence[Chosen]
    keeps_owners: bool = False
    from_archive: bool = False
    """It lands in the destination as in a folder, whatever that is, and with the modes that it has there."""
    unpacks: bool = False
    """Files in it that are archives are taken apart."""


class Input(Protocol):
    """Some of what is copied, which may have to be fetched first."""

    def digest(self) -> str:
        """What it is told by in a key."""
        ...

    def part(self) -> Part:
        """Itself."""
        ...


@frozen
class _Given:
    """What is there already."""

    there: Part

    def digest(self) -> str:
        return self.there.origin.digest_of(self.there.chosen)

    def part(self) -> Part:
        return self.there


class Copying:
    """One COPY or ADD whose variables are filled in. `inputs` finds what is copied, once somebody needs it."""

    def __init__(
        self, work: Work, step: Copy | Add, state: StageState, doing: Doing, inputs: Callable[[], Sequence[Input]]
    ) -> None:
        self._work = work
        self._step = step
        self._state = state
        self._doing = doing
        self._find = inputs
        self._found: Sequence[Input] | None = None

    @property
    def _inputs(self) -> Sequence[Input]:
        if self._found is None:
            self._found = self._find()
        return self._found

    @property
    def _chosen(self) -> Sequence[Part]:
        return [one.part() for one in self._inputs]

    def layer(self, *, anew: bool, quick: str | None) -> StoredLayer | None:
        """The layer that it makes. `quick` is what its input is known by unread, if it is.

        Raises `BuildError` for a destination that cannot be, and an owner that nobody knows.
        """
        parent = None if self._step.link else self._state.top
        keys: list[Key] = [lambda: self._key([one.digest() for one in self._inputs])]
        if quick is not None:
            keys.insert(0, lambda: self._key([quick]))
        layer = self._work.layered(self._doing, keys, self._make, parent=parent, anew=anew)
        if layer is None or layer.parent == self._state.top:
            return layer
        # It does not depend on what is below, and comes to lie on something else this time.
        return self._work.moved(layer, self._state.top)

    def _key(self, inputs: Sequence[str]) -> str:
        step = self._step
        said = {
            "step": step.NAME,
            "sources": step.sources,
            "heredocs": [(heredoc.name, heredoc.content) for heredoc in step.heredocs],
            "target": self._target,
            "chown": step.chown if not step.link or step.chown is None else self._owner(),
            "chmod": step.chmod,
            "link": step.link,
            "parents": step.parents,
            "exclude": step.exclude,
        }
        if isinstance(step, Add) and step.unpack is not None:
            said["unpack"] = step.unpack
        parent = None if step.link else self._state.top
        return step_key(parent, json.dumps(said), {}, inputs, epoch=self._work.epoch)

    @property
    def _target(self) -> str:
        """The destination from the root on; with a / behind it if it is meant as a folder."""
        target = self._step.target
        path = absolute(self._state.working_dir, target)
        return f"{path.rstrip('/')}/" if names_folder(target) else path

    # --- the layer

    def _make(self, record: Record) -> StoredLayer | None:
        work, step = self._work, self._step
        if not step.heredocs and not any(part.chosen for part in self._chosen):
            work.teller.tell(Warned(f"{step.original}: nothing is like that, so nothing is copied", step.place))
            return None
        with ExitStack() as after:
            owner = self._owner()
            modes = self._modes()
            pieces: list[Piece | Folder] = []
            entries: list[Entry] = []
            tree = None if step.link else after.enter_context(work.store.open_layers(self._state.top))
            found = self._spot(tree)
            placed = list(self._placed(found))
            if not step.heredocs and all(part.from_archive for part, _ in placed):
                modes = None
            for part, target in placed:
                root = after.enter_context(part.origin.open_tree())
                for chosen in apart(part.chosen):
                    laid = lay(chosen, target)
                    entries += laid
                    pieces.append(
                        Piece(
                            root,
                            [(entry.path, entry.name) for entry in laid],
                            None if part.keeps_owners and step.chown is None else owner,
                            None if part.from_archive else modes,
                            work.latest,
                        )
                    )
            if step.heredocs:
                pieces.append(after.enter_context(self._written(found, owner, modes, entries)))
            if tree is not None and found.is_folder:  # else all that comes is new, or takes the place of one file
                top = os.fsencode(found.path)
                require_free(entries, top, lambda path: names_in(tree, os.fsdecode(path)), step.place)
            folders = self._folders(tree, found, owner, modes, entries)
            if not entries and not folders:
                return None
            steady = Steady(work.teller, self._doing, step.place, "copied")
            inputs = [(part.origin, part.chosen) for part in self._chosen]
            return work.store.add_layer(
                steady.watched(layer_of([*folders, *pieces], label=self._doing.vertex.name), inputs),
                None if step.link else self._state.top,
                record=record,
                progress=self._doing.progress,
            )

    def _placed(self, found: Spot) -> Iterator[tuple[Part, Target]]:
        """What is copied, and where to.

        A pattern may mean several things, which is known only now. A folder makes one of the destination, and what
        comes after it lands there, as in BuildKit; files that would take one place, of which BuildKit keeps the last,
        are the error that its reference says they are.
        """
        is_made = is_taken = False
        for part in self._expanded():
            is_folder = self._laid_to(found, (), into_folder=part.from_archive).is_folder
            for chosen in [part.chosen] if is_folder else [(one,) for one in part.chosen]:
                target = self._laid_to(found, chosen, into_folder=part.from_archive or is_made)
                if is_taken:
                    refused = one_place_for_several(self._step)
                    raise BuildError(str(refused), place=self._step.place, remedy=refused.remedy)
                is_made |= part.from_archive or any(one.is_folder for one in chosen)
                is_taken = not target.is_folder and not is_made
                yield evolve(part, chosen=chosen), target

    def _expanded(self) -> Iterator[Part]:
        """What is copied, and of each archive of an ADD what is in it, in the order in which they are named."""
        for part in self._chosen:
            if not isinstance(self._step, Add) or not part.unpacks:
                yield part
                continue
            for one in part.chosen:
                found = unpacked(self._work, part.origin, one)
                if found is None:
                    yield evolve(part, chosen=(one,))
                else:
                    yield Part(*found, keeps_owners=True, from_archive=True)

    def _owner(self) -> tuple[int, int]:
        chown = self._step.chown
        if not chown:
            return 0, 0
        with self._work.store.open_layers(self._state.top) as tree:
            return owner_of(tree, chown, self._step.place)

    def _modes(self) -> Modes | None:
        return modes_of(self._step.chmod) if self._step.chmod else None

    def _spot(self, tree: int | None) -> Spot:
        path = self._target
        if tree is None:
            return Spot(tuple(path.strip("/").split("/")) if path.strip("/") else (), 0, None)
        return spot(tree, path, self._step.place)

    def _laid_to(self, found: Spot, chosen: Sequence[Chosen], *, into_folder: bool) -> Target:
        kind = found.kind
        brings_folder = into_folder or any(one.is_folder for one in chosen)
        as_folder = self._target.endswith("/") or into_folder or self._step.parents or not found.names
        if kind is not None and kind != stat.S_IFDIR and (brings_folder or as_folder):
            raise BuildError(
                f"cannot copy to non-directory: /{found.path}",
                place=self._step.place,
                remedy="Something that is no folder has that name: remove it first, or copy elsewhere.",
            )
        return Target(os.fsencode(found.path), kind, as_folder)

    def _folders(
        self, tree: int | None, found: Spot, owner: tuple[int, int], modes: Modes | None, entries: Sequence[Entry]
    ) -> list[Folder]:
        """The folders on the way, and the destination itself if it is one and new."""
        own = {entry.name for entry in entries}
        is_file = os.fsencode(found.path) in own
        names = found.names[:-1] if is_file else found.names
        if tree is None:
            # A copied folder that is empty is there all the same.
            if entries or not names:
                return []
            names = found.names
        known = min(found.known, len(names))
        mtime = self._time
        made = new_folders(names, known, mode=0o755, owner=owner, mtime_ns=mtime)
        if made and modes is not None and not is_file:
            top = made[-1]
            made[-1] = Folder(top.name, modes(0o755, True), top.uid, top.gid, top.mtime_ns, top.xattrs)
        above = [] if tree is None else folders_above(tree, names, known)
        return [*above, *made]

    @property
    def _time(self) -> int:
        return time.time_ns() if self._work.latest is None else self._work.latest

    def _written(
        self, found: Spot, owner: tuple[int, int], modes: Modes | None, entries: list[Entry]
    ) -> AbstractContextManager[Piece]:
        """What heredocs say, as files."""
        target = self._laid_to(found, (), into_folder=False)
        files: list[tuple[bytes, bytes]] = []
        for heredoc in self._step.heredocs:
            name = os.fsencode(heredoc.name)
            path = posixpath.join(target.path, name) if target.is_folder else target.path
            entries.append(Entry(b"", path, is_folder=False))
            files.append((path, heredoc.content.encode()))
        return written_in_memory(files, owner, modes, self._time)


def copied(
    work: Work, step: Copy | Add, state: StageState, doing: Doing, base: Base | None, *, anew: bool
) -> StoredLayer | None:
    """The layer of a COPY or ADD. `base` is where its files come from; None: the build's context."""
    _require_sources(step)
    with ExitStack() as after:

        def inputs() -> list[Input]:
            local = [source for source in step.sources if not (isinstance(step, Add) and _is_elsewhere(source))]
            found: list[Input] = []
            if isinstance(step, Add):
                found += [
                    _Remote(work, step, url, doing, after, asks=not anew) for url in step.sources if _is_elsewhere(url)
                ]
            if local:
                origin = work.sources.find(base, step.place)
                chosen = origin.choose(local, parents=step.parents, exclude=step.exclude, place=step.place)
                unpacks = isinstance(step, Add) and step.unpack is not False
                found.append(_Given(Part(origin, chosen, keeps_owners=origin.has_owners, unpacks=unpacks)))
            return found

        quick = None
        if base is not None:
            quick = work.sources.find(base, step.place).quick_key()
        elif isinstance(step, Add) and step.checksum and len(step.sources) == 1 and is_remote(step.sources[0]):
            quick = step.checksum
        return Copying(work, step, state, doing, inputs).layer(anew=anew, quick=quick)


def _require_sources(step: Copy | Add) -> None:
    """Raises `BuildError` for what cannot be copied, or cannot have a checksum."""
    if isinstance(step, Copy):
        for source in filter(_is_elsewhere, step.sources):
            if not source.startswith("github.com/"):  # which may as well be a folder
                kind = "URL" if repository_of(source) is None else "git ref"
                raise BuildError(f"source can't be a {kind} for COPY", place=step.place, remedy="Write ADD.")
    elif step.checksum and len(step.sources) + len(step.heredocs) != 1:
        raise BuildError(
            "checksum can't be specified for multiple sources", place=step.place, remedy="Write an ADD for each."
        )
    elif step.checksum and not _is_elsewhere(step.sources[0]):
        raise BuildError(
            "checksum requires HTTP(S) or Git sources",
            place=step.place,
            remedy="Leave it out: files of the context are known by what is in them.",
        )


def _is_elsewhere(source: str) -> bool:
    return is_remote(source) or repository_of(source) is not None


class _Remote:
    """A file that lies at a URL, or what is in a repository, for an ADD; it is there until `after` is undone.

    A file whose server says that it is what it was is not fetched until somebody needs its bytes (`asks`: the server is
    asked). If it is another by then, `doing` is told.
    """

    def __init__(self, work: Work, step: Add, url: str, doing: Doing, after: ExitStack, *, asks: bool) -> None:
        self._work = work
        self._doing = doing
        self._asks = asks and step.checksum is None and repository_of(url) is None
        self._step = step
        self._url = url
        self._after = after
        self._digests = Digests(work.store)
        self._part: Part | None = None
        self._digest: str | None = None

    def digest(self) -> str:
        known = self._digests.of_download(self._source) if self._asks and self._digest is None else None
        if known is not None:
            self._part = self._fetched(known[0])
            self._digest = known[1] if self._part is None else None
        if self._digest is None:
            part = self.part()
            self._digest = part.origin.digest_of(part.chosen)
        return self._digest

    def part(self) -> Part:
        part = self._part
        if part is None:
            part = self._part = self._fetched(Validators())
            assert part is not None  # nobody was told of a condition
            if self._digest not in (None, part.origin.digest_of(part.chosen)):
                self._doing.altered = True
        return part

    @property
    def _source(self) -> str:
        """What it is remembered by."""
        return hashlib.sha256(json.dumps([self._url, self._step.exclude]).encode()).hexdigest()

    def _fetched(self, seen: Validators) -> Part | None:
        """It, as it is now; None if its server says that it is what it was then."""
        work, step = self._work, self._step
        repository = repository_of(self._url)
        folder = self._after.enter_context(work.session.folder())
        validators = Validators()
        if repository is None:
            limits, check = work.store.config.limits, work.stop.check
            found = fetched_unless(self._url, seen, step.checksum, folder, limits, check=check, place=step.place)
            if found is None:
                return None
            place, source, validators = found.folder, found.name, found.validators
        else:
            place, source = _checked_out(work, step, repository, folder), "/"
        context = self._after.enter_context(open_context(place, name=self._url, ignores=False))
        origin = Files(work.store, context, work.session.hold)
        chosen = origin.choose([patterns.escaped(source)], parents=False, exclude=step.exclude, place=step.place)
        if validators:
            self._digests.remember_download(self._source, validators, origin.digest_of(chosen))
        return Part(origin, chosen, unpacks=step.unpack is True and repository is None)


def _checked_out(work: Work, step: Add, repository: GitRepository, folder: Path) -> Path:
    keep = step.keep_git_dir is True
    place, commit = checked_out(
        repository,
        folder,
        keep_git_dir=keep,
        limits=work.store.config.limits,
        check=work.stop.check,
        place=step.place,
    )
    wanted = (step.checksum or "").removeprefix("sha1:").removeprefix("sha256:")
    if not commit.startswith(wanted):
        raise BuildError(
            f"digest mismatch for {repository}: commit {commit} (expected: {wanted})",
            place=step.place,
            remedy="The branch or tag means another commit now: name the commit itself, or alter the checksum.",
        )
    return place
