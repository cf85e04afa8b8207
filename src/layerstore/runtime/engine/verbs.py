"""An engine's commands, as the runtime spec has them ("Operations") and as crun, runc and youki spell them.

What starts a container (`run`, `create`) is only an argument list here: it is run where the container's tree is, by
whoever has that. All else is run at once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerstore import CannotRun
from layerstore.runtime.engine.engines import Engine
from layerstore.runtime.engine.words import failure, words_of

if TYPE_CHECKING:
    from subprocess import CompletedProcess

__all__ = ["Verbs"]


class Verbs:
    """One engine with its own folder of state, `root`: what it is told of containers that it runs."""

    def __init__(self, engine: Engine, root: Path) -> None:
        self.engine = engine
        self.root = root
        is_crun = os.path.basename(engine.path) == "crun"
        # crun writes that a program cannot be executed to the container's own standard error, in this form, too; its
        # texts are bare words. Those of the others are not.
        self._format = "text" if is_crun else "json"
        self.tells_terminals = not is_crun
        """What it says of a failure is seen on the terminal that it has, too: crun ends before it has copied that."""

    def argv(self, *words: str, log: Path | None = None) -> list[str]:
        """A command line: the engine, where its state lies, where its log goes, and `words`."""
        logs = [] if log is None else ["--log", str(log), "--log-format", self._format]
        return [self.engine.path, *self.engine.args, "--root", str(self.root), *logs, *words]

    def run_argv(self, container: str, bundle: Path, *, log: Path, pid_file: Path) -> list[str]:
        """`run`: makes and starts it, stays, passes signals on, and ends with its exit code."""
        return self.argv("run", "--bundle", str(bundle), "--pid-file", str(pid_file), container, log=log)

    def start(self, container: str) -> None:
        """Run the program of a container that was made by `create`."""
        self.call("start", container, what=f"container {container[:12]} cannot be started")

    def kill(self, container: str, signal: int) -> None:
        """Send a signal to its first process."""
        self.call("kill", container, str(signal), what=f"signal {signal} cannot be sent to container {container[:12]}")

    def pause(self, container: str) -> None:
        """Freeze it."""
        self.call("pause", container, what=f"container {container[:12]} cannot be paused")

    def resume(self, container: str) -> None:
        """Let it go on."""
        self.call("resume", container, what=f"container {container[:12]} cannot be resumed")

    def delete(self, container: str) -> None:
        """Give back all that the engine holds for it (cgroups, its state), running or not. Unknown, it is no error."""
        if self.knows(container):
            self.call("delete", "--force", container, what=f"what is left of container {container[:12]} cannot go")

    def knows(self, container: str) -> bool:
        """Does the engine hold something for it?"""
        return (self.root / container).exists()

    def forget(self, container: str) -> None:
        """Remove what the engine holds, where it cannot do that itself any more."""
        from shutil import rmtree

        rmtree(self.root / container, ignore_errors=True)

    def state(self, container: str) -> Mapping[str, Any]:
        """What the engine itself says of it (runtime spec, "State")."""
        told = self.call("state", container, what=f"the state of container {container[:12]} cannot be told")
        found: dict[str, Any] = json.loads(told)
        return found

    def call(self, *words: str, what: str, env: Mapping[str, str] | None = None) -> bytes:
        """Run a command to its end; what it wrote. Raises `CannotRun`, which begins with `what`."""
        from tempfile import TemporaryFile

        with TemporaryFile() as log:
            line = self.argv(*words, log=Path(f"/proc/self/fd/{log.fileno()}"))
            done = _run(line, log.fileno(), env)
            if done.returncode == 0:
                return done.stdout
            log.seek(0)
            said = words_of(log.read()) or words_of(done.stderr)
        raise failure(what, said)


def _run(line: Sequence[str], log: int, env: Mapping[str, str] | None) -> CompletedProcess[bytes]:
    from subprocess import DEVNULL, run

    try:
        return run(line, stdin=DEVNULL, capture_output=True, pass_fds=[log], env=env)
    except OSError as error:
        raise CannotRun(
            f"{line[0]} cannot be executed: {error.strerror}",
            remedy="Install it again: the container was started by it.",
        ) from error
