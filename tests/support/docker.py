"""docker's classic builder, in a daemon of its own that touches no network and keeps all that it has in one folder."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from attrs import frozen

from support.buildah import PATH

__all__ = ["Docker", "daemon"]

PATIENCE_S = 30.0
_CGROUPS = Path("/sys/fs/cgroup")


@frozen
class Docker:
    """A client of the daemon that listens at `socket`."""

    socket: Path

    def __call__(self, *words: str | Path) -> str:
        """Run one of its commands; what it prints."""
        done = subprocess.run(
            ["docker", "--host", f"unix://{self.socket}", *words],
            env={**os.environ, "DOCKER_BUILDKIT": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"docker {' '.join(map(str, words))}: {done.stderr[-2000:]}{done.stdout[-2000:]}")
        return done.stdout.strip()

    def base(self, name: str, root: Path) -> None:
        """Make an image of the tar of a root filesystem."""
        self("import", "--change", 'CMD ["sh"]', "--change", f"ENV {PATH}", root, name)

    def build(self, context: Path, name: str) -> None:
        """Build a context's Dockerfile."""
        self("build", "-q", "--network=host", "-t", name, context)

    def save(self, name: str, target: Path) -> Path:
        """Write an image as a docker-archive."""
        self("save", "-o", target, name)
        return target


@contextmanager
def daemon(folder: Path, *options: str) -> Iterator[Docker]:
    """Whose storage is in `folder`; it ends with the block, and so do the folders that it made for control groups.

    What it mounts, it mounts in a mount namespace of its own.
    """
    groups = [group / "docker" for group in _CGROUPS.iterdir() if not (group / "docker").exists()]
    socket = folder / "socket"
    places = [f"--host=unix://{socket}", *(f"--{name}={folder}/{name}" for name in ("data-root", "exec-root"))]
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    command = ["unshare", "--mount", "dockerd", f"--pidfile={folder}/pid", *places, *network, *options]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + PATIENCE_S
            while not socket.exists() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            client = Docker(socket)
            client("version")
            yield client
        finally:
            process.terminate()
    for group in groups:
        with suppress(OSError):  # never made, or somebody else's by now
            group.rmdir()
