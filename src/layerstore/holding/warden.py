"""The warden: a shell that has the watch, too, and does nothing but wait for the end of both holder and fetcher.

If nobody has the watch, the kernel lets readers have zeros. Holder and fetcher may be killed in one moment; then
readers wait, and what the shell has waited for is over: it becomes the holder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack, suppress

from attrs import evolve

from layerstore.holding.passing import Given, hand_over

__all__ = ["Warden"]

_SCRIPT = 'read -r word && exit 0; exec "$@" </dev/null'
"""A line says that it is needed no more; an end without one, that nobody is there any more who could say it."""


class Warden:
    """Started anew where it has ended. `line` is to be inherited by whoever else has to be gone before it acts."""

    def __init__(self, given: Given) -> None:
        self._given = given
        self._process: subprocess.Popen[bytes] | None = None
        self.line = given.warden

    def keep(self) -> bool:
        """See that there is one. True: it is another one than before, and has another line."""
        if self._process is not None and self._process.poll() is None:
            return False
        with ExitStack() as undo, ExitStack() as afterwards:
            read, write = os.pipe()
            undo.callback(os.close, write)
            afterwards.callback(os.close, read)
            word, fds = hand_over(evolve(self._given, warden=-1), [])
            afterwards.callback(os.close, int(word))
            words = [
                "/bin/sh",
                "-c",
                _SCRIPT,
                "layerstore-warden",
                sys.executable,
                "-P",
                "-m",
                "layerstore.holding",
                word,
            ]
            self._process = subprocess.Popen(words, stdin=read, pass_fds=fds)
            undo.pop_all()
        self.dismiss()
        self.line = write
        return True

    def dismiss(self) -> None:
        """The one of before goes, whoever started it."""
        line, self.line = self.line, -1
        if line >= 0:
            with suppress(OSError):
                os.write(line, b"end\n")
            os.close(line)
