"""Health checks by docker's rules (moby, daemon/health.go): when they are made, how, and what follows from them.

A check is a program that is run in the container: 0 is healthy. Rules are pure functions here; `probe` runs it,
`run_once` writes down what came of it, and `watch` does so again and again, in the process that stays with a container.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerstore import Container, LayerstoreError
from layerstore.runtime.engine.parts import part_for
from layerstore.runtime.engine.words import words_in
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.options import ExecOptions, HealthCheck, RunOptions
from layerstore.runtime.said import section
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.runtime.life import Runtime
    from layerstore.runtime.life.processes import ProcessId

__all__ = ["Check", "Result", "after", "begin", "check_of", "pause", "probe", "run_once", "watch"]

_LONGEST_OUTPUT = 4096
_LOG = 5
_PATIENCE = 5.0
"""Seconds in which an engine begins a program, and ends after it."""
_LONGEST_PAUSE = 2e6
"""Seconds: 23 days. poll(2) takes two more."""
_STARTING, _HEALTHY, _UNHEALTHY = "starting", "healthy", "unhealthy"
_SHELL = ("/bin/sh", "-c")


@frozen
class Check:
    """What is run, and by which rules. Times are in seconds."""

    args: tuple[str, ...]
    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3


@frozen
class Result:
    """What one check said. An exit code of -1: it could not be run, or took too long."""

    begun: datetime
    ended: datetime
    exit_code: int
    output: str

    def told(self) -> dict[str, Any]:
        """It in docker's words."""
        return {
            "Start": _stamp(self.begun),
            "End": _stamp(self.ended),
            "ExitCode": self.exit_code,
            "Output": self.output,
        }


# --- rules


def check_of(image_config: Mapping[str, Any], options: RunOptions) -> Check | None:
    """The check of a container: what the options say over what its image says; None if there is none."""
    config = section(image_config)
    said: Mapping[str, Any] = config.get("Healthcheck") or {}
    given = options.health or HealthCheck()
    args = None if given.disabled else _args(given.test or said.get("Test") or (), config.get("Shell"))
    if args is None:
        return None
    usual = Check(args)
    return Check(
        args,
        interval=given.interval or _seconds(said.get("Interval")) or usual.interval,
        timeout=given.timeout or _seconds(said.get("Timeout")) or usual.timeout,
        start_period=given.start_period or _seconds(said.get("StartPeriod")) or usual.start_period,
        start_interval=given.start_interval or _seconds(said.get("StartInterval")) or usual.start_interval,
        retries=given.retries or said.get("Retries") or usual.retries,
    )


def _args(test: Sequence[str], shell: Sequence[str] | None) -> tuple[str, ...] | None:
    match tuple(test):
        case ("CMD", *words) if words:
            return tuple(words)
        case ("CMD-SHELL", *words) if words:
            return (*(shell or _SHELL), *words)
        case _:
            return None


def _seconds(ns: object) -> float:
    return ns / 1e9 if isinstance(ns, int) else 0.0


def begin() -> dict[str, Any]:
    """The health of a container that was just started."""
    return {"Status": _STARTING, "FailingStreak": 0, "Log": []}


def after(health: Mapping[str, Any], result: Result, check: Check, started: datetime) -> dict[str, Any]:
    """The health after one more check. `started` is when the container was.

    A failure does not count while it starts and its start period lasts.
    """
    status, streak = health.get("Status", _STARTING), int(health.get("FailingStreak", 0))
    if result.exit_code == 0:
        status, streak = _HEALTHY, 0
    elif status != _STARTING or result.begun - started >= timedelta(seconds=check.start_period):
        streak += 1
        status = _UNHEALTHY if streak >= check.retries else status
    return {"Status": status, "FailingStreak": streak, "Log": [*(health.get("Log") or ()), result.told()][-_LOG:]}


def pause(health: Mapping[str, Any], check: Check, started: datetime, now: datetime) -> float:
    """Seconds until the next check."""
    is_early = now - started < timedelta(seconds=check.start_period)
    return check.start_interval if is_early and health.get("Status") == _STARTING else check.interval


