"""Standard output and standard error: what may be written to them, and how.

Output is UTF-8 whatever the locale says, as docker's; names that are not UTF-8 leave as the bytes that they are. A
terminal gets no control characters out of an image's or a file's name. An error is one line, or two with its remedy.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable
from typing import BinaryIO, Final, TextIO

from layerstore.cli.units import one_line
from layerstore.errors import LayerstoreError, file_of, remedy_for

_SOURCE: Final = "Name a file, or redirect standard input."
_TARGET: Final = "Name a file with -o, or redirect standard output."
_FORCE: Final = "Without a terminal, use --force."
# All control characters but tab and line break, as visible escapes.
_CONTROLS: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}


def prepare() -> None:
    """Make both streams able to carry any name, and see that no file takes the place of one that is closed."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def lines(texts: Iterable[str]) -> None:
    """Write lines to standard output."""
    if sys.stdout is None:
        return
    is_terminal = _is_terminal(sys.stdout)
    for text in texts:
        line = f"{text.translate(_CONTROLS) if is_terminal else text}\n"
        try:
            sys.stdout.write(line)
        except OSError as problem:
            raise _of_output(problem) from None


def each(names: Iterable[str], work: Callable[[str], object]) -> int:
    """Do something with each name, and print the name; one that fails does not keep the others from it."""
    code = 0
    for name in names:
        try:
            work(name)
        except LayerstoreError as problem:
            error(problem)
            code = 1
        else:
            lines([name])
    return code


def error(problem: BaseException | str) -> None:
    """Write what went wrong, and the remedy if there is one, to standard error."""
    texts = [f"layerstore: {one_line(described(problem))}"]
    remedy = problem.remedy if isinstance(problem, LayerstoreError) else None
    if isinstance(problem, OSError):
        remedy = remedy_for(problem.errno, path=file_of(problem))
    if remedy is not None:
        texts.append(one_line(remedy))
    warn(*texts)


def warn(*texts: str) -> None:
    """Write lines to standard error, if there is one."""
    if sys.stderr is None:
        return
    text = "".join(f"{text}\n" for text in texts)
    # Where nobody can be told, the exit code has to do.
    with contextlib.suppress(OSError):
        sys.stderr.write(text.translate(_CONTROLS) if _is_terminal(sys.stderr) else text)
        sys.stderr.flush()


def described(problem: BaseException | str) -> str:
    """An error in words, without its remedy."""
    match problem:
        case str():
            return problem
        case LayerstoreError():
            return problem.message
        case OSError(filename=filename, strerror=str(words)) if filename is not None:
            return f"{filename if isinstance(filename, int) else os.fsdecode(filename)}: {words}"
        case OSError(strerror=str(words)):
            return f"the system refused what was asked of it: {words}"
    return f"{type(problem).__name__}: {problem}"


def binary_output() -> BinaryIO:
    """Standard output, for a tar. Raises `LayerstoreError` where it is a terminal, or closed."""
    if sys.stdout is None:
        raise LayerstoreError("standard output is closed", remedy=_TARGET)
    if _is_terminal(sys.stdout):
        raise LayerstoreError("will not write a tar to a terminal", remedy=_TARGET)
    sys.stdout.flush()
    return sys.stdout.buffer


def write_bytes(data: bytes | memoryview) -> None:
    """Write to standard output, which is not closed."""
    try:
        sys.stdout.buffer.write(data)
    except OSError as problem:
        raise _of_output(problem) from None


def binary_input() -> BinaryIO:
    """Standard input, for a tar. Raises `LayerstoreError` where it is a terminal, or closed."""
    if sys.stdin is None:
        raise LayerstoreError("standard input is closed", remedy=_SOURCE)
    if _is_terminal(sys.stdin):
        raise LayerstoreError("standard input is a terminal", remedy=_SOURCE)
    return sys.stdin.buffer


def printable(text: str) -> str:
    """`text` fit for a terminal."""
    return one_line(text).translate(_CONTROLS)


def is_terminal() -> bool:
    """Whether standard output is one."""
    return sys.stdout is not None and _is_terminal(sys.stdout)


def clear() -> None:
    """Begin a terminal anew: nothing on it, and the cursor in its first place."""
    sys.stdout.write("\x1b[2J\x1b[H")


def is_quiet() -> bool:
    """Whether nobody watches: standard error is no terminal."""
    return sys.stderr is None or not _is_terminal(sys.stderr)


def asked(question: str) -> bool:
    """Ask on standard error for a yes. Raises `LayerstoreError` when there is nobody to answer."""
    if sys.stdin is None or sys.stderr is None:
        raise LayerstoreError("there is nobody to ask, so nothing was done", remedy=_FORCE)
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        sys.stderr.write("\n")
        raise LayerstoreError("there was no answer, so nothing was done", remedy=_FORCE)
    return answer.strip().lower() in ("y", "yes")


def flush() -> None:
    """Push out what was written, while an error can still be told."""
    if sys.stdout is not None:
        try:
            sys.stdout.flush()
        except OSError as problem:
            raise _of_output(problem) from None


def abandon() -> None:
    """Stop the interpreter from flushing standard output again at its end: that has failed already."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout is sys.__stdout__:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _of_output(problem: OSError) -> LayerstoreError:
    """An error of standard output that says so."""
    remedy = remedy_for(problem.errno, elsewhere=True)
    return LayerstoreError(f"standard output: {problem.strerror}", remedy=remedy, errno=problem.errno)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False
