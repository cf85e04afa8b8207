"""The classes of `layerstore.aio`, each made of the class of the library that it is the face of, when it is first used.

There is no list of methods here: a method is a coroutine unless what it returns is iterated or entered, which its
annotation says. The only list is of what a face tells without a thread, for it is held in memory (`AT_ONCE`); a test
compares it with what properties do.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import io
import threading
from collections.abc import Callable
from functools import cache, cached_property, partial, update_wrapper
from importlib import import_module
from typing import Any, Self

import attrs

from layerstore.aio.openings import Context, Iteration, Lock, Opening
from layerstore.aio.streams import Stream
from layerstore.aio.threads import Threads
from layerstore.patience import Stopped, checking

__all__ = ["AT_ONCE", "ENTERED", "FACES", "Face", "Shape", "attributes", "behind", "class_of", "face", "warm"]

FACES = {
    "Blobs": "layerstore.blobs",
    "Checkpoint": "layerstore",
    "Container": "layerstore",
    "Entry": "layerstore",
    "Image": "layerstore",
    "Loaded": "layerstore",
    "Mounted": "layerstore",
    "Process": "layerstore",
    "Pulled": "layerstore.registry",
    "Repositories": "layerstore.repositories",
    "Running": "layerstore",
    "Runtime": "layerstore.runtime",
    "Scratch": "layerstore",
    "Snapshot": "layerstore",
    "Snapshots": "layerstore",
    "Store": "layerstore",
    "Tree": "layerstore",
    "Volume": "layerstore",
    "Volumes": "layerstore",
}
"""The classes that have a face, and where they are public."""

ENTERED = frozenset({"Container", "Mounted", "Running", "Store"})
"""Those of them that are context managers, be it asked of a class that is not imported yet."""

AT_ONCE = {
    "Blobs": ("limits", "store_id"),
    "Checkpoint": ("consistent", "container_id", "created", "created_at", "image_id", "label"),
    "Container": (
        *("chain_id", "created", "created_at", "id", "image_id", "image_name"),
        *("name", "short_id", "size_limit"),
    ),
    "Entry": (
        *("device", "gid", "identity", "is_file", "is_folder", "is_symlink"),
        *("mode", "mtime_ns", "name", "size", "uid"),
    ),
    "Image": (
        *("architecture", "author", "chain_id", "chain_ids", "comment", "config"),
        *("created_at", "layers", "os", "short_id", "variant"),
    ),
    "Process": ("container", "pid", "returncode", "terminal"),
    "Snapshot": ("chain_id", "created", "id", "is_layer"),
    "Store": ("config", "data_root", "driver_name", "id"),
    "Volume": (
        *("created", "driver", "is_anonymous", "labels", "mount", "mountpoint"),
        *("name", "options", "size_limit"),
    ),
}
"""Properties that ask neither the database nor the system."""

_WAITING = frozenset({"attach", "communicate", "exec", "healthcheck", "logs", "run", "stats", "stop", "wait"})
"""Methods that wait for programs: each call has a thread of its own, so that they do not wait for each other."""

_CONVERTING = frozenset({"__fspath__"})

_MAKING = threading.RLock()
"""Held by whoever makes what is behind a face, with its first use."""


class Shape:
    """What a public attribute of a class is in its face."""

    AT_ONCE, FACE, AWAITED, METHOD, ITERATION, CONTEXT, OPENING = range(7)


class Face:
    """What stands before an object of the library in an event loop. Two are equal if what is behind them is."""

    def __init__(self, thing: Any, threads: Threads, *, make: Callable[[], Any] | None = None) -> None:
        """`make`: makes it with its first use, in a thread; `thing` is None then."""
        self._thing = thing
        self._make = make
        self._threads = threads

    @property
    def sync(self) -> Any:
        """The object behind it, for whoever has a thread."""
        if self._make is not None:
            with _MAKING:  # of two threads that use it first, one makes it
                if self._make is not None:
                    self._thing, self._make = self._make(), None
        return self._thing

    def _field(self, name: str) -> Any:
        return face(getattr(self.sync, name), self._threads)

    def __eq__(self, other: object) -> bool:
        return bool(self.sync == other.sync) if isinstance(other, Face) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.sync)

    def __repr__(self) -> str:
        return f"<aio {type(self).__name__}>" if self._make is not None else f"<aio {self._thing!r}>"


class _Entered(Face):
    """The face of what is a context manager."""

    async def __aenter__(self) -> Any:
        entered = await self._threads.do(self.sync.__enter__)
        return self if entered is self._thing else face(entered, self._threads)

    async def __aexit__(self, *raised: Any) -> bool | None:
        is_done: bool | None = await self._threads.do(lambda: self.sync.__exit__(*raised), at_end=True)
        return is_done


class _RunningFace(_Entered):
    """The face of a program, which is killed when the task is cancelled that is in it."""

    def __init__(self, thing: Any, threads: Threads) -> None:
        super().__init__(thing, threads)
        self._pipes: dict[str, Stream] = {}

    def _field(self, name: str) -> Any:
        value = getattr(self.sync, name)
        if not isinstance(value, io.IOBase):
            return value
        if name not in self._pipes:
            self._pipes[name] = Stream(value)  # which has read ahead
        return self._pipes[name]

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            await self._threads.do(self.sync.kill, at_end=True)
        leave = partial(self.sync.__exit__, kind, error, trace)
        try:
            await self._threads.do(leave, at_end=True, is_stoppable=True)
        except asyncio.CancelledError:
            await self._threads.do(self.sync.kill, at_end=True)
            await self._threads.do(leave, at_end=True)
            raise


class _RuntimeFace(Face):
    """The face of what runs the containers of a store: made of the store's face."""

    def __init__(self, store: Any, threads: Threads | None = None) -> None:
        if threads is None:
            make = import_module(FACES["Runtime"]).Runtime
            super().__init__(None, store._threads, make=lambda: make(store.sync))
        else:
            super().__init__(store, threads)