# --- checks


def probe(runtime: Runtime, container: Container, check: Check) -> Result:
    """Run a container's check in it, now. Raises `NotRunning`."""
    from layerstore.runtime import bundle

    verbs, folder = runtime.require_running(container), runtime.folder(container)
    begun = datetime.now(UTC)
    config = json.loads(folder.config.read_text())
    process = bundle.for_exec(config, ExecOptions(check.args), bundle.read_host(), -1)
    process["terminal"] = False
    with (
        tempfile.TemporaryDirectory(prefix="health-", dir=folder.path) as place,
        tempfile.TemporaryFile() as written,
        part_for(verbs, folder.cgroup(), os.path.basename(place), within=folder.name) as part,
    ):
        told, pid, log = (Path(place, name) for name in ("process.json", "pid", "log"))
        told.write_text(json.dumps(process))
        line = verbs.argv("exec", *part.words, "--process", str(told), "--pid-file", str(pid), folder.name, log=log)
        with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=written, stderr=written) as engine:
            try:
                code = engine.wait(check.timeout)
            except subprocess.TimeoutExpired:
                _end(pid, engine)
                part.end()
                output = f"Health check exceeded timeout ({_span(check.timeout)})"
                return Result(begun, datetime.now(UTC), -1, output)
        if code and (words := words_in(log)):
            return Result(begun, datetime.now(UTC), -1, "; ".join(words))
        written.seek(0)
        output = written.read(_LONGEST_OUTPUT).decode(errors="replace")
    return Result(begun, datetime.now(UTC), code, output)


def _end(pid_file: Path, engine: subprocess.Popen[bytes]) -> None:
    """Kill the program of a check, which may be about to begin only, and the engine that waits for it."""
    deadline = time.monotonic() + _PATIENCE
    while engine.poll() is None and time.monotonic() < deadline:
        with suppress(FileNotFoundError, ValueError, ProcessLookupError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            engine.wait(0.01)
    engine.kill()


def run_once(runtime: Runtime, container: Container) -> Mapping[str, Any]:
    """Check a container now, and write down what came of it; its health. Raises `NotRunning`, `LayerstoreError`."""
    from layerstore.runtime.life import rows

    check = _check(runtime, container)
    if check is None:
        raise LayerstoreError(
            f"container {container.name} has no health check",
            remedy="Its image says none: make the container with --health-cmd.",
        )
    started = runtime.state(container).started
    result = probe(runtime, container, check)
    with runtime.database.write(durable=False) as tx:
        row = rows.find(tx, container.id)
        if row is None:
            raise NotRunning(f"container {container.short_id} is not running")
        known = json.loads(row.health) if row.health else begin()
        health = after(known, result, check, started or result.begun)
        rows.put_health(tx, container.id, json.dumps(health))
    return health


def watch(runtime: Runtime, container: Container) -> None:
    """Check a container by its rules until it ends; while it is paused, not. Does nothing for one without a check."""
    from layerstore.runtime.life.processes import process_of, wait_for

    check, state = _check(runtime, container), runtime.state(container)
    first: ProcessId | None = process_of(state.pid) if state.pid else None
    if check is None or first is None:
        return
    began = state.started or datetime.now(UTC)
    while not wait_for(first, min(_LONGEST_PAUSE, pause(state.health or {}, check, began, datetime.now(UTC)))):
        state = runtime.state(container)
        if state.status == "running":
            with suppress(NotRunning):
                run_once(runtime, container)
            state = runtime.state(container)


def _check(runtime: Runtime, container: Container) -> Check | None:
    image = container.image
    return check_of({} if image is None else image.config, runtime.options(container))


def _stamp(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _span(seconds: float) -> str:
    """As Go writes a duration: 30s, 1.5s, 2m0s."""
    minutes, rest = divmod(seconds, 60)
    text = f"{rest:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text
