"""Which descriptors stand for a program's standard streams, and what the keyboard and signals do meanwhile: values."""

from __future__ import annotations

from layerstore.values import frozen

__all__ = ["DETACH_KEYS", "Streams"]

DETACH_KEYS = b"\x10\x11"
"""ctrl-p ctrl-q, as docker has it."""


@frozen
class Streams:
    """What a program that runs in the foreground, or is attached to, reads from and writes to: descriptors of ours.

    None is nothing: what would be read is at its end, what is written is lost.
    """

    stdin: int | None = 0
    stdout: int | None = 1
    stderr: int | None = 2
    detach_keys: bytes = DETACH_KEYS
    """Typed one after another at a terminal, they let go of the program, which runs on. Empty: nothing does."""
    signals: bool = True
    """Signals that this process gets are passed on to the program (of the main thread only)."""
