"""A small root filesystem whose programs run: some of this machine's own, with the libraries that they need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from support import images

PROGRAMS = (
    "sh",
    "cat",
    "echo",
    "env",
    "false",
    "grep",
    "id",
    "kill",
    "ls",
    "mkdir",
    "ps",
    "rm",
    "sleep",
    "stty",
    "touch",
    "true",
)

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
someone:x:1000:1000:Someone:/home/someone:/bin/sh
"""
GROUP = """\
root:x:0:
daemon:x:1:
staff:x:50:someone
someone:x:1000:
"""

_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}


@cache
def layer(programs: tuple[str, ...] = PROGRAMS) -> bytes:
    """The tar of a layer with these programs in /bin, their libraries, passwd and group, /tmp and an /etc/hosts."""
    files: dict[str, bytes] = {}
    found = {program: shutil.which(program) for program in programs}
    missing = [program for program, path in found.items() if path is None]
    assert not missing, f"not installed: {', '.join(missing)}"
    for path in found.values():
        files[f"usr/bin/{Path(str(path)).name}"] = Path(str(path)).read_bytes()
    for library in libraries(*map(str, found.values())):
        files[merged(library)] = Path(library).read_bytes()
    folders = {"etc", "root", "home", "home/someone", "usr/sbin", "tmp", "proc", "sys", "dev", "run", "var", "var/tmp"}
    for name in files:
        folders.update(str(parent) for parent in Path(name).parents if str(parent) != ".")
    texts: Mapping[str, str] = {"etc/passwd": PASSWD, "etc/group": GROUP, "etc/hosts": "127.0.0.1 localhost\n"}
    return images.layer(
        *(images.folder(name, mode=0o1777 if name.endswith("tmp") else 0o755) for name in sorted(folders)),
        *(images.symlink(name, target) for name, target in _LINKS.items()),
        *(images.file(name, text) for name, text in texts.items()),
        *(images.file(name, content, mode=0o755) for name, content in sorted(files.items())),
    )


def archive(
    path: Path, names: tuple[str, ...] = ("debian:latest",), config: Mapping[str, object] | None = None
) -> Path:
    """A docker-archive of an image of that one layer, whose config is `config` (`Cmd`, `Env`, `Volumes`)."""
    settings = {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"], **(config or {})}
    return images.docker_archive(path, [layer()], names, image_config=images.config([layer()], config=settings))


def libraries(*files: str) -> set[str]:
    """What ldd says that programs and libraries are linked with, the loader among them."""
    said = subprocess.run(["ldd", *files], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"(?:=> |^\s+)(/\S+) \(0x", said, re.MULTILINE))


def merged(path: str) -> str:
    """Where a library lies in a root whose /lib is a link to /usr/lib."""
    name = os.path.normpath(path).lstrip("/")
    return name if name.startswith("usr/") else f"usr/{name}"
