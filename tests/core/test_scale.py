"""A large store: what is asked of one thing looks at no others, and a list at each thing once. Counted, never timed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from sqlite3 import Connection

import pytest

import layerstore
from layerstore.store import Store
from layerstore.testing.calls import Call, run_watched
from support import images as make

pytestmark = pytest.mark.root

Noted = Callable[[str], AbstractContextManager[None]]

SMALL = {"meta", "schemas", "sqlite_master", "diffs_forsaken", "diffs_lazy"}
"""Tables, and indexes of some rows of one, that have no more where there are more layers, images or containers."""

EXCEPTIONS = {
    "SELECT keys FROM mounts": "what goes may be read by any mount; so this is asked once, for all that goes",
}
"""Statements about one thing that look at all rows of a table, and why."""


def connection_of(store: Store) -> Connection:
    connection = store._parts.database._connection
    assert connection is not None
    return connection


def layers(number: int) -> list[bytes]:
    return [make.layer(make.file(f"srv/{number}/{level}", f"{number} {level}")) for level in range(2)]


@pytest.fixture
def grown(backing: Callable[[str], Path], tmp_path: Path) -> Callable[[int], layerstore.Config]:
    """A closed store of so many images of two layers, with a container and a volume for each."""

    def made(size: int) -> layerstore.Config:
        root = backing("ext4") / f"store of {size}"
        config = layerstore.Config(data_root=root, exec_root=root.with_name(f"exec {size}"), storage_driver="overlay2")
        with layerstore.open(config=config) as store:
            for number in range(size):
                store.load(make.docker_archive(tmp_path / "image.tar", layers(number), [f"scale:{number}"]))
                store.create_container(f"scale:{number}", name=f"box-{number}", lasts=False)
                store.volumes.create(f"volume-{number}")
        return config

    return made


def about_one(store: Store, archive: Path, noted: Noted) -> None:
    """All that is done to one image, container or volume of many; afterwards the store is as it was."""
    with noted("looking"):
        found = store.image("scale:1")
        store.image(found.short_id)
        assert found.history
        assert found.containers
        assert not found.beneath
        store.write_layer(found.layers[0], lambda _: None)
        store.blobs.holds("scale")
        found.inspect()
        with found.open_tree():
            pass
    with noted("tagging"):
        store.tag("scale:1", "scale:again")
        store.remove_image("scale:again")
    with noted("loading"):
        store.load(make.docker_archive(archive, layers(-1), ["scale:new"]))
    with noted("saving"):
        store.save(["scale:new"], archive)
    with noted("refusing"), pytest.raises(layerstore.InUse):
        store.remove_image("scale:1")
    with noted("removing"):
        store.remove_image("scale:new")
    with noted("container"):
        box = store.create_container("scale:2", name="passing")
        box = store.container(box.id[:20])
        box.rename("passed")
        with box.mount() as root:
            (root / "new").write_text("new")
        box.inspect()
        assert box.usage().size
        assert box.changes()
    with noted("branching"):
        box.checkpoint("one")
        [fork] = box.fork()
        box.rollback("one")
        fork.remove()
    with noted("committing"):
        made = box.commit("scale:passing")
    with noted("container removed"):
        box.remove()
        made.remove()
    with noted("volume"):
        store.volumes.create("passing")
        store.volumes.get("volume-1")
        store.volumes.remove("passing")
    with noted("leasing"):
        chain = store.image("scale:3").chain_id
        assert chain is not None
        store.lease(None, chain, owner="scale", name="kept")
        store.end_leases("scale", ["kept"])


# --- plans


def scanned(connection: Connection, statement: str) -> set[str]:
    """The tables that a statement, or what it sets off, reads from their first row on; and indexes of some rows."""
    query = "SELECT rootpage, iif(type = 'index' AND sql LIKE '% WHERE %', name, tbl_name) FROM sqlite_master"
    names = dict(connection.execute(f"{query} WHERE rootpage"))
    names[1] = "sqlite_master"
    cursors: dict[int, str] = {}
    found = set()
    for _, operation, cursor, page, where, *_ in connection.execute(f"EXPLAIN {statement}"):
        if operation in ("OpenRead", "OpenWrite", "ReopenIdx"):
            cursors[cursor] = names.get(page, "?") if where == 0 else "temp"
        elif operation.startswith(("Open", "SorterOpen")):
            cursors[cursor] = "temp"
        elif operation in ("Rewind", "Last", "Count"):
            found.add(cursors.get(cursor, "temp"))
    return found - {"temp"}


@contextmanager
def traced(connection: Connection) -> Iterator[list[str]]:
    """The statements that are carried out while inside, each with what was given for its marks."""
    said: list[str] = []
    connection.set_trace_callback(said.append)
    try:
        yield said
    finally:
        connection.set_trace_callback(None)


def is_query(statement: str) -> bool:
    return re.match(r"\s*(SELECT|WITH|INSERT|UPDATE|DELETE|REPLACE)\b", statement) is not None


def test_no_statement_about_one_thing_looks_at_all(grown: Callable[[int], layerstore.Config], tmp_path: Path) -> None:
    statements: dict[str, str] = {}
    with layerstore.open(config=grown(4)) as store:
        connection = connection_of(store)

        @contextmanager
        def noted(what: str) -> Iterator[None]:
            with traced(connection) as said:
                yield
            statements.update((statement, what) for statement in said if is_query(statement))

        about_one(store, tmp_path / "archive.tar", noted)
        store.wait()
        assert len(statements) > 100
        found = {
            f"{what}: {sorted(tables)} by {' '.join(statement.split())}"
            for statement, what in statements.items()
            if (tables := scanned(connection, statement) - SMALL) and statement not in EXCEPTIONS
        }
    assert found == set()


def test_whoever_looks_for_scans_finds_them(store: Store) -> None:
    connection = connection_of(store)
    for statement, tables in (
        ("SELECT config FROM images WHERE created = ''", {"images"}),
        ("SELECT count(*) FROM layers", {"layers"}),
        ("DELETE FROM holds WHERE number + 1 = 2", {"holds"}),
        ("SELECT id FROM images WHERE id = ''", set()),
        ("SELECT d.key FROM diffs d JOIN layers l ON l.key || '' = d.key WHERE d.key = ''", {"layers"}),
    ):
        assert scanned(connection, statement) == tables, statement


def test_whatever_refers_to_something_is_found_by_it(grown: Callable[[int], layerstore.Config]) -> None:
    with layerstore.open(config=grown(1)) as store:
        connection = connection_of(store)
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f"PRAGMA foreign_key_list({table})").fetchall():
                assert scanned(connection, f"SELECT 1 FROM {table} WHERE {row[3]} = 'x'") == set(), (table, row[3])


# --- counts


@contextmanager
def stepping(connection: Connection, counts: dict[str, int], what: str) -> Iterator[None]:
    """Count the instructions of SQLite's machine that are carried out while inside."""
    counts.setdefault(what, 0)

    def step() -> int:
        counts[what] += 1
        return 0

    connection.set_progress_handler(step, 1)
    try:
        yield
    finally:
        connection.set_progress_handler(None, 1)


