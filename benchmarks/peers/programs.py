"""The programs, and by which of their commands each does a kind of work. What a program cannot do is None.

Each has its storage in `home`, and what ends with a reboot in `home`/run, which is on a tmpfs, as /run is on most
machines. All use the same OCI runtime and the host's network.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from benchmarks.bench import dockerd, run, unmount_below
from benchmarks.peers.images import Image

Words = Sequence[str | Path]
Work = Words | Callable[[], object]
"""A command, or a call in this process."""
Commands = Sequence[Work]

BOX, BUILT, KEPT = "box", "built:1", "kept:1"
CHANGE = (
    "find /usr /etc /src -type f -size -16k 2>/dev/null | head -n {files} >/tmp/list; xargs rm -f </tmp/list;"
    ' while read -r file; do echo changed >"$file"; done </tmp/list'
)
"""Replaces so many files of the image. (Appending would copy each of them up.)"""


class Program:
    """One of them. The methods of work return the commands that are timed together."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    reads: ClassVar[tuple[str, ...]] = ()
    """Further programs that its commands start; read before each measurement like its own."""

    def __init__(self, home: Path, runtime: str) -> None:
        self.home = home
        self.runtime = runtime

    @contextmanager
    def running(self) -> Iterator[None]:
        """For those with a daemon."""
        yield

    def files(self) -> list[Path]:
        """What has to be read for it to start."""
        tools = (*self.needs, *self.reads, self.runtime)
        return [Path(found).resolve() for tool in tools if (found := shutil.which(tool))]

    def empty(self) -> None:
        """Everything away again, untimed. The tmpfs stays."""
        ours = self.home / "run"
        for folder in [*(one for one in self.home.iterdir() if one != ours), *ours.iterdir()]:
            unmount_below(folder)
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder)
            else:
                folder.unlink()

    def look(self) -> Commands:
        """List the images, or what is least where nothing is listed. Then program and records are in memory."""
        return [[self.needs[0], "--version"]]

    def load(self, image: Image) -> Commands | None:
        """From the docker-archive."""

    def load_layout(self, image: Image) -> Commands | None:
        """From the OCI layout."""

    def pull(self, image: Image, name: str) -> Commands | None:
        """From a registry."""

    def named(self, image: Image, name: str) -> Commands:
        """Let what was pulled have the image's usual name, and no other. Untimed."""
        return []

    def targeted(self, image: Image, target: str) -> Commands:
        """What a push to that name needs before it. Untimed."""
        return []

    def push(self, image: Image, target: str) -> Commands | None:
        """To a registry."""

    def untargeted(self, target: str) -> Commands:
        """Without that name. Untimed."""
        return []

    def save(self, image: Image, file: Path) -> Commands | None:
        """To a docker-archive."""

    def create(self, image: Image) -> Commands | None:
        """A container, called box."""

    def mount(self, image: Image) -> Commands | None:
        """A container, and its tree mounted on the host."""

    def unmounted(self) -> Commands:
        """The end of that. Untimed."""
        return []

    def run(self, image: Image) -> Commands | None:
        """`true` in a new container, which is removed."""

    def changed(self, image: Image, files: int) -> Commands:
        """A container, called box, in which so many files were changed. Untimed."""
        return []

    def changes(self) -> Commands | None:
        """What it has changed."""

    def commit(self, image: Image) -> Commands | None:
        """An image of that."""

    def removed(self) -> Commands:
        """Without the container. Untimed."""
        return []

    def uncommitted(self) -> Commands:
        """Without the image that was committed. Untimed."""
        return []

    def build(self, context: Path, *, cached: bool) -> Commands | None:
        """An image from a Dockerfile."""

    def unbuilt(self) -> Commands:
        """Without what was built. Untimed."""
        return []

    def remove(self, image: Image) -> Commands | None:
        """The image, which is the last one."""


