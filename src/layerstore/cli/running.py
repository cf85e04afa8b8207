"""What the commands on running containers share: exit codes as docker has them, our own streams, names one by one."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final

import click

from layerstore.cli import output
from layerstore.cli.front import Command
from layerstore.errors import CannotRun, LayerstoreError

if TYPE_CHECKING:
    from layerstore.runtime.streams import Streams

OURS: Final = 125
"""docker's exit code for what failed before a program could be started: any other is the program's own."""

detach_keys_option = click.option("--detach-keys", metavar="KEYS", help="Keys that detach (default: ctrl-p,ctrl-q)")


class _WrongUsage(click.UsageError):
    """Wrong usage of a command whose exit code is a program's, to which 2 may be one's own."""

    exit_code = OURS


class ProgramCommand(Command):
    """A command whose exit code is a program's. What fails before that is 125, wrong usage among it; 126: the program
    cannot be executed, 127: it is not there."""

    failure_code = OURS

    def make_context(self, *args: Any, **named: Any) -> click.Context:
        try:
            return super().make_context(*args, **named)
        except click.UsageError as wrong:
            raise _WrongUsage(wrong.format_message(), wrong.ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as wrong:
            raise _WrongUsage(wrong.format_message(), wrong.ctx) from None
        except LayerstoreError as problem:
            if problem.errno == errno.EPIPE:
                raise
            return failed(problem, code=self.failure_code)


class OneStepCommand(ProgramCommand):
    """One that docker ends with 1 where what it is about is not there, and with 126 or 127 as `run` does."""

    failure_code = 1


def failed(problem: LayerstoreError, *, code: int = 1) -> int:
    """Tell what went wrong; the exit code for it, `code` where it says none itself.

    Where an engine has told it, as it writes to the same standard error, only the remedy is left to be told.
    """
    output.flush()
    if not getattr(problem, "is_told", False):
        output.error(problem)
    elif problem.remedy is not None:
        output.error(problem.remedy)
    return problem.code if isinstance(problem, CannotRun) and problem.code != OURS else code


def together(names: Collection[str], work: Callable[[str], object]) -> int:
    """As `each`, but for all at once: what takes long is waiting. Names are printed in their order."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(len(names), 50) or 1) as pool:
        running = {name: pool.submit(work, name) for name in dict.fromkeys(names)}
        return output.each(running, lambda name: running[name].result())


def streams(
    *, stdin: bool, detach_keys: str | None, signals: bool, stdout: bool = True, stderr: bool = True
) -> Streams:
    """Our own standard streams, as far as they are wanted. Raises `ConfigError` for keys that are none."""
    from layerstore.runtime.streams import DETACH_KEYS, Streams
    from layerstore.runtime.streams.keys import parse

    return Streams(
        stdin=0 if stdin else None,
        stdout=1 if stdout else None,
        stderr=2 if stderr else None,
        detach_keys=DETACH_KEYS if detach_keys is None else parse(detach_keys),
        signals=signals,
    )


def require_terminal(*, tty: bool, stdin: bool) -> None:
    """Raise `LayerstoreError` where a terminal is asked for, and what would be typed comes from elsewhere."""
    if tty and stdin and (sys.stdin is None or not sys.stdin.isatty()):
        raise LayerstoreError("the input device is not a TTY", remedy="Leave -t out, or -i.")
