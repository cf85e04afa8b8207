"""What walks have found, once mended: each in the few lines that it takes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import layerstore
from layerstore.copying import entries
from layerstore.testing.calls import Call, Death, Failure, run_watched

pytestmark = pytest.mark.root


@pytest.mark.parametrize(("driver", "options"), [("overlay2", ()), ("aufs", ("aufs.mode=copy",))])
@pytest.mark.parametrize("call", ["write", "rename"])
def test_who_dies_while_what_works_is_noted_leaves_nothing(
    driver: str, options: tuple[str, ...], call: str, data_root: Path
) -> None:
    def create() -> None:
        config = layerstore.Config(
            data_root=data_root,
            exec_root=data_root.with_name("exec"),
            storage_driver=driver,
            storage_opts=options,
        )
        with layerstore.open(config=config) as store:
            store.create_container().mount().unmount()
            assert store.info().driver == driver

    def answer(_: int, one: Call) -> Death | None:
        return Death() if ".backing" in one.path else None

    create()
    home = data_root / driver  # where a store asks once a boot
    (home / ".backing").unlink()
    before = {*os.listdir(home)}
    assert run_watched(create, answer, names=[call]).died
    create()
    assert {name for name in {*os.listdir(home)} - before if name.startswith(".")} == {".backing"}


@pytest.mark.parametrize(("driver", "call", "made"), [("vfs", "syncfs", []), ("overlay2", "fsconfig", ["a"])])
def test_a_container_stays_mounted_when_a_call_of_its_checkpoint_fails(
    driver: str, call: str, made: list[str], data_root: Path
) -> None:
    config = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver)
    with layerstore.open(config=config) as store:
        box = store.create_container(name="web")
        (box.mount(persistent=True).path / "new").touch()
    seen: list[Call] = []

    def checkpoint() -> None:
        with layerstore.open(config=config) as store:
            store.container("web").checkpoint("a")

    def answer(_: int, one: Call) -> int | None:
        seen.append(one)
        return errno.ENOMEM if len(seen) == 1 else None

    def then(failure: Failure | None) -> list[str]:
        assert (failure is None) == bool(made), failure
        with layerstore.open(config=config) as store:
            box = store.container("web")
            assert box.mountpoint is not None
            found = os.listdir(box.mountpoint)
            assert [point.label for point in box.checkpoints()] == made
            box.unmount(all=True)
            return found

    run = run_watched(checkpoint, answer, then, names=[call])
    assert run.result == ["new"]
    assert seen


@pytest.mark.parametrize("call", ["newfstatat", "readlinkat"])
def test_what_cannot_be_looked_at_is_told_by_a_copy(call: str, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "link").symlink_to("nowhere")
    handle = os.open(tmp_path / "tree", os.O_PATH)
    place = str(tmp_path / "tree/link")
    run = run_watched(
        lambda: list(entries.of_tree(handle, xattrs=False)),
        lambda _, one: errno.EIO if one.path == place else None,
        names=[call],
    )
    os.close(handle)
    assert run.failure is not None
    assert layerstore.KernelError.__name__ in run.failure.kinds, run.failure.trace
    assert "link" in run.failure.text
