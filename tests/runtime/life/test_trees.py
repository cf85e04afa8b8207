"""Trees that one program sees beside its own: gone with it, and never attached where anybody else sees them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import pytest

import layerstore
from layerstore import Container, Store
from layerstore.runtime import RunOptions, Runtime
from layerstore.runtime.life.sources import Shown, Tree
from layerstore.runtime.life.starting import Direct


@pytest.fixture
def container(loaded: Store) -> Container:
    """One that is not made to be run: programs are run beside it."""
    return loaded.create_container("debian", name="box")


def _said(store: Store, box: Container, words: tuple[str, ...], *trees: Tree) -> str:
    runtime = Runtime(store)
    folder = runtime.places.folder(box.id, "step")
    prepared = runtime.prepare(box, RunOptions(args=words), folder, trees=trees)
    ours, its = os.pipe()
    try:
        direct = Direct.start(prepared, stdin=subprocess.DEVNULL, stdout=its, stderr=its, tells=False, lasts=False)
    finally:
        os.close(its)
    with open(ours) as pipe:
        said = pipe.read()
    direct.wait()
    runtime.forget(box, folder, is_clear=True)
    return said


def test_what_lies_in_memory_is_seen_by_the_program_alone(loaded: Store, container: Container) -> None:
    with layerstore.open_memory() as memory:
        fd = os.open("word", os.O_WRONLY | os.O_CREAT, 0o400, dir_fd=memory)
        os.write(fd, b"sesame\n")
        os.close(fd)
        tree = Tree(_given(memory), (Shown("/run/secrets/word", "/word", is_file=True),))
        assert _said(loaded, container, ("cat", "/run/secrets/word"), tree) == "sesame\n"
    assert not list(container.changes()), "the mount point is taken away"


def test_a_mount_of_another_container_is_lent(loaded: Store, container: Container) -> None:
    other = loaded.create_container("debian", name="other")
    with other.mount() as root:
        (root / "srv" / "deep").mkdir(parents=True)
        (root / "srv" / "deep" / "word").write_text("open\n")
        tree = Tree(lambda: layerstore.open_mount(root), (Shown("/mnt", "/srv/deep", read_only=False),))
        assert _said(loaded, container, ("sh", "-c", "cat /mnt/word; echo > /mnt/new"), tree) == "open\n"
        assert (root / "srv" / "deep" / "new").exists()
    other.remove()
    assert not list(container.changes())


def _given(fd: int) -> Callable[[], AbstractContextManager[int]]:
    return lambda: nullcontext(fd)
