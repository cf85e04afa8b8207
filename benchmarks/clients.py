"""Programs that pull and push, each with a store of its own, and the docker-registry that they talk to."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from benchmarks.bench import dockerd, run, unmount_below
from benchmarks.metering import Ran, forget_peak, meter, peak, tree_cpu

_CACHE: Final = Path("/var/lib/containers/cache")
"""Where skopeo and podman remember blobs, whatever store they are given."""
_PATIENCE: Final = 300.0
"""Seconds after which a command is not waited for any more."""


class Subject(ABC):
    """A program with a store in `home`."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    syncs_itself: ClassVar[bool] = False

    def __init__(self, home: Path) -> None:
        self.home = home

    @abstractmethod
    def pull(self, name: str) -> Ran:
        """Get an image into the store."""

    @abstractmethod
    def push(self, name: str, target: str) -> Ran:
        """Give a pulled image to a registry, under another name."""

    def empty(self) -> None:
        """Everything away again, untimed."""
        unmount_below(self.home)
        for path in self.home.iterdir():
            shutil.rmtree(path)

    @contextmanager
    def running(self) -> Iterator[None]:
        """For those with a daemon."""
        yield


class Layerstore(Subject):
    title = "layerstore"
    syncs_itself = True

    @property
    def root(self) -> Path:
        """The data root."""
        return self.home / "store"

    @property
    def command(self) -> list[str | Path]:
        """Its beginning."""
        return [Path(sys.executable).with_name("layerstore"), "--root", self.root, "-s", "overlay2"]

    def pull(self, name: str) -> Ran:
        return meter(*self.command, "pull", "-q", name, timeout=_PATIENCE)

    def push(self, name: str, target: str) -> Ran:
        run(*self.command, "tag", name, target)
        return meter(*self.command, "push", "-q", target, timeout=_PATIENCE)

    def load(self, archive: Path, name: str) -> None:
        """Have an image that was never compressed."""
        run(*self.command, "load", "-q", "--name", name, "-i", archive)

    def push_as(self, compression: str, name: str) -> Ran:
        """Push it under the name that it has."""
        return meter(*self.command, "push", "-q", "--compression", compression, name, timeout=_PATIENCE)


class Skopeo(Subject):
    title = "skopeo copy, containers-storage"
    needs = ("skopeo",)

    @property
    def _stored(self) -> str:
        return f"containers-storage:[overlay@{self.home}/root+{self.home}/run]localhost/pulled:latest"

    def _copy(self, *arguments: str) -> Ran:
        return meter("skopeo", "copy", "-q", "--insecure-policy", *arguments, timeout=_PATIENCE)

    def pull(self, name: str) -> Ran:
        return self._copy("--src-tls-verify=false", f"docker://{name}", self._stored)

    def push(self, name: str, target: str) -> Ran:
        return self._copy("--dest-tls-verify=false", self._stored, f"docker://{target}")


class Podman(Subject):
    title = "podman, overlay"
    needs = ("podman",)

    def _podman(self, *arguments: str) -> Ran:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        return meter("podman", *places, *arguments, timeout=_PATIENCE)

    def pull(self, name: str) -> Ran:
        return self._podman("pull", "-q", "--tls-verify=false", name)

    def push(self, name: str, target: str) -> Ran:
        return self._podman("push", "-q", "--tls-verify=false", name, f"docker://{target}")


class Docker(Subject):
    title = "docker, overlay2"
    needs = ("docker", "dockerd")
    _daemon = 0

    def _docker(self, *arguments: str) -> Ran:
        before = tree_cpu(self._daemon)
        forget_peak(self._daemon)
        ran = meter("docker", "--host", f"unix://{self.home}/socket", *arguments, timeout=_PATIENCE)
        cost = ran.cost.plus(cpu=tree_cpu(self._daemon) - before, peak=peak(self._daemon))
        return Ran(cost, ran.is_done, ran.said)

    def pull(self, name: str) -> Ran:
        return self._docker("pull", "-q", name)

    def push(self, name: str, target: str) -> Ran:
        run("docker", "--host", f"unix://{self.home}/socket", "tag", name, target)
        return self._docker("push", "-q", target)

    def empty(self) -> None:
        images = run("docker", "--host", f"unix://{self.home}/socket", "images", "-aq").split()
        if images:
            run("docker", "--host", f"unix://{self.home}/socket", "rmi", "-f", *dict.fromkeys(images))

    @contextmanager
    def running(self) -> Iterator[None]:
        with dockerd(self.home) as self._daemon:
            yield


SUBJECTS: tuple[type[Subject], ...] = (Layerstore, Skopeo, Podman, Docker)


class Registry:
    """A docker-registry that keeps its blobs in `folder`, while the `with` lasts. It can be away for a while."""

    def __init__(self, folder: Path) -> None:
        self.storage = folder / "storage"
        self._folder = folder
        self.host = "127.0.0.1:0"
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        settings = {
            "version": 0.1,
            "log": {"level": "info", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.storage)}},
            "http": {"addr": self.host, "secret": "of the benchmark"},
        }
        (self._folder / "config.yml").write_text(json.dumps(settings))  # JSON is YAML
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "docker-registry", "serve", str(self._folder / "config.yml")],
                env={"PATH": "/usr/bin:/bin", "OTEL_TRACES_EXPORTER": "none"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        for _ in range(500):
            if found := re.search(r"listening on (127\.0\.0\.1:\d+)", (self._folder / "log").read_text()):
                self.host = found[1]
                return self
            time.sleep(0.02)
        self.__exit__()
        sys.exit("docker-registry does not start")

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    @contextmanager
    def away(self) -> Iterator[None]:
        """It is not there, and is back afterwards at the same place."""
        self.__exit__()
        try:
            yield
        finally:
            self.__enter__()

    def size(self, name: str) -> int:
        """The bytes of the blobs of an image."""
        manifest = self.get(f"/v2/{name}/manifests/latest")
        return sum(blob["size"] for blob in (manifest["config"], *manifest["layers"]))

    def get(self, target: str) -> Any:
        """A manifest."""
        kinds = ("vnd.oci.image.manifest.v1", "vnd.docker.distribution.manifest.v2")
        connection = http.client.HTTPConnection(self.host)
        connection.request("GET", target, headers={"Accept": ", ".join(f"application/{kind}+json" for kind in kinds)})
        return json.loads(connection.getresponse().read())


@contextmanager
def own_blob_cache(place: Path) -> Iterator[None]:
    """Let skopeo and podman remember blobs on the filesystem of the run, and nothing from before it."""
    was_there = _CACHE.exists()
    _CACHE.mkdir(parents=True, exist_ok=True)
    own = place / "cache"
    own.mkdir()
    run("mount", "--bind", own, _CACHE)
    try:
        yield
    finally:
        run("umount", _CACHE)
        if not was_there:
            _CACHE.rmdir()
