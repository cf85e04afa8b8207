"""Operations with programs: run in containers by an OCI runtime and by namespaces alone, started, joined, stopped.

Whoever does that is killed between two lines. What he began may go on, and come to its end, which is waited for; then
there is no process, cgroup or file of the exec-root that the store does not account for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from layerstore import Container
from layerstore.runtime import ExecOptions, RunOptions, Runtime
from layerstore.runtime.options import Isolation
from layerstore.runtime.streams import Streams
from layerstore.testing import tars
from layerstore.testing.torture import Operation, Place
from support import programs

_MARK = "LAYERSTORE_TORTURE"
"""The variable by which the processes of a point are known."""

_PATIENCE = 30.0

_FULL, _QUICK = Isolation.FULL, Isolation.PROCESS

_TOUCH, _SLEEP = ("touch", "/made"), ("sleep", "1000")

_NONE = Streams(None, None, None)

_VOID = ("path store/containers", "path store/overlay2/*/diff/etc", "path store/erofs/*/diff/etc")
"""The folder of a container's log; and a folder that was copied up, in which something was mounted."""

Act = Callable[[Place], object]

_waiting: dict[Path, int] = {}
"""The processes that wait for programs, by exec-root."""


def _options(at: Place, isolation: Isolation, *args: str) -> RunOptions:
    parent = f"/{_mark(at)}" if isolation is Isolation.FULL else ""
    return RunOptions(args=args, isolation=isolation, cgroup_parent=parent, env=(f"{_MARK}={_mark(at)}",))


def _mark(at: Place) -> str:
    return f"layerstore-torture-{os.stat(at.exec_root).st_ino}-{os.stat(at.exec_root).st_dev}"


@contextmanager
def _ended(at: Place) -> Iterator[None]:
    """At the end nothing runs any more, and nothing is left of what did."""
    os.environ[_MARK] = _mark(at)
    try:
        yield
    finally:
        at.close()
        runtime = Runtime(at.store)
        for box in at.store.containers():
            with suppress(Exception):  # what is left of it is seen below
                runtime.stop(box, 0)
        at.close()
        _require(lambda: [*_processes(at), *_cgroups(at)])
        for folder in _parents(at):
            with suppress(FileNotFoundError):  # a hierarchy may have two names
                folder.rmdir()


def _require(left: Callable[[], Sequence[object]]) -> None:
    """Raise `AssertionError` if there is something left, and does not go soon."""
    deadline = time.monotonic() + _PATIENCE
    while found := left():
        assert time.monotonic() < deadline, f"it left behind: {found}"
        time.sleep(0.05)


def _processes(at: Place, word: str = "") -> list[str]:
    """The processes of this point, by their command lines; with that word in them."""
    mark, mine = f"{_MARK}={_mark(at)}\0".encode(), str(os.getpid())
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and name != mine:
            with suppress(OSError):
                line = os.fsdecode(Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" "))
                if mark in Path(f"/proc/{name}/environ").read_bytes() and word in line:
                    found.append(f"process {name}: {line}")
    return found


def _parents(at: Place) -> list[Path]:
    groups = Path("/sys/fs/cgroup")
    return [*groups.glob(_mark(at)), *groups.glob(f"*/{_mark(at)}")]


def _cgroups(at: Place) -> list[str]:
    return [os.fspath(path) for parent in _parents(at) for path in parent.iterdir() if path.is_dir()]


def _settle(at: Place) -> None:
    """What runs is what the store says that runs; of all else nothing is left."""
    _require(lambda: _left(at))
    if at.exec_root in _waiting and not _is_running(Runtime(at.store), at.store.container("box")):
        os.waitpid(_waiting.pop(at.exec_root), 0)
    at.close()  # for whoever was alive until now kept what he had begun with


def _left(at: Place) -> list[str]:
    """What there is after an open, and does not run. A child of the dead may hold it a moment longer."""
    at.close()
    runtime, box = Runtime(at.store), at.store.container("box")
    is_running = _is_running(runtime, box)
    if is_running != bool(box.processes()):
        return ["a state that is not so"]
    if is_running:
        found = _processes(at, "/made")
    else:
        runtime.settle(box)
        found = [*_processes(at), *_cgroups(at), *(str(path) for path in at.exec_root.rglob(f"{box.id}*"))]
    at.close()
    if not (is_running and at.exec_root in _waiting):
        found += [path.name for path in (at.data_root / "staging").iterdir() if path.name != ".spare"]
    return found


def _is_running(runtime: Runtime, box: Container) -> bool:
    return runtime.state(box).is_running


# --- the table


def _made(isolation: Isolation, *args: str) -> Act:
    """There is a container with programs, and its own one is this."""

    def make(at: Place) -> None:
        tar = at.given / "programs.tar"
        if not tar.exists():
            tar.write_bytes(tars.docker_archive([programs.layer(("touch", "sleep"))], "programs:1"))
        at.store.load(tar)
        box = Runtime(at.store).create("programs:1", _options(at, isolation, *args), name="box")
        box.mount().unmount()  # the place for that stays with a container

    return make


def _started(at: Place) -> None:
    """It runs, by an engine."""
    _made(_FULL, *_SLEEP)(at)
    Runtime(at.store).start(at.store.container("box"))


def _waited_for(at: Place) -> None:
    """It runs by namespaces alone, and another process waits for its end."""
    _made(_QUICK, *_SLEEP)(at)
    at.close()
    waiting = os.fork()
    if waiting == 0:
        try:
            _foreground(at)
        finally:
            os._exit(0)
    _waiting[at.exec_root] = waiting
    runtime, box = Runtime(at.store), at.store.container("box")
    _require(lambda: [] if _is_running(runtime, box) else ["a program that does not begin"])


def _run(isolation: Isolation) -> Act:
    def run(at: Place) -> None:
        options = _options(at, isolation)
        assert at.store.container("box").run(_TOUCH, isolation=isolation.value, options=options).returncode == 0

    return run


def _foreground(at: Place) -> None:
    Runtime(at.store).run(at.store.container("box"), _NONE)


def _exec(at: Place) -> None:
    options = ExecOptions(_TOUCH, env=(f"{_MARK}={_mark(at)}",))
    assert Runtime(at.store).exec(at.store.container("box"), options, _NONE) == 0


def _start(at: Place) -> None:
    Runtime(at.store).start(at.store.container("box"))


def _stop(at: Place) -> None:
    Runtime(at.store).stop(at.store.container("box"), 0)


def _operation(name: str, act: Act, ready: Act, *void: str) -> Operation:
    return Operation(name, act, ready=ready, beside=_ended, programs=True, void=(*_VOID, *void), settle=_settle)


PROGRAMS: Sequence[Operation] = (
    _operation("run", _run(_FULL), _made(_FULL)),
    _operation("run quickly", _run(_QUICK), _made(_QUICK)),
    _operation("run in the foreground", _foreground, _made(_FULL, *_TOUCH)),
    _operation("run quickly in the foreground", _foreground, _made(_QUICK, *_TOUCH)),
    _operation("start", _start, _made(_FULL, *_SLEEP)),
    _operation("exec", _exec, _started, "row of processes"),  # it goes with that of the last that lives
    _operation("stop", _stop, _started),
    _operation("stop what runs quickly", _stop, _waited_for),
)
