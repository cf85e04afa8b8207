"""Processes that are ended by force, by what they are and not by their number alone."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerstore.kernel.processes.identity import Identity

__all__ = ["kill"]


def kill(identity: Identity, seconds: float) -> None:
    """Kill a process that is seen from here, if it has not ended, and wait until it has, or for so many seconds."""
    try:
        fd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return
    try:
        if identity.is_alive:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, signal.SIGKILL)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            poll.poll(max(0, seconds) * 1000)
    finally:
        os.close(fd)
