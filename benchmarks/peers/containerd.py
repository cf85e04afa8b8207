"""containerd of its own folders and namespace, by `ctr`."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench import run
from benchmarks.peers.images import Image
from benchmarks.peers.programs import BOX, Commands, Program, Words

_CONFIG = """
version = 2
root = "{home}/root"
state = "{home}/run/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{sockets}/c.sock"
"""


class Containerd(Program):
    title = "containerd (ctr)"
    needs = ("ctr", "containerd", "containerd-shim-runc-v2")

    def __init__(self, home: Path, runtime: str) -> None:
        super().__init__(home, runtime)
        self._namespace = f"bench-{secrets.token_hex(8)}"  # runc keeps what it knows by that, for all of a machine
        self._sockets = home
        self._mounted = home / "mounted"
        self._runs = 0

    def command(self, *words: str | Path) -> Words:
        return ["ctr", "--address", self._sockets / "c.sock", "--namespace", self._namespace, *words]

    @contextmanager
    def running(self) -> Iterator[None]:
        with tempfile.TemporaryDirectory(prefix="lsb-") as name:  # sockets need short paths
            self._sockets = Path(name)
            self._mounted.mkdir(exist_ok=True)
            config = self._sockets / "config.toml"
            config.write_text(_CONFIG.format(home=self.home, sockets=name))
            with (self._sockets / "log").open("wb") as log:
                daemon = subprocess.Popen(
                    ["setpriv", "--pdeathsig", "KILL", "containerd", "--config", str(config)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            try:
                self._wait(daemon)
                yield
            finally:
                daemon.terminate()
                daemon.wait()
                self._clean()

    def _wait(self, daemon: subprocess.Popen[bytes]) -> None:
        for _ in range(1200):
            words = [str(word) for word in self.command("version")]
            if subprocess.run(words, capture_output=True, check=False).returncode == 0:
                return
            if daemon.poll() is not None:
                break
            time.sleep(0.05)
        sys.exit(f"containerd does not start: {(self._sockets / 'log').read_text()[-1000:]}")

    def _clean(self) -> None:
        shutil.rmtree(Path("/run/containerd/runc") / self._namespace, ignore_errors=True)
        for place in ("*", "*/*"):  # cgroups of version 2, and of 1
            for folder in Path("/sys/fs").glob(f"cgroup/{place}"):
                if folder.name == self._namespace:
                    folder.rmdir()

    def empty(self) -> None:
        for kind in ("containers", "images"):
            if names := run(*self.command(kind, "ls", "-q")).split():
                run(*self.command(kind, "rm", *(["--sync"] if kind == "images" else []), *names))

    def look(self) -> Commands:
        return [self.command("images", "ls", "-q")]

    def load(self, image: Image) -> Commands | None:
        return [self.command("images", "import", "--snapshotter=overlayfs", image.archive)]

    def load_layout(self, image: Image) -> Commands | None:
        if image.packed is None:
            return None
        name = image.name.rpartition(":")[0]
        return [self.command("images", "import", "--snapshotter=overlayfs", "--base-name", name, image.packed)]

    def pull(self, image: Image, name: str) -> Commands | None:
        return [self.command("images", "pull", "--plain-http", "--snapshotter=overlayfs", name)]

    def named(self, image: Image, name: str) -> Commands:
        return [self.command("images", "tag", name, image.name), self.command("images", "rm", name)]

    def push(self, image: Image, target: str) -> Commands | None:
        return [self.command("images", "push", "--plain-http", target, image.name)]

    def save(self, image: Image, file: Path) -> Commands | None:
        return [self.command("images", "export", file, image.name)]

    def create(self, image: Image) -> Commands | None:
        how = ["--snapshotter=overlayfs", "--net-host"]
        return [self.command("containers", "create", *how, image.name, BOX, "/bin/true")]

    def removed(self) -> Commands:
        return [self.command("containers", "rm", BOX)]

    def mount(self, image: Image) -> Commands | None:
        return [self.command("images", "mount", "--rw", "--snapshotter=overlayfs", image.name, self._mounted)]

    def unmounted(self) -> Commands:
        return [self.command("images", "unmount", "--rm", "--snapshotter=overlayfs", self._mounted)]

    def run(self, image: Image) -> Commands | None:
        self._runs += 1
        how = ["--rm", "--snapshotter=overlayfs", "--net-host"]
        return [self.command("run", *how, image.name, f"run-{self._runs}", "/bin/true")]

    def remove(self, image: Image) -> Commands | None:
        return [self.command("images", "rm", "--sync", image.name)]
