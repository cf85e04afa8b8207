"""The command `layerstore`: docker's words for the library's verbs.

This file is what every call pays for, so it imports next to nothing: click comes with the first command that needs it,
and `layerstore version` needs none. Exit codes: 0, 1 for what failed, 2 for wrong usage, 128 + N for a signal.
"""

from __future__ import annotations

import gc
import sys

__all__ = ["interrupted", "main"]

_YOUNG = 50_000
"""Objects made since the last look for rubbish. What a command imports are tens of thousands, none of them rubbish."""


def main() -> int:
    """The entry point of the command. Returns the exit code."""
    match sys.argv[1:]:
        case ["version"]:
            from layerstore.cli.facts import version_text

            return _write(version_text())
        case ["--version"]:
            from layerstore.cli.facts import version_line

            return _write(version_line())
    gc.set_threshold(_YOUNG)
    try:
        from layerstore.cli.front import run
    except KeyboardInterrupt:
        return interrupted()
    except ModuleNotFoundError as missing:
        if missing.name not in ("click", "rich"):
            raise
        print(
            f"layerstore: the command needs the package {missing.name}, which is not installed\n"
            "Install it with: pip install 'layerstore[cli]'",
            file=sys.stderr,
        )
        return 1
    try:
        return run()
    finally:
        gc.freeze()  # else the interpreter, as it ends, looks through all that there is: a sixth of a short command


def interrupted() -> int:
    """The exit code of a command that SIGINT ended.

    CPython notes when an interrupt comes while it executes source text, as an import does that makes a namedtuple, and
    under `python -m` ends by the signal then, whatever was caught. Executing any other text strikes the note out.
    """
    eval("0")
    return 130


def _write(text: str) -> int:
    try:
        print(text, flush=True)
    except OSError:
        from layerstore.cli import output
        from layerstore.cli.front import exit_code

        # Again, the slow way, which knows what to say and how to leave.
        return exit_code(lambda: output.lines([text]))
    return 0
