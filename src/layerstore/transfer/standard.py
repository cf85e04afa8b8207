"""Standard input and output as bytes: what "-" means as a source or target."""

from __future__ import annotations

import sys
from typing import BinaryIO

from layerstore.errors import ConfigError

STANDARD = "-"


def standard_input() -> BinaryIO:
    """Standard input. Raises `ConfigError` if this process has none."""
    if sys.stdin is None:
        raise ConfigError("standard input is closed", remedy="Name a file, or redirect standard input.")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Standard output. Raises `ConfigError` if this process has none."""
    if sys.stdout is None:
        raise ConfigError("standard output is closed", remedy="Name a file, or redirect standard output.")
    return sys.stdout.buffer
