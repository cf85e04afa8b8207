"""`exec`: one more program in a container that runs, in all of its namespaces, by its own engine.

It ends with the container, at the latest. Its streams are ours, as with a program in the foreground; let go of, or
started with `detach`, it goes on by itself.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from attrs import evolve

from layerstore import Container, KernelError, Process
from layerstore.runtime import bundle
from layerstore.runtime.engine import hierarchy
from layerstore.runtime.engine.words import failure, words_in
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.life import Runtime
from layerstore.runtime.options import ExecOptions
from layerstore.runtime.streams import End, Foreground, Streams, terminal

__all__ = ["execute"]

_PATIENCE = 2.0
"""Seconds that a signal, or who lets go of a program, waits for it to begin."""


def execute(runtime: Runtime, container: Container, options: ExecOptions, streams: Streams) -> int:
    """Run it; its exit code, or 0 if it was let go of, or detached from the start.

    Raises `NotRunning` for a container that does not run or is paused, `CannotRun` with docker's exit code.
    """
    verbs, what = runtime.require_running(container), f"exec in container {container.name} failed"
    state = runtime.state(container)
    if state.status == "paused":
        raise NotRunning(
            f"container {container.name} is paused, unpause the container before exec",
            remedy=f"To let it go on: layerstore unpause {container.name}",
        )
    folder = runtime.folder(container)
    place = Path(tempfile.mkdtemp(prefix="exec-", dir=folder.path))
    try:
        if options.tty:
            size = terminal.size(streams.stdout) or terminal.size(streams.stdin)
            options = evolve(options, console_size=size)
        config = json.loads(folder.config.read_text())
        (place / "process.json").write_text(json.dumps(_process(config, options, state.pid, what)))
        log, pid_file = place / "log", place / "pid"
        words = ["exec", "--process", str(place / "process.json"), "--pid-file", str(pid_file)]
        # Engines that detach have nobody who holds the terminal: then it is let go of, as by the keys.
        words += ["--detach"] if options.detach and not options.tty else []
        with Foreground(
            streams if not options.detach else Streams(None, None, None),
            tty=options.tty,
            takes_input=options.interactive and not options.detach,
        ) as front:
            process = container.launch(
                verbs.argv(*words, folder.name, log=log),
                root=folder.root,
                stdin=front.stdin,
                stdout=front.stdout,
                stderr=front.stderr,
                hide=hierarchy().hidden,
                new_session=True,
            )
            if options.detach and options.tty:
                end = front.let_go()
            else:
                end = front.attend(
                    process.pidfd,
                    send=lambda number: _send(process, pid_file, number),
                    resized=lambda: _resize(pid_file, streams),
                )
        if end is End.DETACHED and _begins(process, pid_file):
            return 0
        code = process.wait() or 0
        is_told = not options.detach and (verbs.tells_terminals if options.tty else streams.stderr is not None)
        if code and (said := words_in(log)):
            raise failure(what, said, is_told=is_told, usual=126)
        return code if code >= 0 else 128 - code
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _process(config: Any, options: ExecOptions, pid: int, what: str) -> dict[str, Any]:
    """The runtime spec's process of it. Users are looked up in the tree as the container has it now."""
    path = f"/proc/{pid}/root"
    try:
        tree = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError("open", error.errno or 0, path=path) from error
    try:
        process = bundle.for_exec(config, options, bundle.read_host(cgroup=hierarchy().version, init=False), tree)
        # All that is mounted is seen from here, unless its first process has gone to another root since.
        if os.readlink(path) == "/" and (why := bundle.unfit_program(tree, {"process": process})) is not None:
            raise failure(what, [why], usual=126)
        return process
    finally:
        os.close(tree)


def _begins(process: Process, pid_file: Path) -> bool:
    """Wait until the engine has written the file: runc ends the program if its folder has gone before. Has it begun?"""
    deadline = time.monotonic() + _PATIENCE
    while process.is_alive and not pid_file.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    return process.is_alive or pid_file.exists()


def _resize(pid_file: Path, streams: Streams) -> None:
    """Give the program's terminal the size of ours. crun passes the signal on, and not the size."""
    wanted = terminal.size(streams.stdout) or terminal.size(streams.stdin)
    with suppress(OSError, ValueError):  # it has not begun, or has ended
        fd = os.open(f"/proc/{int(pid_file.read_text())}/fd/0", os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if wanted is not None:
                terminal.set_size(fd, wanted)
        finally:
            os.close(fd)


def _send(process: Process, pid_file: Path, number: int) -> None:
    """Give the program a signal. crun writes down which process it is a little after it has begun."""
    deadline = time.monotonic() + _PATIENCE
    while process.is_alive:
        try:
            os.kill(int(pid_file.read_text()), number)
        except (FileNotFoundError, ValueError):
            if time.monotonic() > deadline:
                process.kill(number)  # the engine passes on what it gets
                return
            time.sleep(0.005)
        except ProcessLookupError:
            return
        else:
            return
