"""`RUN --mount`: what a program has for as long as it runs, and no layer gets.

Trees of stages, images and contexts are read, or written to on top of them and forgotten; caches are written to and
kept elsewhere; secrets and agents lie in memory alone.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

from attrs import evolve, field

from layerstore import ConfigError, Container, KernelError, open_beneath, open_bind, open_mount
from layerstore.build.cache import Sharing
from layerstore.build.errors import BuildError, Place
from layerstore.build.language import Run, RunMount
from layerstore.build.steps.memory import Memory
from layerstore.build.steps.origins import Origin
from layerstore.build.steps.places import absolute, spot
from layerstore.build.steps.work import Work
from layerstore.runtime.life.sources import Shown, Tree
from layerstore.runtime.options import MountOption
from layerstore.values import frozen

__all__ = ["Given", "given", "misplaced", "told"]

_KERNEL = ("/proc", "/sys")
"""What a program sees there the kernel makes, so that nothing can be added."""

_SECRETS = "/run/secrets"
_AGENT = "/run/buildkit/ssh_agent.{}"


@frozen
class Given:
    """What a program has beside the stage's own tree: parts of its options, trees, variables."""

    mounts: tuple[MountOption, ...] = ()
    trees: tuple[Tree, ...] = ()
    env: tuple[str, ...] = ()
    is_secret: bool = False
    """Is a secret among the variables?"""


@frozen
class _Parts:
    """What is being put together; `after` is undone when the program has ended."""

    work: Work
    place: Place
    after: ExitStack
    memory: Memory
    mounts: list[MountOption] = field(factory=list)
    trees: list[Tree] = field(factory=list)
    env: list[str] = field(factory=list)
    secret_env: list[str] = field(factory=list)


def told(mounts: Sequence[RunMount]) -> list[dict[str, Any]]:
    """What the key of a step has of its mounts: not whose secrets they are, and nothing of what caches hold."""
    return [
        {"type": mount.type, "target": mount.target, "source": mount.source, "rw": not mount.readonly, "env": mount.env}
        for mount in mounts
    ]


@contextmanager
def given(work: Work, run: Run, working_dir: str, origins: Callable[[RunMount], Origin]) -> Iterator[Given]:
    """While inside: what the mounts of an expanded RUN ask for. `origins` says what a bind is of.

    Raises `BuildError` for a secret or an agent that is required and was not given.
    """
    with ExitStack() as after, Memory() as memory:
        parts = _Parts(work, run.place, after, memory)
        folders: dict[RunMount, Path] = {}
        agents = 0
        # In one order everywhere, whatever the line's is: so no two builds wait for each other.
        for mount in sorted((mount for mount in run.mounts if mount.type == "cache"), key=_cache_id):
            if _identity(mount) not in folders:  # one that is mounted twice is the same
                folders[_identity(mount)] = _folder(parts, mount, origins)
        for mount in run.mounts:
            target = absolute(working_dir, mount.target)
            if mount.type == "bind":
                _bind(parts, mount, target, origins(mount))
            elif mount.type == "cache":
                shown = Shown(target, "/", read_only=mount.readonly)
                parts.trees.append(Tree(partial(open_mount, folders[_identity(mount)]), (shown,)))
            elif mount.type == "tmpfs":
                size = () if mount.size is None else (f"size={mount.size}",)
                parts.mounts.append(MountOption("tmpfs", target, options=("exec", *size)))
            elif mount.type == "secret":
                _secret(parts, mount, target)
            elif mount.type == "ssh":
                agents += _agent(parts, mount, target, agents)
        trees = (*parts.trees, *memory.trees)
        yield Given(tuple(parts.mounts), trees, (*parts.env, *parts.secret_env), bool(parts.secret_env))


def misplaced(container: Container, found: Given, place: Place) -> BuildError | None:
    """Why what a program was given cannot be mounted where the line says, if that is so. Asked when it was not run."""
    targets = [(mount.target, False) for mount in found.mounts]
    targets += [(part.target, part.is_file) for tree in found.trees for part in tree.shown]
    with container.open_tree() as tree:
        for target, is_file in targets:
            within = next((top for top in _KERNEL if target.startswith(f"{top}/")), None)
            if within is not None:
                return BuildError(
                    f"nothing can be mounted at {target}: {within} is the kernel's",
                    place=place,
                    remedy="Name another target.",
                )
            there = spot(tree, target, place)
            if there.is_there and there.is_folder == is_file:
                what, that = ("file", "folder") if is_file else ("folder", "file")
                return BuildError(
                    f"a {what} cannot be mounted at {target}: there is a {that}",
                    place=place,
                    remedy="Name a target that is not there, or is of the same kind.",
                )
    return None


