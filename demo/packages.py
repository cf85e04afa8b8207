"""The demo's input: real Debian or Ubuntu packages, fetched once with apt-get and kept in the user's cache folder.

Which packages a group needs is left to apt itself: it is asked what it would install on an empty machine. So this works
on each release, whatever its libraries are called. `python -m demo.packages` fetches them, and needs no root for it.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

AS_ROOT = Path(__file__).parent.parent / "tools" / "as-root"


@frozen
class Group:
    """What becomes one layer: the packages asked for, and what they need that no group before has."""

    name: str
    wanted: tuple[str, ...]


@frozen
class Fetched:
    """A group on disk, in the order in which apt would install it."""

    name: str
    files: tuple[Path, ...]

    @property
    def size(self) -> int:
        """Bytes to download."""
        return sum(file.stat().st_size for file in self.files)


GROUPS = (
    Group("base", ("base-files", "base-passwd", "bash", "coreutils", "findutils", "grep", "libc-bin", "sed")),
    Group("zones", ("tzdata",)),
    Group("python", ("python3",)),
    Group("git", ("git",)),
)


def fetch(groups: Sequence[Group] = GROUPS) -> list[Fetched]:
    """The packages of each group, from the cache if they are there, else from the network."""
    folder = cache_folder()
    plan = folder / "plan.json"
    if not plan.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _download(groups, folder, plan)
    names: dict[str, list[str]] = json.loads(plan.read_text())
    return [Fetched(group, tuple(folder / name for name in files)) for group, files in names.items()]


def cache_folder() -> Path:
    """Where packages are kept: a folder for each release and architecture."""
    release = platform.freedesktop_os_release()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = f"{release['ID']}-{release.get('VERSION_CODENAME', 'unknown')}-{platform.machine()}"
    return base / "layerstore-demo" / name


def _download(groups: Sequence[Group], folder: Path, plan: Path) -> None:
    print("Fetching Debian packages, once: they are kept in", folder, flush=True)
    names: dict[str, list[str]] = {}
    known: set[str] = set()
    wanted: list[str] = []
    for group in groups:
        wanted += group.wanted
        new = [package for package in _would_install(wanted) if package.partition("=")[0] not in known]
        known.update(package.partition("=")[0] for package in new)
        with tempfile.TemporaryDirectory(dir=folder) as arrivals:
            _apt("-o", "APT::Sandbox::User=root", "download", *new, cwd=Path(arrivals))
            files = [next(Path(arrivals).glob(f"{package.partition('=')[0]}_*.deb")) for package in new]
            names[group.name] = [file.rename(folder / file.name).name for file in files]
        print(f"  {group.name}: {len(new)} packages", flush=True)
    unfinished = plan.with_suffix(".part")
    unfinished.write_text(json.dumps(names, indent=1))
    unfinished.rename(plan)


def _would_install(packages: Sequence[str]) -> list[str]:
    """`name=version` of everything that these packages need on a machine that has nothing, in order."""
    with tempfile.NamedTemporaryFile() as nothing:
        # Packages that apt has already downloaded, and what this machine has installed, must play no part.
        arguments = ["-o", f"Dir::State::status={nothing.name}", "--no-install-recommends", "-s", "install", *packages]
        try:
            lines = _apt(*arguments)
        except subprocess.CalledProcessError:
            subprocess.run([AS_ROOT, "apt has to read its package lists", "apt-get", "-qq", "update"], check=True)
            lines = _apt(*arguments)
    # Inst libc6 (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
    found = [line.split() for line in lines.splitlines() if line.startswith("Inst ")]
    return [f"{name}={version.lstrip('(')}" for _, name, version, *_ in found]


def _apt(*arguments: str, cwd: Path | None = None) -> str:
    return subprocess.run(["apt-get", "-q", *arguments], check=True, cwd=cwd, capture_output=True, text=True).stdout


if __name__ == "__main__":
    try:
        fetch()
    except subprocess.CalledProcessError as error:
        sys.exit(f"The packages could not be fetched: {' '.join(map(str, error.cmd))}\n{error.stderr or ''}")