class _StoreFace(_Entered):
    """The face of a store, which ends with it."""

    def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> Lock:
        """See `layerstore.Store.lock`. No thread waits for it."""
        return Lock(self._threads, lambda: self.sync.lock(name, shared=shared, wait=False), wait=wait)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self.close()

    async def close(self) -> None:
        """Begin nothing more, wait for what is under way, and close the store."""
        cancelled = await self._threads.close()
        # To the store, who was stopped was interrupted: the next who opens it looks whether anything is left.
        kind = Stopped if self._threads.was_stopped else None
        await self._threads.do(lambda: self.sync.__exit__(kind, None, None), at_end=True)
        if cancelled is not None:
            raise cancelled


def face(thing: Any, threads: Threads, name: str | None = None) -> Any:
    """The face of what a method has returned, or itself. `name`: what it is, if its class does not say."""
    if isinstance(thing, list):
        return [face(one, threads, name) for one in thing]
    if type(thing) is tuple:
        return tuple(face(one, threads, name) for one in thing)
    if name == "Running" and thing is not None:
        return class_of("Running")(thing, threads)
    kind: Any = type(thing)
    found = _name_of(kind)
    return thing if found is None else class_of(found)(thing, threads)


def warm() -> None:
    """Make those that nearly everybody uses: to be called in a thread, for it takes some milliseconds."""
    for name in ("Store", "Container", "Checkpoint", "Image", "Loaded", "Mounted", "Running"):
        class_of(name)


@cache
def _name_of(kind: Any) -> str | None:
    for base in kind.__mro__:
        name: str = base.__name__
        if name in FACES and getattr(import_module(FACES[name]), name) is base:
            return name
    return None


def behind(thing: Any) -> Any:
    """What a method of the library is given in place of faces."""
    if isinstance(thing, Face):
        return thing.sync
    if type(thing) in (list, tuple):
        return type(thing)(behind(one) for one in thing)
    return thing


# --- how they are made

_OWN: dict[str, type[Face]] = {"Running": _RunningFace, "Runtime": _RuntimeFace, "Store": _StoreFace}
"""Those that do something of their own."""


@cache
def class_of(name: str) -> type[Face]:
    """The face of a class."""
    kind = getattr(import_module(FACES[name]), name)
    above = next((base.__name__ for base in kind.__mro__[1:] if base.__name__ in FACES), None)
    base = _OWN.get(name, _Entered if name in ENTERED else Face) if above is None else class_of(above)
    own: dict[str, Any] = {"__doc__": kind.__doc__, "__module__": "layerstore.aio"}
    for attribute, shape, thing in attributes(kind):
        if hasattr(base, attribute) and (above is None or attribute not in vars(kind)):
            continue  # it has its own way, or is inherited
        own[attribute] = _made(attribute, shape, thing)
    for attribute in _CONVERTING & vars(kind).keys():
        own[attribute] = _converting(attribute)
    return type(name, (base,), own)


def attributes(kind: type) -> list[tuple[str, int, Any]]:
    """What its face has: name, shape, and the attribute itself (of a field: None)."""
    found: dict[str, tuple[str, int, Any]] = {}
    at_once = {one for base in kind.__mro__ for one in AT_ONCE.get(base.__name__, ())}
    for base in kind.__mro__:
        if not base.__module__.startswith("layerstore"):
            continue
        for name in (*vars(base).get("__annotations__", ()), *vars(base)):
            if name.startswith("_") or name in found:
                continue
            thing = vars(base).get(name)
            shape = shape_of(thing, is_at_once=name in at_once)
            if shape is not None:
                found[name] = (name, shape, thing)
    return list(found.values())


