"""Starting costs next to nothing: it is measured beside Python's own start, in turns, in processor time."""

from __future__ import annotations

import os
import subprocess
import sys

ROUNDS = 15
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
COMMAND = "import sys; sys.argv[1:] = ['version']; from layerstore.cli import main; sys.exit(main())"
IMPORT = "import time; start = time.process_time(); import layerstore; print(time.process_time() - start)"


def spent(code: str) -> float:
    """Processor seconds of a Python that runs `code`."""
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", code],
        ENVIRONMENT,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(child, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


def test_version_costs_little_more_than_python() -> None:
    spent(COMMAND)  # compiles what is not compiled yet
    turns = [(spent("pass"), spent(COMMAND)) for _ in range(ROUNDS)]
    assert min(ours for _, ours in turns) <= 1.3 * min(own for own, _ in turns)


def test_importing_the_library_takes_less_than_8_ms() -> None:
    def once() -> float:
        told = subprocess.run([sys.executable, "-c", IMPORT], env=ENVIRONMENT, capture_output=True, check=True)
        return float(told.stdout)

    once()
    assert min(once() for _ in range(ROUNDS)) <= 0.008
