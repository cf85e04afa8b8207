"""Makes the small stores in `stores/`, each by the program whose it is, as they lie on a disk. Run as root:

    PYTHONPATH=tests .venv/bin/python tests/attached/record.py docker podman vfs

With tar --xattrs, for overlay's marks are attributes and devices. The tests by day read these, those by night make them
anew (`made`), with whatever version of the programs is there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from support import docker
from support import images as make

STORES: Final = Path(__file__).with_name("stores")
NAME: Final = "example.org/team/app:1"
BUILT: Final = "example.org/team/app:built"

LAYERS: Final[Sequence[bytes]] = (
    make.layer(
        make.folder("./"),
        make.folder("./etc/", mode=0o750, uid=3),
        make.file("./etc/passwd", "root:x:0:0\n"),
        make.file("./etc/gone", "gone"),
        make.file("bin/tool", b"#!/bin/sh\n" * 5000, mode=0o4755),
        make.hard_link("bin/other", "bin/tool"),
        make.symlink("bin/link", "tool"),
        make.file("lib/implied/deep", b"x" * 70_000),
        make.fifo("etc/pipe"),
        make.device("etc/null", 1, 3),
        make.file("etc/" + "n" * 200, "long"),
        make.file("etc/empty"),
    ),
    make.layer(
        make.whiteout("etc/gone"),
        make.file("etc/passwd", "root:x:0:0\nme:x:1:1\n"),
        make.folder("bin/"),
        make.opaque("bin"),
        make.file("bin/new", b"new", xattrs={"user.note": b"kept"}),
    ),
    make.layer(make.file("etc/motd", "hello\n", mtime=1_700_000_001.25)),
)


def archive(folder: Path) -> Path:
    """The image, as a docker-archive."""
    return make.docker_archive(folder / "image.tar", LAYERS, [NAME])


@contextmanager
def dockerd(folder: Path, *, driver: str = "overlay2") -> Iterator[docker.Docker]:
    """While inside, a dockerd that runs, and has the image and one that it built on that. Its store is `data-root`."""
    context = folder / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(f"FROM {NAME}\nCOPY added /srv/added\nENV A=b\n")
    (context / "added").write_text("added\n")
    with docker.daemon(folder, f"--storage-driver={driver}") as client:
        client("load", "-q", "-i", archive(folder))
        client.build(context, BUILT)
        yield client


@contextmanager
def dockers(folder: Path) -> Iterator[Path]:
    """While inside, such a store."""
    with dockerd(folder):
        yield folder / "data-root"


@contextmanager
def podmans(folder: Path, *, driver: str = "overlay") -> Iterator[Path]:
    """While inside, a store of podman's that has the image."""
    # What it mounts on its own folder, it mounts where nobody sees it.
    place = f"[{driver}@{folder}/store+{folder}/run]"
    subprocess.run(
        [
            "unshare",
            "--mount",
            "skopeo",
            "copy",
            "-q",
            f"docker-archive:{archive(folder)}",
            f"containers-storage:{place}{NAME}",
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    yield folder / "store"


CONTAINERD: Final = """
version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{0}/c.sock"
"""


MANY: Final = 150
"""Names of the image in containerd: so many that its database has more than a page of them."""


@contextmanager
def containerds(folder: Path) -> Iterator[Path]:
    """While inside, a containerd that runs, and has the image, with compressed layers; where its store is."""
    layout = folder / "layout"
    make.oci_layout(layout, LAYERS)
    subprocess.run(["tar", "-cf", str(folder / "oci.tar"), "-C", str(layout), "."], check=True)
    (folder / "config.toml").write_text(CONTAINERD.format(folder))
    client = ["ctr", "--address", str(folder / "c.sock")]
    command = ["unshare", "--mount", "containerd", "--config", str(folder / "config.toml")]
    with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            while subprocess.run([*client, "version"], capture_output=True).returncode:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
            load = ["images", "import", "--index-name", NAME, str(folder / "oci.tar")]
            subprocess.run([*client, *load], check=True, capture_output=True)
            for number in range(MANY):
                name = f"example.org/many/app:{number}"
                subprocess.run([*client, "images", "tag", NAME, name], check=True, capture_output=True)
            yield folder / "root"
        finally:
            process.terminate()


MAKERS: Final[dict[str, Callable[[Path], AbstractContextManager[Path]]]] = {
    "containerd": containerds,
    "docker": dockers,
    "podman": podmans,
    "vfs": lambda folder: podmans(folder, driver="vfs"),
}


@contextmanager
def made(name: str, folder: Path) -> Iterator[Path]:
    """While inside, a store as its program has it, just made."""
    with MAKERS[name](folder) as store:
        yield store


def unpacked(name: str, folder: Path) -> Path:
    """A recorded store."""
    folder.mkdir(parents=True, exist_ok=True)
    tar = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xzf", STORES / f"{name}.tar.gz"]
    subprocess.run([*map(str, tar), "-C", str(folder)], check=True)
    return folder


_LEFT_OUT: Final = ("buildkit", "containerd", "network", "plugins", "runtimes", "swarm", "tmp", "trust", "volumes")


def main() -> None:
    """Record those that are named."""
    STORES.mkdir(exist_ok=True)
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            with made(name, Path(folder)) as store:
                pass  # for a daemon's writes to be over
            tar = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sort=name", "-czf"]
            left = [f"--exclude=./{one}" for one in _LEFT_OUT]
            subprocess.run([*tar, str(STORES / f"{name}.tar.gz"), *left, "-C", str(store), "."], check=True)


if __name__ == "__main__":
    main()
