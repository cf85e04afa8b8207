"""How the demo talks: headings, prose, commands as a user would type them, and what they print."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

WIDTH = 100
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")

_started = time.monotonic()
_steps = 0


def heading(text: str) -> None:
    """A new step."""
    global _steps
    _steps += 1
    print(f"\n{BOLD}{_steps}. {text}{PLAIN}  {DIM}[{time.monotonic() - _started:.0f} s]{PLAIN}\n", flush=True)


def say(text: str) -> None:
    """A paragraph."""
    print(textwrap.fill(" ".join(text.split()), WIDTH), end="\n\n", flush=True)


def code(text: str) -> None:
    """Python, as it is run next."""
    print(textwrap.indent(textwrap.dedent(text).strip("\n"), "    "), end="\n\n", flush=True)


def output(lines: Sequence[str], *, most: int | None = None) -> None:
    """What a command printed; of more than `most` lines the first."""
    shown = lines if most is None or len(lines) <= most else lines[:most]
    for line in shown:
        print(f"    {line.rstrip()}")
    if len(shown) < len(lines):
        print(f"    {DIM}... and {len(lines) - len(shown):,} more lines{PLAIN}")
    print(flush=True)


class Shell:
    """Runs commands in the demo's folder and shows them."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": f"{programs}:{os.environ.get('PATH', os.defpath)}", "COLUMNS": "120"}

    def run(self, command: str, *, most: int | None = None, fails: bool = False, quiet: bool = False) -> list[str]:
        """Run `command`, show it and what it prints, and return the lines. `fails`: it has to, and says why."""
        done = subprocess.run(
            shlex.split(command), cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        lines = (done.stdout + done.stderr).splitlines()
        if not quiet:
            print(f"    {BOLD}$ {command}{PLAIN}")
            output(lines, most=most)
        if (done.returncode != 0) is not fails:
            raise SystemExit(f"{command}\nended with {done.returncode}, which it should not:\n" + "\n".join(lines))
        return lines
