"""A pipe, socket or device where the store has a file of its own: no call waits for it, and `check` names it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from layerstore.errors import LayerstoreError
from layerstore.kernel.files.descriptors import open_own
from mending.store import Everything
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

PATIENCE = 60
"""Seconds after which a child is taken to wait for ever."""


def files(root: Path) -> Iterator[Path]:
    """All plain files of a store, and those of its database."""
    for above, _, names in os.walk(root):
        yield from (path for name in names if stat.S_ISREG((path := Path(above, name)).lstat().st_mode))


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def tape(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # /dev/null


def sock(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(path.parent, os.O_PATH)
        server.bind(f"/proc/self/fd/{here}/{path.name}")
        os.close(here)


def used(there: Everything) -> list[str]:
    """All that can be asked of a store, as far as it goes: what `check` says, and errors in words."""
    said: list[str] = []

    def tried(deed: Callable[[], object]) -> None:
        try:
            deed()
        except LayerstoreError as error:
            said.append(str(error))

    def opened(store: layerstore.Store) -> None:
        said.extend(str(problem) for problem in store.check(content=True))
        tried(store.info)
        for image in store.images():
            tried(lambda image=image: store.save(image, os.devnull))
        for box in store.containers():
            tried(lambda box=box: list(box.changes()))
            tried(lambda box=box: box.mount().unmount())
        tried(lambda: store.tag(store.images()[0].id, "new:1"))
        tried(lambda: store.repair(store.check(content=True)))
        tried(store.prune)
        store.wait()

    def all_of_it() -> None:
        with layerstore.open(config=there.config) as store:
            opened(store)

    tried(all_of_it)
    tried(lambda: layerstore.rescue(config=there.config))
    return said


def said_apart(there: Everything) -> list[str]:
    """The same in a child, which does not wait for ever."""
    theirs, ours = os.pipe()
    process = os.fork()
    if process == 0:
        signal.alarm(PATIENCE)
        try:
            os.write(ours, "\0".join(used(there)).encode(errors="replace")[:60_000])
            os._exit(0)
        finally:
            os._exit(1)
    os.close(ours)
    with open(theirs, "rb") as answer:
        text = answer.read().decode()
    _, status = os.waitpid(process, 0)
    assert not os.WIFSIGNALED(status), "it waits"
    assert status == 0
    return text.split("\0")


QUIET = (
    "reserve/",
    "locks",
    "staging/",
    ".backing",
    ".db-shm",
    ".empty",
    "commits",
    "_data/",
    "/diff/",
    "trees/",
)
"""What may be made anew or done without, and the trees, of which `check` tells by itself."""


@pytest.mark.parametrize("driver", ["overlay2", "vfs", "aufs"] if NIGHTLY else ["overlay2"])
@pytest.mark.parametrize("other", [pipe, sock, tape])
def test_nobody_waits_for_what_is_no_file(
    everything: Callable[[str], Everything], driver: str, other: Callable[[Path], None]
) -> None:
    whole = everything(driver)
    found = sorted(path.relative_to(whole.root) for path in files(whole.root))
    loud = [place for place in found if not any(word in str(place) for word in QUIET)]
    kinds = {
        (place.parts[:2] if place.parts[0] == "records" else place.parts[0], place.suffix): place for place in loud
    }
    few = [*kinds.values(), Path("locks")] if other is pipe else [Path("layerstore.db"), Path("layerstore.db-wal")]
    chosen = found if NIGHTLY else few
    silent = []
    for place in chosen:
        there = evolve(whole, config=evolve(whole.config, data_root=whole.root.with_name("copy")))
        subprocess.run(["cp", "-a", whole.root, there.root], check=True)
        (there.root / place).unlink()
        other(there.root / place)
        said = said_apart(there)
        if not any(place.name in one for one in said) and not any(word in str(place) for word in QUIET):
            silent.append((str(place), said))
        shutil.rmtree(there.root)
    assert silent == []


def test_what_cannot_be_looked_at_is_not_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("")
    opened: list[int] = []

    def refuse(fd: int) -> os.stat_result:
        opened.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch, pytest.raises(OSError, match="Input/output"):
        patch.setattr(os, "fstat", refuse)
        open_own(path)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])
