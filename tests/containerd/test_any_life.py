"""Any sequence of calls: what containerd's rules for snapshotters say of each is what the service answers.

The rules are those of containerd's `core/snapshots/snapshotter.go`. What is in each snapshot is a dictionary. Layers
are unpacked as containerd has it done: by the store, and where that leaves it to others, through the mounts.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from attrs import define

from containerd.client import Client, Error, mounted
from layerstore import Store
from layerstore.faces.containerd.api import snapshots_pb2 as api
from layerstore.faces.containerd.server import Server
from support import images
from support.properties import NIGHTLY

pytestmark = pytest.mark.root

DRIVERS = ("overlay2", "btrfs", *(("vfs", "erofs") if NIGHTLY else ()))
KEYS = ("a", "b", "c", "ns/1/\u00e9 \u00fc", "d" * 300, "nul\0nul", "..", '"')


@define
class Known:
    """A snapshot, as the rules have it."""

    kind: str
    parent: str
    labels: dict[str, str]
    files: dict[str, str]


class Life:
    """A client, and what there has to be."""

    def __init__(self, chance: random.Random, at: Path, content: Path) -> None:
        self.chance = chance
        self.at = at
        self.content = content
        self.taken = 0
        self.known: dict[str, Known] = {}
        self.done = ""

    def key(self) -> str:
        return self.chance.choice(KEYS)

    def labels(self) -> dict[str, str]:
        return {name: self.chance.choice(("1", "2", "")) for name in ("one", "two") if self.chance.random() < 0.5}

    def step(self, client: Client) -> None:
        """One call, with what comes of it."""
        makes, commits = [self.make] * 3, [self.commit] * 2
        call = self.chance.choice([*makes, *commits, self.remove, self.write, self.unpack, self.update])
        call(client)
        self.look(client)

    def expect(self, codes: set[str], call: Callable[[], object]) -> bool:
        """The call, which has to be refused with one of these codes, or be done where there are none: is it done?"""
        found = ""
        try:
            call()
        except Error as error:
            found = error.code
        assert found in (codes or {""}), self.done
        return not found

    def make(self, client: Client) -> None:
        key, parent, labels = self.key(), self.chance.choice((*[""] * 4, *KEYS)), self.labels()
        kind = self.chance.choice(("Prepare", "View"))
        self.done = f"{kind} {key!r} on {parent!r}"
        codes = set()
        if key in self.known:
            codes.add("ALREADY_EXISTS")
        if parent and parent not in self.known:
            codes.add("NOT_FOUND")
        elif parent and self.known[parent].kind != "COMMITTED":
            codes.add("INVALID_ARGUMENT")
        if self.expect(codes, lambda: client(kind, key=key, parent=parent, labels=labels)):
            below = self.known[parent].files if parent else {}
            now = {name: value for name, value in labels.items() if value}
            self.known[key] = Known("ACTIVE" if kind == "Prepare" else "VIEW", parent, now, dict(below))
            if kind == "Prepare" and self.chance.random() < 0.7:
                self.unpack_into(client, key)

    def commit(self, client: Client) -> None:
        name, key, labels = self.key(), self.key(), self.labels()
        self.done = f"Commit {key!r} as {name!r}"
        codes = set()
        if name in self.known:
            codes.add("ALREADY_EXISTS")
        if key not in self.known:
            codes.add("NOT_FOUND")
        elif self.known[key].kind != "ACTIVE":
            codes.add("FAILED_PRECONDITION")
        if self.expect(codes, lambda: client.commit(name, key, labels)):
            was = self.known.pop(key)
            now = {name: value for name, value in labels.items() if value}
            self.known[name] = Known("COMMITTED", was.parent, now, was.files)

    def remove(self, client: Client) -> None:
        key = self.key()
        self.done = f"Remove {key!r}"
        codes = set()
        if key not in self.known:
            codes.add("NOT_FOUND")
        elif any(one.parent == key for one in self.known.values()):
            codes.add("FAILED_PRECONDITION")
        if self.expect(codes, lambda: client.remove(key)):
            del self.known[key]
        if self.chance.random() < 0.2:
            client("Cleanup")

    def write(self, client: Client) -> None:
        key = self.key()
        self.done = f"Mounts {key!r}"
        codes = {"NOT_FOUND"} if key not in self.known else set()
        if not codes and self.known[key].kind == "COMMITTED":
            codes.add("FAILED_PRECONDITION")
        if not self.expect(codes, lambda: client.mounts(key)):
            return
        one = self.known[key]
        with mounted(client.mounts(key), self.at) as root:
            assert contents(root) == one.files, self.done
            if one.kind == "VIEW":
                with pytest.raises(OSError, match="Read-only"):
                    (root / "new").write_text("")
                return
            name, text = self.chance.choice("xyz"), str(self.chance.random())
            if name in one.files and self.chance.random() < 0.4:
                (root / name).unlink()
                del one.files[name]
            else:
                (root / name).write_text(text)
                one.files[name] = text

    def unpack(self, client: Client) -> None:
        active = [key for key, one in self.known.items() if one.kind == "ACTIVE"]
        if active:
            self.unpack_into(client, self.chance.choice(active))

    def unpack_into(self, client: Client, key: str) -> None:
        self.done = f"Apply {key!r}"
        files, name, text = self.known[key].files, self.chance.choice("xyz"), str(self.chance.randrange(4))
        layer = images.layer(images.file(name, text), images.file("unpacked", text))
        digest = images.digest(layer)
        (self.content / digest[7:]).write_bytes(layer)
        mounts = client.mounts(key)
        try:
            assert client.apply(mounts, digest, "application/vnd.oci.image.layer.v1.tar").digest == digest
            self.taken += 1
        except Error as error:
            if error.code != "UNIMPLEMENTED":
                raise
            with mounted(mounts, self.at) as root:
                (root / name).write_text(text)
                (root / "unpacked").write_text(text)
        files |= {name: text, "unpacked": text}

    def update(self, client: Client) -> None:
        key, labels = self.key(), self.labels()
        self.done = f"Update {key!r}"
        codes = {"NOT_FOUND"} if key not in self.known else set()
        if self.expect(codes, lambda: client("Update", info=api.Info(name=key, labels=labels))):
            self.known[key].labels = {name: value for name, value in labels.items() if value}

    def look(self, client: Client) -> None:
        """Is all as it has to be?"""
        found = {info.name: (api.Kind.Name(info.kind), info.parent, dict(info.labels)) for info in client("List")}
        assert found == {key: (one.kind, one.parent, one.labels) for key, one in self.known.items()}, self.done
        for info in client("List", filters=["kind==committed", "labels.one==1"]):
            assert self.known[info.name].kind == "COMMITTED" or self.known[info.name].labels["one"] == "1"


def contents(root: Path) -> Mapping[str, str]:
    return {path.name: path.read_text() for path in root.iterdir()}


@pytest.mark.parametrize("driver", DRIVERS)
def test_any_life(driver: str, open_store: Callable[..., Store], socket: Path, tmp_path: Path) -> None:
    store = open_store(driver)
    content = socket.parent / "containerd/io.containerd.content.v1.content/blobs/sha256"
    content.mkdir(parents=True)
    taken = 0
    for seed in range(150 if NIGHTLY else 1):
        chance = random.Random(f"{driver} {seed}")
        life = Life(chance, tmp_path / "at", content)
        with Server(store, socket, socket.parent / "containerd"), Client(socket) as client:
            for _ in range(100 if NIGHTLY else 40):
                life.step(client)
            while life.known:
                for key in [key for key in life.known if all(one.parent != key for one in life.known.values())]:
                    client.remove(key)
                    del life.known[key]
        store.prune(all_images=True)
        assert store.check() == []
        assert (store.mounted(), store.snapshots.all(), store.claims()) == ([], [], {})
        assert (store.layers(), store.leases("containerd")) == ([], {})
        taken += life.taken
    assert taken, "none was the store's to unpack"
