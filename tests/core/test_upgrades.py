"""A store of each later version of the schema, as that version's own code left it: opened by this one, it is whole, has
all that it had, and goes on."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import layerstore
from data import make_stores
from data.make_store_v1 import layers
from data.make_stores import CHECKPOINTS, LEASES, SNAPSHOTS, VOLUMES
from layerstore.database import Database
from layerstore.database.schema import VERSION
from layerstore.kernel.mounts import boot_id

from .test_versions import described, version

STORES = [
    (int(match[1]), match[2] or "overlay2")
    for path in sorted(make_stores.HERE.iterdir())
    if (match := re.fullmatch(r"store_v(\d+)_?(\w*)\.tar\.gz", path.name)) and match[1] != "1"
]
"""Of version 1 there is the one that `test_versions` is about."""
LARGEST = 100_000
"""Bytes of an archive: they stay in the history for good."""


@pytest.fixture(params=STORES, ids=lambda store: f"{store[0]}-{store[1]}")
def old(request: pytest.FixtureRequest, backing: Callable[[str], Path]) -> tuple[layerstore.Config, int]:
    """A store, and its version."""
    number, driver = request.param
    folder = backing("ext4")
    command = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--same-owner", "--preserve-permissions"]
    subprocess.run([*command, f"--file={make_stores.archive(number, driver)}", f"--directory={folder}"], check=True)
    assert version(folder / "store") == number
    with closing(sqlite3.connect(folder / "store/layerstore.db")) as connection, connection:
        # As if it had been used a moment ago: after a boot, more is put in order.
        connection.execute("UPDATE meta SET value = ? WHERE key = 'boot'", (boot_id(),))
    return layerstore.Config(data_root=folder / "store", exec_root=folder / "exec"), number


def test_each_version_before_this_one_has_a_store() -> None:
    found = {1, *(number for number, driver in STORES if driver == "overlay2")}
    wanted = set(range(1, VERSION)) - {make_stores.NEVER_KEPT}
    assert found == wanted, "tests/data/make_stores.py makes it, by the code before the step"
    assert all(path.stat().st_size <= LARGEST for path in make_stores.HERE.glob("store_v*"))


@pytest.mark.root
@pytest.mark.tools("tar")
def test_it_is_whole_and_has_all_that_it_had(old: tuple[layerstore.Config, int], tmp_path: Path) -> None:
    config, number = old
    with layerstore.open(config=config) as store:
        assert version(config.data_root) == VERSION
        assert store.check(content=True) == []

        store.save("old:1", tmp_path / "saved.tar")
        with store.container("changed").mount() as root:
            assert (root / "new").read_text() == f"written in version {number}"
            assert not (root / "etc/passwd").exists()
            (root / "newer").write_text("written now")
        assert store.container("untouched").status == "created"
        if number >= VOLUMES:
            assert (store.volumes.get("data").mountpoint / "kept").read_text() == "in a volume"
        if number >= CHECKPOINTS:
            kept = store.container("kept")
            assert [str(change) for change in kept.changes(since="before")] == ["C /first"]
            kept.rollback("before")
            with kept.mount() as root:
                assert (root / "first").read_text() == "before"
        if number >= LEASES:
            assert dict(store.leases("somebody")) == {"lowest": store.image("old:1").chain_ids[0]}
        if number >= SNAPSHOTS:
            [snapshot] = store.snapshots.all()
            with store.create_container(on=snapshot, name="again") as again, again.mount() as root:
                assert (root / "left").read_text() == "in a snapshot"

        assert len(store.container("changed").commit("new:1").layers) == len(layers()) + 1
        assert store.check(content=True) == []
    with tarfile.open(tmp_path / "saved.tar") as archive:
        files = [archive.extractfile(member) for member in archive if member.isfile()]
        saved = [file.read() for file in files if file is not None]
    assert [layer for layer in layers() if layer in saved] == layers()


@pytest.mark.root
@pytest.mark.tools("tar")
def test_its_database_becomes_what_a_new_one_is(old: tuple[layerstore.Config, int], tmp_path: Path) -> None:
    config, _ = old
    layerstore.open(config=config).close()
    Database(tmp_path / "db").close()
    upper = {name for name, _ in described(config.data_root / "layerstore.db")}
    core = described(tmp_path / "db")
    assert {name for name, _ in core} <= upper
    assert [row for row in described(config.data_root / "layerstore.db") if row[0] in dict(core)] == core