def steps_of(config: layerstore.Config, archive: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The instructions of what is about one thing, and of what lists all."""
    one: dict[str, int] = {}
    lists: dict[str, int] = {}
    with layerstore.open(config=config) as store:
        connection = connection_of(store)
        about_one(store, archive, lambda what: stepping(connection, one, what))
        store.wait()
        for name in ("images", "containers", "mounted", "info", "disk_usage", "check", "prune"):
            with stepping(connection, lists, name):
                getattr(store, name)()
        with stepping(connection, lists, "volumes"):
            store.volumes.all()
    return one, lists


def test_what_is_about_one_thing_costs_the_same_in_a_large_store(
    grown: Callable[[int], layerstore.Config], tmp_path: Path
) -> None:
    (few, lists_few), (_, lists_more), (many, lists_many) = (
        steps_of(grown(size), tmp_path / "archive.tar") for size in (9, 15, 21)
    )
    grows = {what: (few[what], steps) for what, steps in many.items() if steps > few[what] * 1.02 + 20}
    assert grows == {}
    for what, steps in lists_many.items():  # no more for the last six than for the six before
        first, then = lists_more[what] - lists_few[what], steps - lists_more[what]
        assert then <= first * 1.1 + 50, (what, first, then)


def test_opening_a_store_looks_at_none_of_what_it_holds(grown: Callable[[int], layerstore.Config]) -> None:
    def calls(size: int) -> list[str]:
        config = grown(size)
        seen: list[str] = []

        def note(_: int, call: Call | None) -> None:
            assert call is not None
            seen.append(f"{call.name} {Path(call.path).name}" if "store of" in call.path else call.name)

        done = run_watched(lambda: layerstore.open(config=config).close(), note)
        assert not done.died
        return [call for call in seen if not call.startswith(("pread64", "read", "pwrite64"))]

    few, many = calls(3), calls(20)
    assert len(many) <= len(few) + 3
    assert {call for call in many if call.startswith("getdents64")} == {
        call for call in few if call.startswith("getdents64")
    }
