"""What is done about each kind of problem, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from layerstore.check import Problem
from layerstore.digest import Digest, parse
from layerstore.errors import KernelError, LayerstoreError, NotFound, named
from layerstore.kernel.files import remove_tree
from layerstore.layers import garbage, rows
from layerstore.layers.relay import relay
from layerstore.mending.archives import Archives, archives
from layerstore.mending.layers import mend
from layerstore.mending.proving import prove_images, prove_layers
from layerstore.registry.remotes.remote import Address
from layerstore.registry.ways import Way, Ways, ways
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.config import Config
    from layerstore.layers import Layers, Progress
    from layerstore.records import Mirror
    from layerstore.volumes import Volumes

__all__ = ["Repair", "is_archive", "repair", "sources"]


Raw = Callable[[Digest], Iterator[Way]]
"""The ways to a blob as it is."""


@frozen
class Repair:
    """What became of a problem. `how` says what was done, in words; `error` why nothing could be."""

    problem: Problem
    how: str = ""
    error: LayerstoreError | None = None

    @property
    def is_done(self) -> bool:
        """Is it no problem any more?"""
        return self.error is None


@frozen
class RepairedStore:
    """What is repaired: the parts of a store."""

    config: Config
    layers: Layers
    blobs: Blobs
    volumes: Volumes | None
    mirror: Mirror


def repair(
    problems: Sequence[Problem], store: RepairedStore, given: Sequence[str], *, progress: Progress | None = None
) -> Iterator[Repair]:
    """Do what can be done, problem by problem. `given` are archives and remotes to ask first, in their order."""
    store.layers.database.require_writable()
    with ExitStack() as stack:
        asked, found = sources(store, given, stack)
        kinds = {problem.kind for problem in problems}
        proved, refused = _prove(kinds, store)
        done = [problem for problem in problems if _is_among(problem, proved)]
        yield from (Repair(problem, "the row is written anew of what is proved") for problem in done)
        problems = [problem for problem in problems if problem not in done]
        yield from _layers([one for one in problems if one.layer], store, asked, found, progress)
        failed = _done_at_once(kinds, store)
        for problem in problems:
            if problem.path in refused:
                yield Repair(problem, error=refused[problem.path])
            elif problem.kind in failed:
                yield Repair(problem, error=failed[problem.kind])
            elif not problem.layer:
                yield _one(problem, store, lambda digest: chain(found.raw(digest), asked.raw(digest)))


def _prove(kinds: Iterable[str], store: RepairedStore) -> tuple[set[str], dict[str | None, LayerstoreError]]:
    """Rows that were wrong, by DiffID or the image's ID, and why others stay, by the paths of their records."""
    proved: set[str] = set()
    refused: dict[str | None, LayerstoreError] = {}
    if "record" in kinds:
        wrong, refused = prove_layers(store.layers, store.layers.files)
        proved |= wrong
    if "damaged image" in kinds:
        proved |= prove_images(store.layers.database, store.mirror)
    return proved, refused


def _is_among(problem: Problem, proved: set[str]) -> bool:
    if problem.kind == "damaged image":
        return any(image in problem.text for image in proved)
    return problem.layer in proved


def sources(store: RepairedStore, given: Sequence[str], stack: ExitStack) -> tuple[Ways, Archives]:
    """Where layers can be had from; both are open until `stack` ends. Raises `ConfigError` for what is no place."""
    paths = [Path(text) for text in given if is_archive(text)]
    remotes = [text for text in given if not is_archive(text)]
    found = stack.enter_context(archives(paths, partial(store.layers.spool, ".spooled"), store.layers.limits))
    return stack.enter_context(ways(store.config, store.blobs, remotes)), found


def is_archive(text: str) -> bool:
    """Is this a path, and not a remote? Raises `ConfigError` for what is neither."""
    if os.path.exists(text):
        return True
    Address.parse(text)
    return False


