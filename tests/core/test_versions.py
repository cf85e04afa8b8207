"""A store that the first version of the schema made: it is converted at the first open, whole, and by one process."""

from __future__ import annotations

import io
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import layerstore
from data.make_store_v1 import TARGET, layers
from layerstore.database import Database
from layerstore.database.schema import VERSION
from layerstore.errors import InUse, LayerstoreError
from layerstore.locks import USE, Locks

OPEN = (
    "import sys, layerstore; from pathlib import Path\n"
    "root = Path(sys.argv[1])\n"
    "with layerstore.open(config=layerstore.Config(data_root=root, exec_root=root.parent / 'exec')) as store:\n"
    "    print(store.image('old:1').short_id)\n"
)


@pytest.fixture
def old(backing: Callable[[str], Path]) -> layerstore.Config:
    """A store as version 1 of the schema left it."""
    folder = backing("ext4")
    command = ["tar", "--extract", "--xattrs", "--xattrs-include=*", "--same-owner", "--preserve-permissions"]
    subprocess.run([*command, f"--file={TARGET}", f"--directory={folder}"], check=True)
    assert version(folder / "store") == 1
    return layerstore.Config(data_root=folder / "store", exec_root=folder / "exec")


def version(data_root: Path) -> int:
    with closing(sqlite3.connect(data_root / "layerstore.db")) as connection:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])


def described(path: Path) -> list[tuple[str, str]]:
    """What the tables are, but for comments and spaces."""

    def plain(sql: str) -> str:
        lines = (line.partition("--")[0] for line in sql.splitlines())
        return " ".join(" ".join(lines).replace('"', "").split())

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name")
        return [(str(name), plain(str(sql))) for name, sql in rows]


@pytest.mark.root
@pytest.mark.tools("tar")
def test_it_is_whole_and_goes_on(old: layerstore.Config, tmp_path: Path) -> None:
    with layerstore.open(config=old) as store:
        assert version(old.data_root) == VERSION
        assert store.check(content=True) == []
        store.save("old:1", tmp_path / "saved.tar")
        written = io.BytesIO()
        store.container("changed").write_changes(written.write)
        with store.container("changed").mount() as root:
            assert (root / "new").read_text() == "written in version 1"
        image = store.container("changed").commit("new:1")
        assert {"old:1", "old:second", "new:1"} == {tag for image in store.images() for tag in image.tags}
        assert len(image.layers) == 3
        assert store.check(content=True) == []
    with tarfile.open(tmp_path / "saved.tar") as archive:
        files = [archive.extractfile(member) for member in archive if member.isfile()]
        saved = [file.read() for file in files if file is not None]
    assert [layer for layer in layers() if layer in saved] == layers()
    with tarfile.open(fileobj=io.BytesIO(written.getvalue())) as diff:
        assert {"etc/.wh.passwd", "new"} <= set(diff.getnames())


@pytest.mark.root
@pytest.mark.tools("tar")
def test_it_becomes_what_a_new_one_is(old: layerstore.Config, tmp_path: Path) -> None:
    layerstore.open(config=old).close()
    Database(tmp_path / "db").close()
    assert described(old.data_root / "layerstore.db") == described(tmp_path / "db")


@pytest.mark.root
@pytest.mark.tools("tar")
def test_several_processes_may_be_the_first(old: layerstore.Config) -> None:
    command = [sys.executable, "-c", OPEN, str(old.data_root)]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(5)]
    told = [other.communicate() for other in others]
    assert len(set(told)) == 1, told
    assert told[0][1] == ""


@pytest.mark.root
@pytest.mark.tools("tar")
def test_it_is_not_converted_under_an_earlier_version_that_has_it_open(old: layerstore.Config) -> None:
    with Locks(old.data_root / "locks").one(USE, shared=True):
        with pytest.raises(InUse, match="made by an earlier version and is open"):
            layerstore.open(config=old)
        assert version(old.data_root) == 1
    layerstore.open(config=old).close()
    assert version(old.data_root) == VERSION


def test_later_one_is_refused_in_words(tmp_path: Path) -> None:
    config = layerstore.Config(data_root=tmp_path / "store", exec_root=tmp_path / "exec", storage_driver="vfs")
    layerstore.open(config=config).close()
    with closing(sqlite3.connect(tmp_path / "store" / "layerstore.db")) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    with pytest.raises(LayerstoreError) as caught:
        layerstore.open(config=config)
    assert str(caught.value).endswith("by a later version of layerstore: use that one.")
    assert f"has schema version {VERSION + 1}, this layerstore knows {VERSION}" in str(caught.value)
