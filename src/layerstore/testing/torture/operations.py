"""What a store can do, as a table: each operation is how it is done, and, if it needs more, what is made ready.

All of them are done to one world: a store with images, containers, checkpoints and volumes. What an operation comes to
is not written down anywhere: it is what an undisturbed run of it shows (`pictures`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from threading import Thread

import layerstore
from layerstore import Attachment, Store
from layerstore.testing import tars
from layerstore.testing.calls import Call, Death, run_watched
from layerstore.testing.torture.pictures import OWNER
from layerstore.values import define, frozen

__all__ = ["OPERATIONS", "Operation", "Place", "build_world", "give"]


@define
class Place:
    """Where a store is tried: its folders, files that are given to it, and one for those that it writes."""

    data_root: Path
    exec_root: Path
    given: Path
    out: Path
    driver: str
    options: tuple[str, ...] = ()
    _store: Store | None = None

    @property
    def settings(self) -> layerstore.Config:
        """The store's configuration. Once it is there, it knows its driver."""
        new = not (self.data_root / "layerstore.db").exists()
        return layerstore.Config(
            data_root=self.data_root,
            exec_root=self.exec_root,
            storage_driver=self.driver if new else None,
            storage_opts=self.options if new else (),
        )

    @property
    def store(self) -> Store:
        """The store, opened when it is first needed."""
        if self._store is None:
            self._store = layerstore.open(config=self.settings)
        return self._store

    def close(self) -> None:
        """Close it, if it is open."""
        store, self._store = self._store, None
        if store is not None:
            store.close()


Act = Callable[[Place], object]
Beside = Callable[[Place], AbstractContextManager[object]]


