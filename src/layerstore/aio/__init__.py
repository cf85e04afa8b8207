"""An asyncio face over threads: the same classes, whose methods are awaited, for programs with an event loop.

    async with aio.open_store("/var/lib/layerstore") as store:
        [image] = await store.load("debian.tar")
        async with store.create_container(image) as box:
            done = await box.run(["cat", "/etc/os-release"], capture_output=True)

Each class here is the face of the class of that name. What there is called is awaited here; what is iterated there is
an asynchronous iterator, what is entered there an asynchronous context manager. A property that asks the database or
the system is awaited, too (`await box.status`); one that is held in memory is not (`box.name`). Values, and errors, are
the library's own. Functions that a method is given (`progress`, `fits`) are called in its thread, with the library's
own objects. `sync` is the object behind a face; `call` runs any function of the library in a thread.

A task that is cancelled goes on when its work is over: it is stopped where the library expects interrupts, and what it
had is given back (`threads`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from layerstore.aio.faces import FACES, Face, behind, class_of, face, warm
from layerstore.aio.openings import Context, Iteration, Lock, Opening
from layerstore.aio.streams import Stream
from layerstore.aio.threads import THREADS, Threads

__all__ = [
    "THREADS",
    "Blobs",
    "Checkpoint",
    "Container",
    "Context",
    "Entry",
    "Image",
    "Iteration",
    "Loaded",
    "Lock",
    "Mounted",
    "Opening",
    "Process",
    "Pulled",
    "Repositories",
    "Running",
    "Runtime",
    "Scratch",
    "Snapshot",
    "Snapshots",
    "Store",
    "Stream",
    "Tree",
    "Volume",
    "Volumes",
    "call",
    "open_store",
]


def open_store(data_root: str | Path | None = None, *, threads: int = THREADS, **how: Any) -> Opening[Any, Any]:
    """Open a store, and make it if there is none: see `layerstore.open`, whose arguments it takes. Awaited, or entered.

    `threads`: how much is done in it at once; what waits for programs does not count. Raises what that raises.
    """
    from layerstore import open as opened

    async def start() -> Any:
        own = Threads(threads)
        await own.do(warm)
        return face(await own.do(partial(opened, data_root, **how), undo=lambda store: store.close()), own)

    return Opening(start)


async def call(function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """What a function returns or raises that is called in a thread of its own: `await call(registry.copy, …)`.

    Faces among its arguments are the objects behind them to it; what it returns has a face if it is of a store that one
    of these is of. It is stopped as all else here when the task is cancelled.
    """
    faces = [one for one in (*arguments, *named.values()) if isinstance(one, Face)]
    threads = faces[0]._threads if faces else Threads()
    given = {name: behind(one) for name, one in named.items()}
    found = await threads.do(partial(function, *map(behind, arguments), **given), alone=True)
    return face(found, threads) if faces else found


def __getattr__(name: str) -> Any:
    if name not in FACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = class_of(name)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
