"""Runs a call in a child process with little memory and time: what a hostile tar may not use up."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

LIMIT = 4 << 30


class OutOfBounds(AssertionError):
    """The call took too long, crashed, or ran into the limit of memory."""


def bounded(call: Callable[[], Any], *, seconds: float = 10, memory: int = 128 << 20) -> Any:
    """What `call` returns or raises. `memory` is what it may occupy beyond what this process does already.

    `seconds` are those of its processor: a machine that does much else gives it few. Waiting ends at ten times as many.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _run(call, writer, memory)
    os.close(writer)
    try:
        answer = _read(reader, time.monotonic() + 10 * seconds)
    finally:
        os.close(reader)
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            os.kill(child, signal.SIGKILL)
        _, status, spent = os.wait4(child, 0)
    if answer is None or spent.ru_utime + spent.ru_stime > seconds:
        raise OutOfBounds(f"no answer within {seconds} s")
    if not answer:
        raise OutOfBounds(f"the process died: exit code {os.waitstatus_to_exitcode(status)}")
    failed, outcome = pickle.loads(answer)
    if failed:
        raise outcome
    return outcome


def _run(call: Callable[[], Any], writer: int, memory: int) -> NoReturn:
    """The child. It leaves without the parent's clean-up, whatever happens."""
    try:
        # This only keeps the machine alive: address space counts what threads, or a sanitizer, reserve and never touch.
        if _occupied("VmSize") < LIMIT:
            resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far: proc(5)
        before = _occupied("VmHWM")
        try:
            answer = pickle.dumps((False, call()))
        except Exception as error:
            answer = _pickled(error)
        grown = _occupied("VmHWM") - before
        if grown > memory:
            answer = pickle.dumps((True, OutOfBounds(f"{grown >> 20} MiB of memory, not {memory >> 20}")))
        with open(writer, "wb") as out:
            out.write(answer)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _occupied(kind: str) -> int:
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) * 1024


def _pickled(error: Exception) -> bytes:
    try:
        answer = pickle.dumps((True, error))
        pickle.loads(answer)
    except Exception:
        # An error whose constructor wants more than its message: its type is what the tests look at.
        answer = pickle.dumps((True, Raised(type(error).__name__, str(error))))
    return answer


class Raised(Exception):
    """Stands for an error that does not travel between processes."""


def _read(reader: int, deadline: float) -> bytes | None:
    answer = b""
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return None
        piece = os.read(reader, 1 << 20)
        if not piece:
            return answer
        answer += piece
