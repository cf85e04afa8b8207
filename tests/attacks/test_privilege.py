"""What a store lets others see, and what it starts: nothing, whatever the umask, and no program."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attacks import life
from support import images
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

HOMES = {"overlay2": "ext4", "btrfs": "btrfs"} | ({"vfs": "ext4", "aufs": "ext4"} if NIGHTLY else {})
LAYERS = [
    images.layer(images.file("a", "a", mode=0o4755), images.folder("d", mode=0o1777)),
    images.layer(images.file("d/b", "b", mode=0o666), images.whiteout("a")),
]
NOWHERE = "/no/such/folder/of/programs"


def lived(root: Path, driver: str, tmp_path: Path, *before: str | Path, umask: int = 0o022) -> None:
    """Let a store live and end."""
    archive = images.docker_archive(tmp_path / "image.tar", LAYERS)
    command = [*before, sys.executable, life.__file__, root, driver, archive]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": NOWHERE, "HOME": str(tmp_path)}
    subprocess.run(command, env=environment, check=True, umask=umask)


def inside(root: Path, driver: str) -> Iterator[Path]:
    """All of a data-root, but not what layers and volumes hold: that has the modes that they say."""
    trees = ("diff", "_data", "merged", "mnt", "tree", "trees") if driver in ("overlay2", "aufs") else ("_data",)
    for folder, names, files in os.walk(root):
        here = Path(folder)
        is_tree = here.parent == root / driver and driver in ("btrfs", "vfs")
        kept = [] if is_tree or here.name in trees else [*names, *files]
        yield from (here / name for name in kept)
        names[:] = [name for name in kept if name in names]


@pytest.mark.parametrize("umask", [0o000, 0o077], ids=["umask 000", "umask 077"])
@pytest.mark.parametrize("driver", HOMES)
def test_a_store_is_for_its_owner_alone(
    driver: str, umask: int, backing: Callable[[str], Path], tmp_path: Path
) -> None:
    """CVE-2021-41091 and CVE-2021-41103: who could look into docker's or containerd's folder ran its setuid files."""
    root = backing(HOMES[driver]) / "store"
    lived(root, driver, tmp_path, umask=umask)
    found = {str(path.relative_to(root)): path.lstat() for path in inside(root, driver)}
    assert len(found) > 10
    modes = {name: stat.S_IMODE(facts.st_mode) for name, facts in found.items() if not stat.S_ISLNK(facts.st_mode)}
    passed = {name: modes.pop(name) for name in ("volumes", "volumes/data", "volumes/data/_data")}
    assert passed == {"volumes": 0o711, "volumes/data": 0o711, "volumes/data/_data": 0o755}
    assert stat.S_IMODE(root.stat().st_mode) == 0o711
    trees = re.compile(r"(btrfs/layers|vfs/dir|aufs/diff|overlay2)/[^/]*(/diff)?|aufs/(.empty|copies/.*/tree|trees/.*)")
    assert {name: f"{mode:o}" for name, mode in modes.items() if mode & 0o077 and not trees.fullmatch(name)} == {}
    closed = [root / driver, root / "skeletons", root / "staging", root / "partial"]
    assert [path for path in closed if path.stat().st_mode & 0o077] == []


@pytest.mark.tools("strace")
def test_no_program_is_started_or_looked_for(backing: Callable[[str], Path], tmp_path: Path) -> None:
    """Neither a shell nor anything of PATH: a hostile PATH, or an image's own programs, change nothing."""
    log = tmp_path / "calls"
    watch = ("strace", "-f", "-qq", "-o", log, "-e", "trace=execve,execveat,%file")
    tool = next(Path(folder, "strace") for folder in os.environ["PATH"].split(":") if Path(folder, "strace").is_file())
    lived(backing("ext4") / "store", "overlay2", tmp_path, tool, *watch[1:])
    calls = log.read_text(errors="replace").splitlines()
    assert len(calls) > 1000
    started = [call for call in calls if re.search(r"\bexecve(at)?\(", call)]
    assert len(started) == 1, started  # Python itself
    assert [call for call in calls if NOWHERE in call and call not in started] == []
