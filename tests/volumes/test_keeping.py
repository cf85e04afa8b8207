"""What becomes of volumes: a check tells of them, a conversion keeps them, one who only reads can list them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from layerstore import Attachment, Container, DriverNotSupported, KernelError, ReadOnlyStore, Store
from layerstore.kernel.files import quota
from layerstore.locks import of_volume

pytestmark = pytest.mark.root

Made = Callable[[], Container]


def problems(store: Store) -> list[str]:
    return [str(problem) for problem in store.check()]


def test_a_check_tells_what_is_missing_and_what_is_none(store: Store) -> None:
    volumes = store.data_root / "volumes"
    store.volumes.create("whole")
    store.volumes.create("gone").mountpoint.rmdir()
    store.volumes.create("elsewhere", options={"type": "tmpfs", "device": "tmpfs"}).mountpoint.rmdir()
    (volumes / "stranger").mkdir()
    assert problems(store) == [
        f"unknown volume: {volumes}/stranger is no volume of this store",
        f"missing volume: the folder of volume gone is gone: {volumes}/gone/_data",
    ]


def test_what_the_dead_left_is_told_until_it_is_put_in_order(
    store: Store, settings: layerstore.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store.volumes.create("pg").mountpoint.parent
    (place / "_data" / "file").write_text("1")
    with monkeypatch.context() as patch:

        def refuse(*_: object) -> None:
            raise OSError(5, os.strerror(5))

        patch.setattr("layerstore.volumes.volumes.move_away", refuse)
        with pytest.raises(KernelError, match="rename"):
            store.volumes.remove("pg")
    assert store.volumes.all() == []
    assert problems(store) == [f"garbage: {place} was left by a process that died"]
    with store._parts.locks.one(of_volume("pg")):
        assert problems(store) == []  # somebody is at it
    store.close()
    with layerstore.open(config=settings) as again:
        assert problems(again) == []
        assert not place.exists()
        assert again.volumes.create("pg").mountpoint.parent == place


def test_a_conversion_keeps_them_and_who_uses_them(store: Store, settings: layerstore.Config, box: Made) -> None:
    container = box()
    store.volumes.attach(container, [Attachment("/srv/db", "pg"), Attachment("/cache", read_only=True)])
    (store.volumes.get("pg").mountpoint / "mine").write_text("1")
    before = [(use.target, use.volume.name, use.read_only) for use in store.volumes.of(container.id)]
    store.close()
    layerstore.migrate("vfs", config=settings)
    with layerstore.open(config=evolve(settings, storage_driver="vfs")) as other:
        assert [(use.target, use.volume.name, use.read_only) for use in other.volumes.of(container.id)] == before
        assert sorted(os.listdir(other.volumes.get("pg").mountpoint)) == ["deep", "mine", "seed"]
        assert problems(other) == []


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_one_who_only_reads_can_list_them(store: Store, settings: layerstore.Config, box: Made) -> None:
    container = box()
    store.volumes.attach(container, [Attachment("/srv/db", "pg")])
    store.close()
    with read_only(settings.data_root), layerstore.open(config=settings) as reader:
        assert [volume.name for volume in reader.volumes.all()] == ["pg"]
        assert [use.target for use in reader.volumes.of(container.id)] == ["/srv/db"]
        assert problems(reader) == []
        for change in (
            lambda: reader.volumes.create("other"),
            lambda: reader.volumes.remove("pg"),
            lambda: reader.volumes.attach(reader.container(container.id), [Attachment("/a", "pg")]),
        ):
            with pytest.raises(ReadOnlyStore):
                change()


def test_a_store_that_never_had_one_can_be_read_only(store: Store, settings: layerstore.Config) -> None:
    store.close()
    with read_only(settings.data_root), layerstore.open(config=settings) as reader:
        assert [reader.volumes.all(), problems(reader)] == [[], []]


def test_volumes_may_lie_on_a_filesystem_of_their_own(
    store: Store, own_filesystem: Callable[..., Path], box: Made
) -> None:
    other = own_filesystem("ext4")
    folder = store.data_root / "volumes"
    folder.mkdir()
    subprocess.run(["mount", "--bind", other, folder], check=True)
    try:
        (use,) = store.volumes.attach(box(), [Attachment("/srv/db")])
        assert use.volume.mountpoint.stat().st_dev == other.stat().st_dev
        assert sorted(os.listdir(use.volume.mountpoint)) == ["deep", "seed"]
        name = use.volume.name
        for container in store.containers():
            container.remove(volumes=True)
        assert not (folder / name).exists()
        assert store.volumes.all() == []
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_size_is_refused_where_nothing_can_limit_it(store: Store) -> None:
    if quota.refusal(store.data_root) is None:
        pytest.skip("this filesystem limits projects")
    with pytest.raises(DriverNotSupported, match="size of a volume cannot be limited") as caught:
        store.volumes.create("pg", options={"size": "1g"})
    assert caught.value.remedy is not None
    assert os.listdir(store.data_root / "volumes") == []
    assert problems(store) == []


def test_a_size_is_a_project_of_its_own_and_ends_with_the_volume(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's quotas, which many kernels lack, are stood in for: what they are asked for."""
    limits: dict[int, int] = {}
    projects: dict[str, int] = {}
    calls = "layerstore.kernel.files.quota"
    monkeypatch.setattr(f"{calls}.refusal", lambda folder: None)
    monkeypatch.setattr(f"{calls}.usage", lambda folder, project: (0, limits.get(project, 0)))
    monkeypatch.setattr(f"{calls}.set_project", lambda folder, project: projects.update({folder.name: project}))
    monkeypatch.setattr(f"{calls}.project_of", lambda folder: projects.get(folder.name, 0))
    monkeypatch.setattr(f"{calls}.limit", lambda folder, project, size: limits.update({project: size}))
    store.volumes.create("free")
    volume = store.volumes.create("small", options={"size": "5m"})
    assert volume.size_limit == 5 << 20
    assert [list(projects), list(limits.values())] == [["small"], [5 << 20]]
    store.volumes.remove("small")
    store.volumes.remove("free")
    assert list(limits.values()) == [0]