@frozen
class Operation:
    """One thing that a store does. `act` is the deed, `ready` what has to be done before, in a world as it is.

    `beside` is what has to be there meanwhile: a server, in the process that watches.

    What it comes to is seen at once or not at all, unless it `has_steps`: then each thing is as it was or as it is
    going to be, and what nobody sees yet may be there. `void` are beginnings of lines of an inventory ("row of ...")
    that mean nothing after the death of whoever made them, or that no store can find again. `loose` are names in the
    picture that may be anything after a failure, until it is done again. What is mounted it `pauses`: who dies then
    leaves it unmounted. It `opens` the store itself, or finds it open. What it has reported as done `lasts` through a
    power cut.

    If it has `programs`, whose calls nobody may stop, it is broken off between statements and lines alone. `settle`
    waits for what goes on without whoever died, before a store is looked at, and raises AssertionError for what should
    not be.
    """

    name: str
    act: Act
    ready: Act | None = None
    beside: Beside | None = None
    has_steps: bool = False
    loose: frozenset[str] = frozenset()
    void: tuple[str, ...] = ()
    pauses: bool = False
    opens: bool = False
    lasts: bool = True
    programs: bool = False
    settle: Act | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of faults, that are tried. To the world it is the same whether one dies between lines or between calls."""
        return ("statements", "lines") if self.programs else ("killed", "statements", "errors", "power")

    def __str__(self) -> str:
        return self.name


# --- the world -------------------------------------------------------------------------------------------------------

_PARTS = {
    "base": (
        tars.folder(b"etc/", mode=0o750, uid=3),
        tars.file(b"etc/passwd", b"root:x:0:0\n"),
        tars.file(b"etc/group", b"root:x:0\n", xattrs={b"user.mark": b"1"}),
        tars.folder(b"usr/"),
        tars.file(b"usr/tool", b"#!/bin/sh\n" * 2000, mode=0o4755),
        tars.hardlink(b"usr/link", b"usr/tool"),
        tars.symlink(b"usr/way", b"tool"),
        *(tars.file(b"usr/%d" % number, b"%d" % number * 3000) for number in range(8)),
    ),
    "upper": (tars.whiteout(b"etc/group"), tars.file(b"etc/new", b"new"), tars.file(b"usr/1", b"other" * 5000)),
    "lone": (tars.folder(b"lone/"), tars.file(b"lone/file", b"lone" * 9000)),
    "more": (tars.folder(b"opt/"), *(tars.file(b"opt/%d" % number, b"%d" % number * 20000) for number in range(6))),
}


def _archive(part: str) -> bytes:
    return tars.archive(*_PARTS[part])


def give(folder: Path) -> None:
    """Write the files that are given to operations."""
    layers = {part: _archive(part) for part in _PARTS}
    images = {"base": ("base", "upper"), "lone": ("lone",), "more": ("base", "more")}
    for name, parts in images.items():
        (folder / f"{name}.tar").write_bytes(tars.docker_archive([layers[part] for part in parts], f"{name}:1"))
    (folder / "layer.tar").write_bytes(layers["more"])
    tree = folder / "tree"
    tree.mkdir()
    for number in range(4):
        (tree / f"{number}").write_text(f"of the host {number}" * 100)
        os.utime(tree / f"{number}", ns=(tars.EPOCH * tars.SECOND,) * 2)
    os.utime(tree, ns=(tars.EPOCH * tars.SECOND,) * 2)


def build_world(at: Place) -> None:
    """Make the store on which all operations are tried, and close it."""
    store = at.store
    (at.out / "copied").mkdir(parents=True)
    store.load(at.given / "more.tar")
    store.save("more:1", at.given / "more.oci", format="oci")
    store.remove_image("more:1")
    store.load(at.given / "base.tar")
    store.tag("base:1", "base:second")
    store.load(at.given / "lone.tar")
    for name in ("idle", "changed", "pointed", "made"):
        store.create_container("base:1", name=name)
    _write(store, "changed", "a", "b")
    _write(store, "made", "m")
    store.container("made").commit("made:1")
    _write(store, "pointed", "p")
    store.container("pointed").checkpoint("a")
    _write(store, "pointed", "q")
    store.container("pointed").checkpoint("b")
    _write(store, "pointed", "r")
    store.volumes.create("unused")
    store.volumes.attach(store.container("made"), [Attachment("/etc", "used")])
    _lease(at, "old", tars.archive(tars.file(b"leased", b"l" * 9000)))
    store.wait()
    at.close()


def _write(store: Store, box: str, *names: str) -> None:
    """Write in a container, at a time long ago."""
    when = (tars.EPOCH * tars.SECOND,) * 2
    with store.container(box).mount() as root:
        for name in names:
            (root / name).write_text(name * 5000)
            os.utime(root / name, ns=when)
        (root / "etc/passwd").write_text("written")
        for path in ("etc/passwd", "etc", ""):
            os.utime(root / path, ns=when)


def _lease(at: Place, name: str, tar: bytes) -> None:
    def keep(tx: layerstore.Transaction, layer: layerstore.StoredLayer) -> None:
        at.store.lease(tx, layer.chain_id, owner=OWNER, name=name)

    at.store.add_layer(layerstore.LayerSource(lambda: io.BytesIO(tar)), record=keep)


# --- the table -------------------------------------------------------------------------------------------------------


def _load_pipe(at: Place) -> None:
    """From a stream that cannot go back."""
    theirs, ours = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), open(ours, "wb") as pipe:
            pipe.write((at.given / "more.tar").read_bytes())

    feeder = Thread(target=feed)
    feeder.start()
    try:
        with open(theirs, "rb") as pipe:
            at.store.load(pipe)
    finally:
        feeder.join()


def _mounted(at: Place) -> None:
    at.store.container("changed").mount(persistent=True)


def _die_loading(at: Place) -> None:
    """Another process dies in the middle of it."""
    at.close()
    kept = 0

    def answer(_: int, call: Call) -> Death | None:
        nonlocal kept
        kept += call.name == "rename"
        return Death() if kept == 2 else None

    def load() -> None:
        at.store.load(at.given / "more.tar")

    run_watched(load, answer, names=["rename", "renameat", "renameat2"])


def _end(at: Place) -> None:
    at.store.container("changed").end(lambda tx, snapshot: None)


def _ended(at: Place) -> None:
    if any(box.name == "changed" for box in at.store.containers()):
        _end(at)


OPERATIONS: Sequence[Operation] = (
    Operation("load", lambda at: at.store.load(at.given / "more.tar")),
    Operation("load OCI", lambda at: at.store.load(at.given / "more.oci", names=["more:1"])),
    Operation("load a pipe", _load_pipe),
    Operation("create", lambda at: at.store.create_container("base:1", name="new")),
    Operation("mount", _mounted, lasts=False),
    Operation("unmount", lambda at: at.store.container("changed").unmount(), ready=_mounted),
    Operation("commit", lambda at: at.store.container("changed").commit("new:1")),
    Operation("commit mounted", lambda at: at.store.container("changed").commit("new:1"), ready=_mounted),
    Operation("checkpoint", lambda at: at.store.container("changed").checkpoint("now")),
    Operation(
        "checkpoint mounted", lambda at: at.store.container("changed").checkpoint("now"), ready=_mounted, pauses=True
    ),
    Operation("rollback", lambda at: at.store.container("pointed").rollback("a")),
    Operation(
        "rollback mounted", lambda at: at.store.container("pointed").rollback("a"), pauses=True,
        ready=lambda at: at.store.container("pointed").mount(persistent=True),
    ),
    Operation("fork", lambda at: at.store.container("changed").fork(names=["side"])),
    Operation("remove a checkpoint", lambda at: at.store.container("pointed").checkpoint_named("b").remove()),
    Operation("end as a snapshot", _end),
    Operation("remove a snapshot", lambda at: at.store.snapshots.all()[0].remove(), ready=_ended),
    Operation("rm", lambda at: at.store.container("pointed").remove()),
    Operation("rm volumes", lambda at: at.store.container("made").remove(volumes=True)),
    Operation("rmi", lambda at: at.store.remove_image("lone:1")),
    Operation("tag", lambda at: at.store.tag("base:1", "new:1")),
    Operation("rename", lambda at: at.store.container("idle").rename("new")),
    Operation("prune", lambda at: at.store.prune(all_images=True, containers=True, volumes=True), has_steps=True),
    Operation("squash", lambda at: at.store.squash("made:1", tags=["flat:1"])),
    Operation("import", lambda at: at.store.import_tar(at.given / "layer.tar", "new:1")),
    Operation("add a layer", lambda at: _lease(at, "new", _archive("more"))),
    Operation("end a lease", lambda at: at.store.end_leases(OWNER, ["old"])),
    Operation("make a volume", lambda at: at.store.volumes.create("new")),
    Operation(
        "fill volumes",
        lambda at: at.store.volumes.attach(
            at.store.container("changed"), [Attachment("/etc", "unused"), Attachment("/usr", "new")]
        ),
    ),
    Operation("remove a volume", lambda at: at.store.volumes.remove("unused")),
    Operation("save", lambda at: at.store.save("base:1", at.out / "saved.tar"), lasts=False, void=("path out/.",)),
    Operation(
        "save OCI", lambda at: at.store.save("base:1", at.out / "saved", format="oci", folder=True), lasts=False,
        loose=frozenset({"file saved"}), void=("path out/.",),
    ),
    Operation("export", lambda at: at.store.container("changed").export(bytearray().extend)),
    Operation(
        "cp in", lambda at: at.store.container("idle").copy_in(f"{at.given}/tree/.", "/usr"),
        loose=frozenset({"container idle"}),
    ),
    Operation(
        "cp out", lambda at: at.store.container("changed").copy_out("/usr/.", at.out / "copied"), lasts=False,
        loose=frozenset({"file copied"}),
    ),
    Operation("check", lambda at: at.store.check(content=True)),
    Operation("open", lambda at: at.store.info(), opens=True),
    Operation("open after a death", lambda at: at.store.images(), ready=_die_loading, opens=True),
)  # fmt: skip
"""In the order of their importance. `migrate` is made by `migration_to`."""


def migration_to(driver: str) -> Operation:
    """The conversion of the store to another driver."""

    def migrate(at: Place) -> None:
        at.close()
        layerstore.migrate(driver, config=at.settings)

    return Operation("migrate", migrate, opens=True, has_steps=True)  # it goes on when it is called again