class Client(Program):
    """A command in docker's words."""

    options: ClassVar[tuple[str, ...]] = ("--network", "host")
    quiet: ClassVar[tuple[str, ...]] = ("-q",)
    """How `save` says nothing of its progress."""

    def command(self, *words: str | Path) -> Words:
        """The command line."""
        raise NotImplementedError

    def look(self) -> Commands:
        return [self.command("images", "-q")]

    def load(self, image: Image) -> Commands | None:
        return [self.command("load", "-q", "-i", image.archive)]

    def pull(self, image: Image, name: str) -> Commands | None:
        return [self.command("pull", "-q", name)]

    def named(self, image: Image, name: str) -> Commands:
        return [self.command("tag", name, image.name), self.command("rmi", name)]

    def targeted(self, image: Image, target: str) -> Commands:
        return [self.command("tag", image.name, target)]

    def push(self, image: Image, target: str) -> Commands | None:
        return [self.command("push", "-q", target)]

    def untargeted(self, target: str) -> Commands:
        return [self.command("rmi", target)]

    def save(self, image: Image, file: Path) -> Commands | None:
        return [self.command("save", *self.quiet, "-o", file, image.name)]

    def create(self, image: Image) -> Commands | None:
        return [self.command("create", "--name", BOX, *self.options, image.name, "/bin/true")]

    def run(self, image: Image) -> Commands | None:
        return [self.command("run", "--rm", *self.options, image.name, "/bin/true")]

    def changed(self, image: Image, files: int) -> Commands:
        script = CHANGE.format(files=files)
        return [self.command("run", "--name", BOX, *self.options, image.name, "/bin/sh", "-c", script)]

    def changes(self) -> Commands | None:
        return [self.command("diff", BOX)]

    def commit(self, image: Image) -> Commands | None:
        return [self.command("commit", BOX, KEPT)]

    def removed(self) -> Commands:
        return [self.command("rm", "-f", BOX)]

    def uncommitted(self) -> Commands:
        return [self.command("rmi", KEPT)]

    def build(self, context: Path, *, cached: bool) -> Commands | None:
        how = [] if cached else ["--no-cache"]
        return [self.command("build", "-q", "--network", "host", *how, "-t", BUILT, context)]

    def unbuilt(self) -> Commands:
        return [self.command("rmi", BUILT)]

    def remove(self, image: Image) -> Commands | None:
        return [self.command("rmi", image.name)]


class Layerstore(Client):
    title = "layerstore"
    reads = ("conmon",)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._write_settings()
        yield

    def empty(self) -> None:
        super().empty()
        self._write_settings()

    def _write_settings(self) -> None:
        places = {"data-root": f"{self.home}/store", "exec-root": f"{self.home}/run", "storage-driver": "overlay2"}
        (self.home / "daemon.json").write_text(json.dumps(places | {"default-runtime": self.runtime}))

    def command(self, *words: str | Path) -> Words:
        return [Path(sys.executable).with_name("layerstore"), "--config", self.home / "daemon.json", *words]

    def files(self) -> list[Path]:
        root = Path(__file__).parent.parent.parent
        modules = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
        return [*super().files(), Path(sys.executable), root / "src", root / "drivers", *map(Path, map(str, modules))]

    def load_layout(self, image: Image) -> Commands | None:
        return [self.command("load", "-q", "--name", image.name, "-i", image.layout)] if image.layout else None

    def mount(self, image: Image) -> Commands | None:
        return [*(self.create(image) or []), self.command("mount", BOX)]

    def unmounted(self) -> Commands:
        return [self.command("umount", BOX), *self.removed()]