def _bind(parts: _Parts, mount: RunMount, target: str, origin: Origin) -> None:
    if origin.folder is not None and mount.readonly:
        # By its descriptor: whoever writes in the context could lead a path out of it before it is mounted.
        with origin.open_tree() as tree:
            fd = _opened(tree, mount, parts.place)
        parts.after.callback(os.close, fd)
        is_file = not stat.S_ISDIR(os.fstat(fd).st_mode)
        parts.trees.append(Tree(partial(open_bind, fd), (Shown(target, "/", read_only=True, is_file=is_file),)))
        return
    layers = origin.layers()
    with parts.work.store.open_layers(layers) as tree:
        found, is_file = _within(tree, mount, parts.place)
    if mount.readonly:
        shown = Shown(target, found, read_only=True, is_file=is_file)
        parts.trees.append(Tree(lambda: parts.work.store.open_layers(layers), (shown,)))
        return
    # What is written goes with a container that nobody else knows.
    box = parts.after.enter_context(parts.work.session.container(layers))
    root = parts.after.enter_context(box.mount())
    shown = Shown(target, found, read_only=False, is_file=is_file)
    parts.trees.append(Tree(lambda: open_mount(root), (shown,)))


def _opened(tree: int, mount: RunMount, place: Place) -> int:
    """A descriptor of the source of a bind in its tree, out of which no link leads."""
    source = mount.source or "/"
    try:
        return open_beneath(tree, "/" + source.lstrip("/"), os.O_PATH)
    except KernelError as error:
        raise BuildError(
            f"failed to mount {source}: {os.strerror(error.errno or 0)}",
            place=place,
            remedy=f"Look what is in {mount.from_ or 'the build context'}, and what .dockerignore leaves out of it.",
        ) from None


def _within(tree: int, mount: RunMount, place: Place) -> tuple[str, bool]:
    """Where the source of a bind really is in its tree, and whether it is no folder."""
    fd = _opened(tree, mount, place)
    try:
        root = os.readlink(f"/proc/self/fd/{tree}").rstrip("/")
        found = os.readlink(f"/proc/self/fd/{fd}")
        return found.removeprefix(root) or "/", not stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def _cache_id(mount: RunMount) -> str:
    return mount.id or mount.target


def _within_namespace(work: Work, id: str) -> str:
    """The ID of a cache, below what BUILDKIT_CACHE_MOUNT_NS says, so that builds can have caches apart."""
    namespace = work.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS")
    return posixpath.normpath(f"{namespace}/{id}") if namespace else id


def _identity(mount: RunMount) -> RunMount:
    """The mount of a cache without what does not decide which cache it is, and with what it is if nothing is said."""
    return evolve(
        mount,
        id=_cache_id(mount),
        target="",
        readonly=False,
        sharing="shared",
        text="",
        uid=mount.uid or 0,
        gid=mount.gid or 0,
        mode=0o755 if mount.mode is None else mount.mode,
    )


def _folder(parts: _Parts, mount: RunMount, origins: Callable[[RunMount], Origin]) -> Path:
    """Where the folder of a cache is, until the step is over."""
    on = None
    if mount.from_:
        on = origins(mount).layers()
    return parts.after.enter_context(
        parts.work.cache.mounts.mount(
            _within_namespace(parts.work, _cache_id(mount)),
            sharing=cast(Sharing, mount.sharing),
            on=on,
            source=mount.source,
            owner=(mount.uid or 0, mount.gid or 0),
            mode=0o755 if mount.mode is None else mount.mode,
            stop=parts.work.stop.check,
        )
    )


def _secret(parts: _Parts, mount: RunMount, target: str) -> None:
    id = mount.id or posixpath.basename(mount.target)
    secret = next((one for one in parts.work.options.secrets if one.id == id), None)
    if secret is None:
        if mount.required:
            raise BuildError(
                f"secret {id}: not found", place=parts.place, remedy=f"Give it: --secret id={id},src=FILE."
            )
        return
    content = secret.read()
    if mount.env:
        try:
            parts.secret_env.append(f"{mount.env}={content.decode()}")
        except UnicodeDecodeError:
            raise BuildError(
                f"secret {id}: not text, so it can be no variable", place=parts.place, remedy="Leave out env=."
            ) from None
        if not mount.target:
            return
    path = target if mount.target else f"{_SECRETS}/{id}"
    mode = 0o400 if mount.mode is None else mount.mode
    parts.memory.add_file(path, content, mode=mode, uid=mount.uid or 0, gid=mount.gid or 0)


def _agent(parts: _Parts, mount: RunMount, target: str, count: int) -> int:
    """1 if there is one."""
    id = mount.id or "default"
    wanted = next((one for one in parts.work.options.ssh if one.id == id), None)
    if wanted is None:
        if mount.required:
            raise BuildError(f"unset ssh forward key {id}", place=parts.place, remedy=f"Give it: --ssh {id}.")
        return 0
    from layerstore.build.steps.agents import agent_of, passing_on

    try:
        agent = parts.after.enter_context(agent_of(wanted))
    except ConfigError as error:
        raise BuildError(error.message, place=parts.place, remedy=error.remedy) from None
    path = target if mount.target else _AGENT.format(count)
    mode = 0o600 if mount.mode is None else mount.mode
    uid, gid = mount.uid or 0, mount.gid or 0
    parts.memory.add_socket(path, lambda place: passing_on(place, agent, mode=mode, uid=uid, gid=gid))
    if not any(entry.startswith("SSH_AUTH_SOCK=") for entry in parts.env):
        parts.env.append(f"SSH_AUTH_SOCK={path}")
    return 1
