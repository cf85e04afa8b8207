"""How long arguments and variables of a program may be: as Linux counts it, before an engine is asked.

Engines make their last step, execve(2), when they have told already that all is well: what it refuses ends as a
program of its own would, by a number. So what it is going to refuse is known here (fs/exec.c, `copy_strings` and
`bprm_stack_limits`).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Sequence

from layerstore import CannotRun

__all__ = ["require"]

_LONGEST = 32 * os.sysconf("SC_PAGE_SIZE")
"""Of one string, with the NUL at its end (MAX_ARG_STRLEN)."""

_ALWAYS = 1 << 17
"""As much as all of them may have, however small the stack is (ARG_MAX)."""

_MOST = (8 << 20) // 4 * 3
"""As much as they may have, however large the stack is (three quarters of _STK_LIM)."""

_POINTER = 8


def require(args: Sequence[str], env: Iterable[str], stack: int | None = None) -> None:
    """Raise `CannotRun` (126) for what is too long to be given to a program.

    `stack`: the bytes that its stack may have, -1 for no limit; None: as this process.
    """
    variables = list(env)
    for what, texts in (("argument", args), ("variable", variables)):
        for text in texts:
            size = len(os.fsencode(text)) + 1
            if size > _LONGEST:
                name = f" {text.partition('=')[0]}" if what == "variable" else ""
                raise _too_long(args, f"the {what}{name} has {size - 1} bytes, and one may have {_LONGEST - 1}")
    if stack is None:
        stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    room = _MOST if stack < 0 else max(min(_MOST, stack // 4), _ALWAYS)
    texts = [*args, *variables]
    size = sum(len(os.fsencode(text)) + 1 + _POINTER for text in texts)
    if size >= room:
        raise _too_long(args, f"arguments and variables have {size} bytes, and may have {room} together")


def _too_long(args: Sequence[str], why: str) -> CannotRun:
    return CannotRun(
        f"cannot execute {args[0]}: argument list too long: {why}",
        code=126,
        remedy="Give it as a file, or on standard input.",
    )