def shape_of(thing: Any, *, is_at_once: bool) -> int | None:
    """What an attribute of a class is in the class's face; None for what is not in it."""
    if inspect.ismemberdescriptor(thing) or thing is None or thing is attrs.NOTHING:
        return Shape.AT_ONCE
    if isinstance(thing, property | cached_property):
        getter = thing.func if isinstance(thing, cached_property) else thing.fget
        assert getter is not None  # no class here has a property that can only be set
        function = inspect.unwrap(getter)
        if is_at_once:
            return Shape.AT_ONCE
        return Shape.FACE if _returns(function) in FACES else Shape.AWAITED
    if not inspect.isfunction(thing) or inspect.iscoroutinefunction(thing) or thing.__name__ == "fileno":
        return None
    function = inspect.unwrap(thing)
    if "@private" in (thing.__doc__ or ""):
        return None
    returned = _returns(function)
    if returned.startswith("AbstractContextManager[") or _is_contextmanager(thing):
        return Shape.CONTEXT
    if returned.startswith("Iterator["):
        return Shape.ITERATION
    if returned in ENTERED:
        return Shape.OPENING
    return Shape.METHOD


def _returns(function: Callable[..., Any]) -> str:
    return str(function.__annotations__.get("return", ""))


def _is_contextmanager(function: Any) -> bool:
    while function is not None:
        if function.__code__.co_filename.endswith("contextlib.py"):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def _named(annotation: str) -> str | None:
    """The class that has a face, and that an annotation speaks of."""
    names = (node.id for node in ast.walk(ast.parse(annotation, mode="eval")) if isinstance(node, ast.Name))
    return next((name for name in names if name in FACES), None)


def _made(name: str, shape: int, thing: Any) -> Any:
    if shape == Shape.AT_ONCE:
        return property(lambda self: self._field(name), doc=getattr(thing, "__doc__", None))
    found: Any = thing.fget if isinstance(thing, property) else getattr(thing, "func", thing)
    function = inspect.unwrap(found)
    returned = _returns(function)
    if shape == Shape.FACE:
        return property(lambda self: _lazy(self, name, returned), doc=function.__doc__)
    if shape == Shape.AWAITED:
        return property(lambda self: _looked_up(self, name), doc=function.__doc__)
    named = _named(returned)
    alone = name in _WAITING
    tells = "progress" in inspect.signature(function).parameters

    def call(self: Face, arguments: tuple[Any, ...], given: dict[str, Any]) -> Callable[[], Any]:
        plain = tuple(behind(one) for one in arguments)
        more = {key: behind(one) for key, one in given.items()}
        if not tells:
            return lambda: getattr(self.sync, name)(*plain, **more)
        progress = more.pop("progress", None)
        return lambda: getattr(self.sync, name)(*plain, progress=partial(_told_of, checking(), progress), **more)

    def begin(self: Face, /, *arguments: Any, **given: Any) -> Any:
        work, faced = call(self, arguments, given), partial(face, threads=self._threads, name=named)
        if shape == Shape.ITERATION:
            return Iteration(self._threads, work, faced, alone=alone)
        if shape == Shape.CONTEXT:
            return Context(self._threads, work, faced)

        async def start() -> Any:
            return faced(await self._threads.do(work, undo=_undone, alone=alone))

        return Opening(start)

    async def method(self: Face, /, *arguments: Any, **given: Any) -> Any:
        made = await self._threads.do(call(self, arguments, given), undo=_undone, alone=alone)
        return face(made, self._threads, named)

    return update_wrapper(method if shape == Shape.METHOD else begin, thing)


def _converting(name: str) -> Callable[[Face], Any]:
    return lambda self: getattr(self.sync, name)()


def _undone(made: Any) -> None:
    """Give back what nobody waits for any more: a mount is let go of, a program killed, a store closed."""
    kind: Any = type(made)
    match _name_of(kind):
        case "Mounted":
            made.unmount()
        case "Store":
            made.close()
        case _ if hasattr(made, "kill") and hasattr(made, "wait"):
            made.kill()
            made.wait()


def _told_of(check: Callable[[], object], progress: Callable[..., object] | None, *what: Any) -> None:
    """Where progress is told, who is stopped sees it."""
    check()
    if progress is not None:
        progress(*what)


def _lazy(of: Face, name: str, returned: str) -> Face:
    return class_of(returned)(None, of._threads, make=lambda: getattr(of.sync, name))


async def _looked_up(of: Face, name: str) -> Any:
    return face(await of._threads.do(lambda: getattr(of.sync, name)), of._threads)
