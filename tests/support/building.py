"""Builds of Dockerfiles that are texts, in contexts that are texts, on a small image of busybox."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from layerstore import Store
from layerstore.build import Built, build
from layerstore.build.events import Begun, Ended, Event, Output
from support import images

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
someone:x:1000:1001:Someone:/home/someone:/bin/sh
"""
GROUP = """\
root:x:0:
daemon:x:1:
staff:x:50:someone
someone:x:1001:
"""

Files = Mapping[str, str | bytes]
Look = Callable[..., str]
"""Of the fixture `look`: what a file of an image says."""


def busybox() -> bytes:
    """The tar of a layer with a static busybox under all of its names, passwd and group, /tmp and /var/tmp."""
    program = shutil.which("busybox")
    assert program is not None
    names = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    folders = (
        "bin",
        "dev",
        "etc",
        "home",
        "home/someone",
        "proc",
        "root",
        "run",
        "sys",
        "tmp",
        "usr",
        "var",
        "var/tmp",
    )
    return images.layer(
        *(images.folder(name, mode=0o1777 if name.endswith("tmp") else 0o755) for name in folders),
        images.file("bin/busybox", Path(program).read_bytes(), mode=0o755),
        *(images.symlink(f"bin/{name}", "busybox") for name in sorted(set(names) - {"busybox"})),
        images.file("etc/passwd", PASSWD),
        images.file("etc/group", GROUP),
    )


class Builder:
    """Builds Dockerfiles that are texts, in contexts that are texts, and keeps what it is told."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.events: list[Event] = []

    def context(self, files: Files) -> Path:
        """The context of the next builds: these files, and no others."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, content in files.items():
            path = self.folder / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return self.folder

    def __call__(self, dockerfile: str, files: Files | None = None, **options: Any) -> Built:
        """Build it. Without `files` the context is that of the build before."""
        if files is not None or not self.folder.exists():
            self.context(files or {})
        (self.folder / "Dockerfile").write_text(dockerfile)
        self.events = []
        return build(self.store, self.folder, progress=self.events.append, **options)

    @property
    def steps(self) -> dict[str, bool]:
        """The steps of the last build that had an end, and whether each was there already."""
        return {
            event.vertex.title: event.cached
            for event in self.events
            if isinstance(event, Ended) and event.error is None and not event.vertex.title.startswith("[internal]")
        }

    @property
    def done(self) -> list[str]:
        """What was done in the last build, and was not there already, without its numbers."""
        return [title.partition("] ")[2] for title, cached in self.steps.items() if not cached and "] " in title]

    @property
    def output(self) -> str:
        """What all programs of the last build have written."""
        return b"".join(
            event.data for event in self.events if isinstance(event, Output) and event.vertex.title.startswith("[")
        ).decode()

    @property
    def begun(self) -> list[str]:
        """Titles of all that has begun."""
        return [event.vertex.title for event in self.events if isinstance(event, Begun)]


def names_in(built: Built, folder: str = "/") -> set[str]:
    """What is in a folder of an image."""
    with built.image.mount() as root:
        return set(os.listdir(root / folder.lstrip("/")))
