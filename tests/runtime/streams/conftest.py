"""Programs in real containers, by runc and conmon alone: nothing of the store, and nothing else of what is judged."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

PROGRAMS = (
    "sh",
    "cat",
    "echo",
    "env",
    "kill",
    "ls",
    "ps",
    "seq",
    "sleep",
    "stty",
    "tty",
    "trap",
    "true",
    "yes",
    "head",
)


class Rig:
    """A bundle with busybox, and what runs it. `program` is what a test is about; it ends with the rig."""

    def __init__(self, folder: Path) -> None:
        self.bundle = folder
        self.id = f"streams-{uuid4().hex[:12]}"
        self.state = folder / "state"
        self.started: list[subprocess.Popen[bytes]] = []
        root = folder / "rootfs"
        for name in ("bin", "dev", "proc", "sys", "tmp"):
            (root / name).mkdir(parents=True)
        busybox = shutil.which("busybox")
        assert busybox is not None
        shutil.copy(busybox, root / "bin/busybox")
        for name in PROGRAMS:
            (root / "bin" / name).symlink_to("busybox")

    def configure(self, *args: str, tty: bool = False, network: bool = False, **linux: object) -> None:
        """Write a config.json that runs this."""
        kinds = ["pid", "mount", "ipc", "uts", *(["network"] if network else [])]
        config: Mapping[str, Any] = {
            "ociVersion": "1.0.2",
            "process": {
                "terminal": tty,
                "user": {"uid": 0, "gid": 0},
                "args": args,
                "env": ["PATH=/bin", "TERM=xterm"],
                "cwd": "/",
                "capabilities": {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")},
            },
            "root": {"path": "rootfs"},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {
                    "destination": "/dev/pts",
                    "type": "devpts",
                    "source": "devpts",
                    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
                },
            ],
            "linux": {
                "namespaces": [{"type": kind} for kind in kinds],
                "cgroupsPath": f"/layerstore-tests/{self.id}",
                **linux,
            },
        }
        (self.bundle / "config.json").write_text(json.dumps(config))

    def runc(self, *words: str, check: bool = True) -> str:
        line = ["runc", "--root", str(self.state), *words]
        return subprocess.run(line, check=check, capture_output=True, text=True, timeout=30).stdout

    def run(self, *, stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        """`runc run` in the foreground, in a session of its own."""
        words = ["runc", "--root", str(self.state), "run", "--pid-file", str(self.bundle / "pid"), "--bundle"]
        words += [str(self.bundle), self.id]
        process = subprocess.Popen(words, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True)
        self.started.append(process)
        return process

    def conmon(self, *, tty: bool = False, stdin: bool = True) -> None:
        """Have conmon create the container; `runc start` runs it."""
        words = ["conmon", "--api-version", "1", "--sync", "--full-attach", "--cid", self.id, "--cuuid", self.id]
        words += ["--name", self.id, "--runtime", shutil.which("runc") or "runc", "--bundle", str(self.bundle)]
        words += ["--container-pidfile", str(self.bundle / "pid"), "--log-path", f"k8s-file:{self.bundle / 'log'}"]
        words += ["--persist-dir", str(self.bundle), "--runtime-arg", "--root", "--runtime-arg", str(self.state)]
        words += ["--terminal", "--leave-stdin-open"] * tty + ["--stdin"] * stdin
        nothing = subprocess.DEVNULL
        self.started.append(subprocess.Popen(words, stdin=nothing, stdout=nothing, stderr=nothing))
        wait_for((self.bundle / "pid").exists)

    def start(self) -> None:
        self.runc("start", self.id)

    @property
    def pid(self) -> int:
        """Of its first process."""
        wait_for(lambda: (self.bundle / "pid").exists() and (self.bundle / "pid").read_text().isdigit())
        return int((self.bundle / "pid").read_text())

    def end(self) -> None:
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            if (self.state / self.id).exists():
                os.kill(int((self.bundle / "pid").read_text()), signal.SIGKILL)
        for process in self.started:
            process.wait(10)
        self.runc("delete", "--force", self.id, check=False)
        for parent in Path("/sys/fs/cgroup").glob("*/layerstore-tests"):
            with contextlib.suppress(OSError):
                parent.rmdir()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path / "bundle")
    yield made
    made.end()


def wait_for(holds: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.005)


def signal_ourselves(number: int, *, is_noted: bool = False) -> None:
    """Send this process a signal, when it is passed on: one that nobody listens to ends all tests.

    A program's first words may be there before whoever started it listens. `is_noted`: the main thread is not woken,
    as when it was about to wait.
    """
    wait_for(lambda: callable(signal.getsignal(number)))
    if is_noted:
        signal.pthread_kill(threading.get_ident(), number)
    else:
        os.kill(os.getpid(), number)


class Screen:
    """A terminal as a person has it: what stands on it, and a keyboard. `fd` is what a program has of it."""

    def __init__(self) -> None:
        self.mine, self.fd = os.openpty()
        self.text = b""

    def type(self, keys: bytes) -> None:
        os.write(self.mine, keys)

    def read(self) -> bytes:
        """What has come since it was made."""
        while select.select([self.mine], [], [], 0)[0]:
            self.text += os.read(self.mine, 1 << 16)
        return self.text

    def wait_for(self, text: bytes) -> None:
        self._wait_for(lambda: text in self.read(), text)

    def type_until(self, keys: bytes, text: bytes) -> None:
        """Again and again: a size takes its time to get there."""

        def has_come() -> bool:
            self.type(keys)
            time.sleep(0.05)
            return text in self.read()

        self._wait_for(has_come, text)

    def _wait_for(self, holds: Callable[[], bool], text: bytes) -> None:
        try:
            wait_for(holds)
        except AssertionError:
            raise AssertionError(f"{text!r} does not come: {self.text[-200:]!r}") from None

    def close(self) -> None:
        os.close(self.mine)
        os.close(self.fd)


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.close()
