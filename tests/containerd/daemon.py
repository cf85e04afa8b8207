"""A real containerd with folders and a socket of its own, and `ctr` to speak to it; and the snapshotter beside it."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from containerd.client import Client
from layerstore import Config

CONFIG = """
version = 2
root = "{root}"
state = "{folder}/state"
disabled_plugins = {disabled}
[grpc]
  address = "{folder}/c.sock"
[proxy_plugins.layerstore]
  type = "snapshot"
  address = "{folder}/snap.sock"
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "layerstore"
  disable_snapshot_annotations = false
[plugins."io.containerd.grpc.v1.cri".cni]
  conf_dir = "{folder}/cni"
"""
CRI = "io.containerd.grpc.v1.cri"
KUBERNETES = "k8s.io"
"""The namespace of what CRI is asked for."""


class Daemon:
    """containerd and `layerstore snapshotter` of one store, each of which can be killed and started again."""

    def __init__(self, store: Config, root: Path | None = None, *, cri: bool = False) -> None:
        """`store`: where the snapshotter's lies, and with which driver. `root`: where containerd's things lie.

        `cri`: what Kubernetes asks is answered, too.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="ls-"))  # sockets need short paths
        self.namespace = f"ls-{secrets.token_hex(8)}"  # runc keeps what it knows by that, for all of a machine
        self.root = root or self.folder / "root"
        settings = {"data-root": str(store.data_root), "exec-root": str(store.exec_root)}
        (self.folder / "daemon.json").write_text(json.dumps(settings | {"storage-driver": store.storage_driver}))
        disabled = json.dumps(["io.containerd.internal.v1.opt", *(() if cri else (CRI,))])
        config = CONFIG.format(folder=self.folder, root=self.root, disabled=disabled)
        (self.folder / "config.toml").write_text(config)
        self._containerd: subprocess.Popen[bytes] | None = None
        self._snapshotter: subprocess.Popen[str] | None = None

    def start_snapshotter(self) -> None:
        """Start it, and wait until it listens."""
        command = [sys.executable, "-m", "layerstore.cli", "--config", str(self.folder / "daemon.json")]
        command += ["snapshotter", "--address", str(self.folder / "snap.sock"), "--containerd-root", str(self.root)]
        command += ["--containerd-address", str(self.folder / "c.sock")]
        self._snapshotter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert cast(IO[str], self._snapshotter.stdout).readline().startswith("Listening on ")

    def kill_snapshotter(self) -> None:
        """By SIGKILL."""
        if self._snapshotter is not None:
            self._snapshotter.kill()
            self._snapshotter.communicate()
            self._snapshotter = None

    def start_containerd(self) -> None:
        """Start it, and wait until it answers."""
        log = (self.folder / "log").open("ab")
        command = ["containerd", "--config", str(self.folder / "config.toml")]
        self._containerd = subprocess.Popen(command, stdout=log, stderr=log)
        log.close()
        while self.tried("version").returncode:
            assert self._containerd.poll() is None, self.log
            time.sleep(0.05)

    def kill_containerd(self) -> None:
        """By SIGKILL: its shims, and what runs, stay."""
        if self._containerd is not None:
            self._containerd.kill()
            self._containerd.wait()
            self._containerd = None

    @property
    def log(self) -> str:
        """What containerd said."""
        return (self.folder / "log").read_text()

    def _ctr(self, *words: str | Path) -> list[str | Path]:
        return ["ctr", "--address", self.folder / "c.sock", "--namespace", self.namespace, *words]

    def begun(self, *words: str | Path) -> subprocess.Popen[bytes]:
        """`ctr`, while it goes on."""
        return subprocess.Popen(self._ctr(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def tried(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """`ctr`, whatever comes of it."""
        command = self._ctr(*words)
        return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)

    def __call__(self, *words: str | Path) -> str:
        """`ctr`, and what it printed."""
        done = self.tried(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}\n{self.log[-4000:]}"
        return done.stdout

    def run(self, image: str, name: str, *command: str, detach: bool = False, snapshotter: str = "layerstore") -> str:
        """`ctr run` on our snapshotter, or another."""
        how = ["--detach"] if detach else ["--rm"]
        return self("run", "--snapshotter", snapshotter, "--env", "PATH=/bin", *how, image, name, *command)

    def meet(self) -> None:
        """Wait until containerd speaks to the snapshotter again: it tries once a second or less."""
        words = ("snapshots", "--snapshotter", "layerstore")
        while self.tried(*words, "prepare", "meeting").returncode:
            assert self._snapshotter is not None
            assert self._snapshotter.poll() is None
            time.sleep(0.05)
        self(*words, "rm", "meeting")

    def snapshots(self) -> Client:
        """A client of containerd's own service, which passes calls on to ours, as CRI and nerdctl do."""
        return Client(self.folder / "c.sock", namespace=self.namespace)

    def __enter__(self) -> Self:
        self.start_snapshotter()
        self.start_containerd()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._containerd is not None:
            for name in self.tried("tasks", "ls", "-q").stdout.split():
                self.tried("tasks", "rm", "--force", name)
        self.kill_containerd()
        self.kill_snapshotter()
        shutil.rmtree(self.folder)
        shutil.rmtree(Path("/run/containerd/runc") / self.namespace, ignore_errors=True)
        for place in ("*", "*/*"):  # cgroups of version 2, and of 1
            for folder in Path("/sys/fs").glob(f"cgroup/{place}"):
                if folder.name == self.namespace:
                    folder.rmdir()