class Podman(Client):
    title = "podman"
    needs = ("podman", "conmon")
    # It asks for more than some machines may give.
    options = ("--network", "host", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")

    def command(self, *words: str | Path) -> Words:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        return ["podman", *places, "--cgroup-manager=cgroupfs", f"--runtime={self.runtime}", *words]

    def load_layout(self, image: Image) -> Commands | None:
        return [self.command("load", "-q", "-i", image.layout)] if image.layout else None

    def pull(self, image: Image, name: str) -> Commands | None:
        return [self.command("pull", "-q", "--tls-verify=false", name)]

    def push(self, image: Image, target: str) -> Commands | None:
        return [self.command("push", "-q", "--tls-verify=false", image.name, f"docker://{target}")]

    def targeted(self, image: Image, target: str) -> Commands:
        return []

    def untargeted(self, target: str) -> Commands:
        return []

    def mount(self, image: Image) -> Commands | None:
        return [*(self.create(image) or []), self.command("mount", BOX)]

    def unmounted(self) -> Commands:
        return [self.command("umount", BOX), *self.removed()]

    def commit(self, image: Image) -> Commands | None:
        return [self.command("commit", "-q", BOX, KEPT)]

    def build(self, context: Path, *, cached: bool) -> Commands | None:
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        how = ["--layers", *([] if cached else ["--no-cache"]), "--pull=never", "--cgroupns=host", *limits]
        return [self.command("build", "-q", "--network=host", *how, "-t", BUILT, context)]


class Docker(Client):
    title = "docker"
    needs = ("docker", "dockerd")
    reads = ("containerd", "containerd-shim-runc-v2")
    quiet = ()

    def command(self, *words: str | Path) -> Words:
        return ["env", "DOCKER_BUILDKIT=0", "docker", "--host", f"unix://{self.home}/socket", *words]

    @contextmanager
    def running(self) -> Iterator[None]:
        with dockerd(self.home):
            yield

    def empty(self) -> None:
        for listed, away in ((("ps", "-aq"), ("rm", "-f")), (("images", "-aq"), ("rmi", "-f"))):
            if found := run(*self.command(*listed)).split():
                run(*self.command(*away, *dict.fromkeys(found)))


class Buildah(Program):
    title = "buildah"
    needs = ("buildah",)

    def command(self, *words: str | Path) -> Words:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        return ["buildah", *places, *words]

    def look(self) -> Commands:
        return [self.command("images", "-q")]

    def load(self, image: Image) -> Commands | None:
        return [self.command("pull", "-q", f"docker-archive:{image.archive}")]

    def load_layout(self, image: Image) -> Commands | None:
        return [self.command("pull", "-q", f"oci:{image.layout}:1")] if image.layout else None

    def pull(self, image: Image, name: str) -> Commands | None:
        return [self.command("pull", "-q", "--tls-verify=false", f"docker://{name}")]

    def named(self, image: Image, name: str) -> Commands:
        return [self.command("tag", name, image.name), self.command("rmi", name)]

    def push(self, image: Image, target: str) -> Commands | None:
        return [self.command("push", "-q", "--tls-verify=false", image.name, f"docker://{target}")]

    def save(self, image: Image, file: Path) -> Commands | None:
        return [self.command("push", "-q", image.name, f"docker-archive:{file}:{image.name}")]

    def create(self, image: Image) -> Commands | None:
        return [self.command("from", "-q", "--pull-never", "--name", BOX, image.name)]

    def mount(self, image: Image) -> Commands | None:
        return [*(self.create(image) or []), self.command("mount", BOX)]

    def unmounted(self) -> Commands:
        return [self.command("umount", BOX), *self.removed()]

    def changed(self, image: Image, files: int) -> Commands:
        script = CHANGE.format(files=files)
        ran = self.command("run", "--isolation=chroot", "--network=host", BOX, "--", "/bin/sh", "-c", script)
        return [*(self.create(image) or []), ran]

    def commit(self, image: Image) -> Commands | None:
        return [self.command("commit", "-q", BOX, KEPT)]

    def removed(self) -> Commands:
        return [self.command("rm", BOX)]

    def uncommitted(self) -> Commands:
        return [self.command("rmi", KEPT)]

    def build(self, context: Path, *, cached: bool) -> Commands | None:
        how = ["--isolation=oci", f"--runtime={self.runtime}", "--cgroupns=host", "--network=host", "--pull-never"]
        how += ["--layers"] if cached else ["--layers", "--no-cache"]
        return [self.command("bud", "-q", *how, "-t", BUILT, context)]

    def unbuilt(self) -> Commands:
        return [self.command("rmi", BUILT)]

    def remove(self, image: Image) -> Commands | None:
        return [self.command("rmi", image.name)]


class Skopeo(Program):
    title = "skopeo"
    needs = ("skopeo",)

    def _stored(self, image: Image) -> str:
        return f"containers-storage:[overlay@{self.home}/root+{self.home}/run]{image.name}"

    def _copy(self, *words: str | Path) -> Commands:
        return [["skopeo", "copy", "-q", "--insecure-policy", *words]]

    def load(self, image: Image) -> Commands | None:
        return self._copy(f"docker-archive:{image.archive}", self._stored(image))

    def load_layout(self, image: Image) -> Commands | None:
        return self._copy(f"oci:{image.layout}:1", self._stored(image)) if image.layout else None

    def pull(self, image: Image, name: str) -> Commands | None:
        return self._copy("--src-tls-verify=false", f"docker://{name}", self._stored(image))

    def push(self, image: Image, target: str) -> Commands | None:
        return self._copy("--dest-tls-verify=false", self._stored(image), f"docker://{target}")

    def save(self, image: Image, file: Path) -> Commands | None:
        return self._copy(self._stored(image), f"docker-archive:{file}:{image.name}")

    def remove(self, image: Image) -> Commands | None:
        return [["skopeo", "delete", self._stored(image)]]


class Umoci(Program):
    """It unpacks an image into a folder, which is load and mount in one; it has no store."""

    title = "umoci"
    needs = ("umoci",)

    def load_layout(self, image: Image) -> Commands | None:
        return [self._unpack(image.layout, "1")] if image.layout else None

    def _unpack(self, layout: Path, tag: str) -> Words:
        return ["umoci", "unpack", "--image", f"{layout}:{tag}", self.home / "bundle"]

    def changed(self, image: Image, files: int) -> Commands:
        if image.layout is None:
            return []
        layout = self.home / "layout"
        script = CHANGE.format(files=files)
        chrooted: Words = ["chroot", self.home / "bundle" / "rootfs", "/bin/sh", "-c", script]
        return [["cp", "-a", image.layout, layout], self._unpack(layout, "1"), chrooted]

    def commit(self, image: Image) -> Commands | None:
        repack: Words = ["umoci", "repack", "--image", f"{self.home}/layout:kept", self.home / "bundle"]
        return [repack] if image.layout else None

    def removed(self) -> Commands:
        return [["rm", "-rf", self.home / "bundle", self.home / "layout"]]


PEERS: tuple[type[Program], ...] = (Docker, Podman, Buildah, Skopeo, Umoci)
