"""A row of the database and the record beside it are not the same: told, and put right where that can be proved."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from layerstore import Store
from layerstore.images import config
from mending.store import Everything
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

DRIVERS = ["overlay2", "vfs"] + (["btrfs", "aufs"] if NIGHTLY else [])


def alter(there: Everything, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(there.root / "layerstore.db", isolation_level=None)) as connection:
        assert connection.execute(statement, values).rowcount == 1


def kinds(store: Store) -> list[str]:
    return sorted(problem.kind for problem in store.check(content=True))


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("column", ["diff_id", "size"])
def test_what_a_layer_is_is_proved_by_its_files(
    everything: Callable[[str], Everything], driver: str, column: str
) -> None:
    there = everything(driver)
    with there.open() as store:
        assert kinds(store) == []
        before = {image.tags: (image.layers, image.size) for image in store.images()}
        [lone] = store.image("lone:1").layers
    value: object = 5 if column == "size" else f"sha256:{'7' * 64}"
    alter(there, f"UPDATE diffs SET {column} = ? WHERE diff_id = ?", value, lone)
    with there.open() as store:
        told = [problem for problem in store.check(content=True) if problem.kind == "record"]
        assert [f"and {value} in the database" in problem.text for problem in told] == [True]
        done = store.repair(store.check(content=True))
        assert [str(repair.error) for repair in done if not repair.is_done] == []
        assert kinds(store) == []
        assert {image.tags: (image.layers, image.size) for image in store.images()} == before
        store.save("lone:1", "/dev/null")


def test_a_record_of_a_layer_that_is_damaged_is_written_anew(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    path = next(there.root.glob("skeletons/*.record"))
    before = path.read_bytes()
    path.write_bytes(before[:-9])
    with there.open() as store:
        assert kinds(store) == ["record"]
        assert [repair.is_done for repair in store.repair(store.check())] == [True]
        assert kinds(store) == []
    assert path.read_bytes() == before


def test_of_what_nothing_proves_both_are_told_and_neither_is_altered(everything: Callable[[str], Everything]) -> None:
    there = everything("overlay2")
    with there.open() as store:
        [lone] = store.image("lone:1").layers
    alter(there, "UPDATE diffs SET entries = 77 WHERE diff_id = ?", lone)
    with there.open() as store:
        [problem] = store.check(content=True)
        assert "entries is 1 there and 77 in the database" in problem.text
        [repair] = store.repair([problem])
        assert "entries is 1 there and 77 in the database" in str(repair.error) or "nothing proves" in str(repair.error)
        assert [str(one) for one in store.check()] == [str(problem)]


def test_a_config_is_taken_from_its_record(everything: Callable[[str], Everything], tmp_path: Path) -> None:
    there = everything("overlay2")
    with there.open() as store:
        image = store.image("lone:1")
    broken = image.config_bytes.replace(b"amd64", b"amd65", 1)
    assert broken != image.config_bytes
    alter(there, "UPDATE images SET config = ? WHERE id = ?", broken, image.id)
    with there.open() as store:
        assert "damaged image" in kinds(store)
        assert all(repair.is_done for repair in store.repair(store.check()))
        assert kinds(store) == []
        assert config.layers(store.image("lone:1").config) == image.layers