def _layers(
    problems: Sequence[Problem], store: RepairedStore, asked: Ways, found: Archives, progress: Progress | None
) -> Iterator[Repair]:
    """Layers with damage; one that could not even be read is noted as such first."""
    names = list(dict.fromkeys(problem.layer for problem in problems if problem.layer))
    with store.layers.database.read() as tx:
        noted = {diff.diff_id for diff in rows.all_diffs(tx) if diff.damaged}
        unnoted = [diff for diff in rows.all_diffs(tx) if diff.diff_id in names and diff.diff_id not in noted]
    for diff in unnoted:
        store.layers.mark_damaged(diff.key)
    for done in mend(names, store.layers, asked, found, progress=progress):
        for problem in problems:
            if problem.layer == done.layer:
                yield Repair(problem, f"repaired from {done.source}" if done.source else "", done.error)


def _done_at_once(kinds: Iterable[str], store: RepairedStore) -> dict[str, LayerstoreError]:
    """What is done once for all problems of a kind, which look at the whole store; the errors, by kind."""
    failed: dict[str, LayerstoreError] = {}
    for kind, act in {"garbage": _sweep, "record": _put_in_step}.items():
        if kind in kinds:
            try:
                act(store)
            except LayerstoreError as error:
                failed[kind] = error
    return failed


def _sweep(store: RepairedStore) -> None:
    """As the next `open` would; what belongs to somebody by now stays."""
    garbage.sweep(store.layers, store.layers.session.staging)
    store.blobs.recover()
    if store.volumes is not None:
        store.volumes.recover()


def _put_in_step(store: RepairedStore) -> None:
    """Records are written anew, of the rows."""
    store.mirror.put_in_step()


def _one(problem: Problem, store: RepairedStore, raw: Raw) -> Repair:
    ways_of: dict[str, Callable[[Problem, RepairedStore, Raw], str]] = {
        "garbage": _garbage,
        "record": lambda *_: "written anew",
        "missing blob": _blob,
        "damaged blob": _blob,
    }
    way = ways_of.get(problem.kind)
    if way is None:
        return Repair(problem, error=_no_way(problem))
    try:
        return Repair(problem, way(problem, store, raw))
    except LayerstoreError as error:
        return Repair(problem, error=error)


def _no_way(problem: Problem) -> LayerstoreError:
    match problem.kind:
        case "foreign" | "unknown volume":
            remedy = "Nobody removes what this store has not made: look at it, and move it away."
        case "database":
            remedy = "`layerstore rescue` makes the database anew of what lies beside the layers."
        case _:
            remedy = "Nobody else has what was written there. `layerstore check --repair --drop` removes what needs it."
    return LayerstoreError(f"{problem} cannot be repaired", remedy=remedy, path=problem.path)


def _garbage(problem: Problem, store: RepairedStore, raw: Raw) -> str:
    """What is left when all was swept: the folder of a container that has no row."""
    path, own = Path(problem.path or ""), store.layers.session
    if path.parent == store.config.data_root / "containers" and path.is_dir():
        target = own.folder / f"{own.new_key()}.box"
        with named("rename", path):
            path.rename(target)
        remove_tree(target)
    if os.path.lexists(path):
        raise KernelError("unlink", 0, path=path, detail="it is still there")
    return "removed"


def _blob(problem: Problem, store: RepairedStore, raw: Raw) -> str:
    """Made again of its layer, or fetched from where it was seen; else forgotten if nothing would miss its bytes."""
    assert problem.subject is not None
    digest = Digest(parse(problem.subject.name))
    if store.blobs.size(digest, prove=True) is not None:
        with relay(partial(store.blobs.write, digest)) as stream:
            store.blobs.put(stream, expected=digest)
        return "made again of its layer"
    for way in raw(digest):
        try:
            with way.open() as stream:
                store.blobs.put(stream, expected=digest)
        except LayerstoreError:
            continue
        return f"fetched from {way.place}"
    raise NotFound(f"the blob {digest} is nowhere to be had", remedy="Push or pull what has it again.")
