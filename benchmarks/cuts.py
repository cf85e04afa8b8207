"""What goes wrong on the way: a pull that is cut again and again, and made to go on.

A cut is one of three: all connections are reset; the process that pulls is killed; the machine loses its power,
which is played by a filesystem that is found as its loop image was at that moment.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final

from attrs import frozen

from benchmarks.bench import filesystem
from benchmarks.relay import Relay
from layerstore.testing.filesystems import Filesystems
from layerstore.testing.power import Disk

CONNECTION, PROCESS, POWER = KINDS = ("connection reset", "process killed", "power cut")

RATE: Final = 16 << 20
"""Bytes a second: a good line to the world. What is on its way to the disk when the power fails grows with it."""
_STUCK: Final = 300.0


@frozen
class Continued:
    """A pull that was cut so often, at that many cuts, and came to its end: what came over the line for it."""

    kind: str
    cuts: int
    size: int
    """Bytes of the image's blobs."""
    carried: int
    seconds: float

    @property
    def ratio(self) -> float:
        """What came for each byte of the image."""
        return self.carried / self.size

    @property
    def lost(self) -> float:
        """Bytes that came again, for each cut."""
        return (self.carried - self.size) / self.cuts


def cut(kind: str, target: str, name: str, size: int, *, cuts: int, seed: int, work: Path) -> Continued:
    """Pull `name` of the registry `target` with that many cuts, at random bytes of `size`."""
    chosen = random.Random(seed)
    points = sorted(chosen.randrange(size) for _ in range(cuts))
    with _store(kind, work) as (folder, power_cut), Relay(target, rate=RATE) as relay:
        start = time.monotonic()
        process = _pull(folder, relay, name)
        try:
            for point in points:
                relay.stop_at(point)
                _wait(relay, process)
                if kind != CONNECTION:
                    with power_cut():
                        process.send_signal(signal.SIGKILL)
                        process.wait()
                relay.drop()
                relay.go_on()
                if kind != CONNECTION:
                    process = _pull(folder, relay, name)
            if process.wait(_STUCK) != 0:
                sys.exit(f"the pull failed after {cuts} cuts ({kind})")
        finally:
            process.kill()
            process.wait()
        return Continued(kind, cuts, size, relay.carried, time.monotonic() - start)


def _wait(relay: Relay, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _STUCK
    while not relay.has_stopped(0.2):
        if process.poll() is not None or time.monotonic() > end:
            sys.exit(f"the pull ended with {process.returncode} before it was cut")


def _pull(folder: Path, relay: Relay, name: str) -> subprocess.Popen[bytes]:
    program = Path(sys.executable).with_name("layerstore")
    command: list[str | Path] = [
        program,
        "--root",
        folder / "store",
        "-s",
        "overlay2",
        "pull",
        "-q",
        f"{relay.host}/{name}",
    ]
    return subprocess.Popen([os.fspath(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


@contextmanager
def _store(kind: str, work: Path) -> Iterator[tuple[Path, Callable[[], AbstractContextManager[None]]]]:
    """A fresh ext4, and what surrounds the end of a process at a cut. Its image lies on xfs, to be copied at once."""
    with filesystem(work, size=24 << 30, kind="xfs") as below:
        filesystems = Filesystems()
        try:
            with Disk(filesystems, "ext4", size=8 << 30, options=(), below=below) as disk:
                yield disk.mountpoint, disk.cut if kind == POWER else nullcontext
        finally:
            filesystems.close()
