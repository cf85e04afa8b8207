"""An image of PostgreSQL, of this machine's own Debian package, laid out as the official image is."""

from __future__ import annotations

import os
from pathlib import Path

from support import images, programs

PACKAGES = Path("/usr/lib/postgresql")

_PASSWD = programs.PASSWD + "postgres:x:999:999:PostgreSQL:/var/lib/postgresql:/bin/sh\n"
_GROUP = programs.GROUP + "postgres:x:999:\n"
_COMMANDS = ("initdb", "postgres", "psql")
_LEFT_OUT = "llvmjit"
"""What compiles queries: a hundred megabytes of compiler, which no test wants."""


def newest() -> Path | None:
    """The folder of the newest server that is installed, if any is."""
    return max(PACKAGES.glob("*/bin/postgres"), default=Path("/none/none")).parents[1] if PACKAGES.exists() else None


def archive(path: Path, tag: str = "postgres:latest") -> Path:
    """A docker-archive of it: a layer of programs to begin with, and one of PostgreSQL."""
    server = newest()
    assert server is not None
    share = Path("/usr/share/postgresql") / server.name
    wanted = [server / "bin" / name for name in _COMMANDS]
    wanted += [file for file in (server / "lib").glob("*.so") if not file.name.startswith(_LEFT_OUT)]
    files = {str(file).lstrip("/"): file for file in wanted}
    files |= {programs.merged(library): Path(library) for library in programs.libraries(*map(str, wanted))}
    files |= {str(file).lstrip("/"): file for file in _files(share)}
    folders = {str(parent) for name in files for parent in Path(name).parents if str(parent) != "."}
    layer = images.layer(
        *(images.folder(name) for name in sorted(folders | {"run", "usr/share/zoneinfo"})),
        images.symlink("var/run", "../run"),
        images.folder("var/lib/postgresql", uid=999, gid=999),
        images.folder("var/lib/postgresql/data", mode=0o700, uid=999, gid=999),
        images.folder("run/postgresql", mode=0o3777, uid=999, gid=999),
        images.file("etc/passwd", _PASSWD),
        images.file("etc/group", _GROUP),
        *(
            images.file(name, file.read_bytes(), mode=0o755 if os.access(file, os.X_OK) else 0o644)
            for name, file in sorted(files.items())
        ),
    )
    layers = [programs.layer(), layer]
    settings = {
        "Env": [f"PATH=/{server / 'bin'}:/usr/bin:/bin".replace("//", "/"), "PGDATA=/var/lib/postgresql/data"],
        "Cmd": ["postgres"],
        "User": "postgres",
    }
    return images.docker_archive(path, layers, [tag], image_config=images.config(layers, config=settings))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
