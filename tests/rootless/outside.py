"""Runs a command as an ordinary user, on a machine as such a user finds it. By root, in a mount namespace of its own.

What the command needs may lie where only root gets to (the interpreter in root's home, a checkout in a private
folder): each folder in the way is hidden by one that everybody may pass, and what is needed is attached in it. What
/etc says of the user (account, subordinate IDs) is this namespace's alone.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from layerstore.kernel.mounts import Mount, attach, attach_clone, clone_of

UID = 4321
FIRST_ID = 200_000
HOME = Path("/mnt/home")


def main(home: str, ids: str, *command: str) -> None:
    """`ids`: "one", or "many" by /etc/subuid; "root" is root, who looks at the same."""
    repository = Path(__file__).resolve().parents[2]
    reachable({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), repository})
    hidden(Path("/mnt"))
    place(clone_of(Path(home)), HOME)
    if ids == "many":
        etc("passwd", f"amy:x:{UID}:{UID}::{HOME}:/bin/sh\n")
    for file in ("subuid", "subgid"):
        etc(file, f"amy:{FIRST_ID}:65536\n" if ids == "many" else "", anew=True)
    if ids != "root":
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
    os.chdir(HOME)
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "CI") if name in os.environ}
    os.execve(command[0], command, {**kept, "HOME": str(HOME), "LAYERSTORE_TRACEBACK": "1"})


def reachable(places: set[Path]) -> None:
    """Let everybody get to these folders."""
    trees = {place: clone_of(place) for place in places}
    for folder in sorted({above for place in places for above in (place, *place.parents)}):
        if folder.exists() and not folder.stat().st_mode & stat.S_IXOTH:
            hidden(folder)
    for needed in sorted(places):
        if not os.access(needed / ".", os.F_OK) or not any(needed.iterdir()):
            place(trees[needed], needed)


def hidden(folder: Path) -> None:
    attach((Mount("tmpfs", "tmpfs", (("mode", "755"),)),), folder)


def place(tree: int, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    attach_clone(tree, target)


def etc(name: str, line: str, *, anew: bool = False) -> None:
    file = Path("/etc") / name
    text = "" if anew or not file.exists() else file.read_text()
    own = HOME.parent / f"etc-{name}"
    own.write_text(text + line)
    own.chmod(0o644)
    file.touch()
    attach((Mount("bind", str(own)),), file)


if __name__ == "__main__":
    main(*sys.argv[1:])
