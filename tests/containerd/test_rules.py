"""The rules of containerd's API, one by one, by a client of it."""

from __future__ import annotations

import json
import os
import signal
import socket as sockets
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import layerstore
from containerd.client import Client, Error, mounted
from layerstore import ConfigError, InUse, Store
from layerstore.driver import Mount
from layerstore.faces.containerd import recipes
from layerstore.faces.containerd.api import snapshots_pb2 as api
from layerstore.faces.containerd.server import Server
from layerstore.testing.filesystems import unmount

pytestmark = pytest.mark.root

DRIVERS = ("overlay2", "erofs", "btrfs", "vfs", "aufs")


@pytest.fixture
def client(store: Store, serve: Callable[[Store], Client]) -> Client:
    """Of a store with overlay2."""
    return serve(store)


def refused(code: str) -> pytest.RaisesExc[Error]:
    """The block is answered with this code."""
    return pytest.RaisesExc(Error, check=lambda error: error.code == code)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_life_leaves_nothing(
    driver: str, open_store: Callable[..., Store], serve: Callable[[Store], Client], tmp_path: Path
) -> None:
    store = open_store(driver)
    client, at = serve(store), tmp_path / "at"
    with mounted(client.prepare("below-active"), at) as root:
        (root / "etc").mkdir()
        (root / "etc/old").write_text("old")
        os.chmod(root, 0o751)
        os.chown(root, 11, 12)
    client.commit("below", "below-active")
    with mounted(client.prepare("above-active", "below"), at) as root:
        (root / "etc/old").unlink()
        (root / "etc/new").write_text("new")
    client.commit("above", "above-active")
    with mounted(client.view("look", "above"), at) as root:
        assert os.listdir(root / "etc") == ["new"]
        facts = root.stat()
        assert (facts.st_mode & 0o7777, facts.st_uid, facts.st_gid) == (0o751, 11, 12)
        with pytest.raises(OSError, match="Read-only"):
            (root / "no").write_text("")
    with mounted(client.prepare("run", "above"), at) as root:
        (root / "ran").write_text("x" * 10_000)
    with mounted(client.mounts("run"), at) as root:
        assert (root / "ran").stat().st_size == 10_000
    assert client("Usage", key="run").size >= 10_000
    assert client("Usage", key="above").inodes > 0
    kinds = {info.name: (api.Kind.Name(info.kind), info.parent) for info in client("List")}
    assert kinds == {
        "below": ("COMMITTED", ""),
        "above": ("COMMITTED", "below"),
        "look": ("VIEW", "above"),
        "run": ("ACTIVE", "above"),
    }
    assert store.check() == []
    for key in ("run", "look", "above", "below"):
        client.remove(key)
    client("Cleanup")
    assert (client.keys(), store.containers(), store.snapshots.all(), store.check()) == ([], [], [], [])
    driver_home = Path(store.info().data_root) / driver
    assert not [name for name in driver_home.rglob("*") if name.name in ("new", "ran")]


def test_codes(client: Client, tmp_path: Path) -> None:
    client.layer("base", "", {"a": "a"}, tmp_path / "at")
    client.prepare("active", "base")
    for call in ("Stat", "Mounts", "Remove", "Usage"):
        with refused("NOT_FOUND"):
            client(call, key="none")
    with refused("NOT_FOUND"):
        client.prepare("new", "none")
    with refused("INVALID_ARGUMENT"):
        client.prepare("new", "active")
    with refused("ALREADY_EXISTS"):
        client.prepare("active", "base")
    with refused("ALREADY_EXISTS"):
        client.view("base")
    with refused("INVALID_ARGUMENT"):
        client.prepare("")
    with refused("FAILED_PRECONDITION"):
        client.mounts("base")
    with refused("FAILED_PRECONDITION"):
        client.remove("base")
    with refused("ALREADY_EXISTS"):
        client.commit("base", "active")
    with refused("NOT_FOUND"):
        client.commit("new", "none")
    with refused("FAILED_PRECONDITION"):
        client.commit("new", "base")
    client.view("look", "base")
    with refused("FAILED_PRECONDITION"):
        client.commit("new", "look")
    with refused("INVALID_ARGUMENT"):
        client("Commit", name="new", key="active", parent="look")
    with refused("INVALID_ARGUMENT"):
        client.prepare("new", labels={"a": "x" * 4096})
    assert client.keys() == ["active", "base", "look"]


def test_labels_and_times(client: Client) -> None:
    before = time.time_ns()
    client.prepare("a", labels={"one": "1", "two": "2", "empty": ""})
    made = client.stat("a")
    assert dict(made.labels) == {"one": "1", "two": "2"}
    assert before <= made.created_at.ToNanoseconds() == made.updated_at.ToNanoseconds() <= time.time_ns()

    def update(labels: dict[str, str], *paths: str) -> dict[str, str]:
        info = api.Info(name="a", labels=labels)
        return dict(client("Update", info=info, update_mask={"paths": paths}).info.labels)

    assert update({"one": "x", "two": "y"}, "labels.one") == {"one": "x", "two": "2"}
    assert update({"one": ""}, "labels.one", "labels.two") == {}
    assert update({"three": "3"}, "labels") == {"three": "3"}
    assert update({"four": "4"}) == {"four": "4"}
    with refused("INVALID_ARGUMENT"):
        update({}, "parent")
    with refused("NOT_FOUND"):
        client("Update", info=api.Info(name="none"))
    assert client.stat("a").created_at == made.created_at
    assert client.stat("a").updated_at.ToNanoseconds() > made.updated_at.ToNanoseconds()
    client.commit("b", "a", {"own": "1"})
    assert dict(client.stat("b").labels) == {"own": "1"}, "those of the active one are not inherited"
    assert client.stat("b").created_at.ToNanoseconds() > made.created_at.ToNanoseconds()


def test_filters(client: Client) -> None:
    client.prepare("x/1/a", labels={"containerd.io/gc.root": "2023", "plain": "p"})
    client.commit("x/2/b", "x/1/a", {"containerd.io/snapshot.ref": "sha256:1"})
    client.prepare("x/3/c", "x/2/b", {"plain": "q"})
    client.view("x/4/d", "x/2/b")
    for wanted, found in {
        ("kind==committed",): "b",
        ("kind!=committed",): "cd",
        ("kind==active", "kind==view"): "cd",
        ('name=="x/3/c"',): "c",
        ("name~=/[cd]$/",): "cd",
        ("name~=|x/3|",): "c",
        ('parent=="x/2/b",kind==view',): "d",
        ("parent==",): None,
        ("labels.plain",): "c",
        ("labels.plain!=q",): "bd",
        ('labels."plain"==q , kind==active',): "c",
        ('labels."containerd.io/snapshot.ref"==sha256:1,parent==""',): "b",
        (r'labels.plain=="\x71"',): "c",
        ("unknown",): "",
        ("",): "bcd",
        (): "bcd",
        ("kind=active",): None,
        ("kind==active,",): None,
        ('name=="x',): None,
        ("name~=[",): None,
        ("labels.plain==/q/",): None,
        ("name~=a{99999999999}",): None,
        ("name~=" + "(" * 5000,): None,
        ("name~=[[:alpha:]]",): None,
    }.items():
        if found is None:
            with refused("INVALID_ARGUMENT"):
                client.keys(*wanted)
        else:
            assert "".join(key[-1] for key in client.keys(*wanted)) == found, wanted


def test_lists_of_many_come_in_parts(client: Client) -> None:
    for number in range(230):
        client.prepare(f"{number:03}")
    assert client.keys() == [f"{number:03}" for number in range(230)]


def test_what_is_long_is_told_and_listed(client: Client) -> None:
    key = "k" * 1_000_000
    client.prepare(key)
    with refused("ALREADY_EXISTS"):
        client.prepare(key)
    with refused("NOT_FOUND"):
        client.mounts("m" * 1_000_000)
    for number in range(3):
        client.prepare(f"{number}", labels={f"label {one}": "v" * 4000 for one in range(500)})
    assert client.keys() == ["0", "1", "2", key]


@pytest.mark.parametrize("character", ["\u00e9", "\U0001f600", "%", "\n", "\0"], ids=["é", "emoji", "%", "line", "NUL"])
def test_what_grows_on_its_way_is_told_with_its_code(client: Client, character: str) -> None:
    key = character * 9000
    client.prepare(key)
    with refused("ALREADY_EXISTS"):
        client.prepare(key)
    with refused("NOT_FOUND"):
        client.mounts(f"{key}{character}")


def test_names_do_not_see_each_other(client: Client, socket: Path) -> None:
    client.prepare("a")
    with Client(socket, "another") as other:
        assert other.keys() == []
        other.prepare("a")
        other.remove("a")
    assert client.keys() == ["a"]


def test_people_do_not_meet_its_containers(client: Client, store: Store) -> None:
    client.prepare("a")
    [container] = store.containers()
    assert store.claims() == {container.id: "containerd"}
    with pytest.raises(InUse, match="lent"):
        container.mount()
    for force in (False, True):
        with pytest.raises(InUse, match="is kept by containerd"):
            container.remove(force=force)
    store.prune(containers=True, all_images=True)
    assert client.stat("a").name == "a"


def test_what_fits_in_no_page_is_mounted_here(
    client: Client, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipes, "_ROOM", 100)
    client.layer("base", "", {"a": "a"}, tmp_path / "at")
    [mount] = client.prepare("run", "base")
    assert (mount.type, list(mount.options)) == ("bind", ["rbind", "rw"])
    [view] = client.view("look", "base")
    assert (view.type, list(view.options)) == ("bind", ["rbind", "ro"])
    with mounted([mount], tmp_path / "at") as root:
        (root / "b").write_text("b")
    assert {path for _, path in store.mounted()} == {Path(mount.source), Path(view.source)}
    unmount(mount.source)  # as a reboot would
    with mounted(client.mounts("run"), tmp_path / "at") as root:
        assert sorted(os.listdir(root)) == ["a", "b"]
    with mounted(client.mounts("look"), tmp_path / "at") as root:
        assert os.listdir(root) == ["a"]
    client.commit("done", "run")
    client.remove("look")
    assert store.mounted() == []
    with mounted(client.view("last", "done"), tmp_path / "at") as root:
        assert sorted(os.listdir(root)) == ["a", "b"]
    client.remove("last")


def test_paths_that_options_cannot_say_are_mounted_here(tmp_path: Path, serve: Callable[[Store], Client]) -> None:
    place = tmp_path / "a,b:c"
    config = layerstore.Config(data_root=place / "store", exec_root=place / "exec", storage_driver="vfs")
    with layerstore.open(config=config) as store:
        [mount] = serve(store).prepare("a")
        assert (mount.type, Path(mount.source).parent.parent.parent) == ("bind", place / "store")
    lowers = tuple(("lowerdir+", f"/a/{sign}") for sign in "xyz")
    assert recipes.plain([Mount("overlay", "overlay", lowers)]) is not None
    for sign in ",:\\":
        assert recipes.plain([Mount("overlay", "overlay", (*lowers, ("upperdir", f"/{sign}")))]) is None


def test_socket(store: Store, socket: Path) -> None:
    with socket_of(socket), pytest.raises(InUse, match="somebody listens on"), Server(store, socket):
        pass
    assert socket.exists(), "as whoever dies leaves it"
    with Server(store, socket), Client(socket) as client:
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert client.keys() == []
        with pytest.raises(InUse, match="another snapshotter"), Server(store, socket):
            pass
    assert not socket.exists()
    socket.write_text("a file")
    with pytest.raises(ConfigError, match="is no socket"), Server(store, socket):
        pass
    assert socket.read_text() == "a file"
    with pytest.raises(ConfigError, match="107 bytes"):
        Server(store, socket / ("x" * 100))


@contextmanager
def socket_of(path: Path) -> Iterator[None]:
    """While inside, another program listens there; it does not clear away."""
    with sockets.socket(sockets.AF_UNIX) as other:
        other.bind(os.fspath(path))
        other.listen()
        yield


@pytest.mark.parametrize("address", ["", "foo", "127.0.0.1:80", "unix:///run/x.sock"])
def test_the_command_wants_the_path_of_a_socket(address: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "layerstore.cli", "--root", str(tmp_path / "root"), "snapshotter"]
    done = subprocess.run([*command, "--address", address], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no place of a socket\nWrite its whole path, as in /run/layerstore/snapshotter.sock" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_ends_when_it_is_told_to(open_store: Callable[..., Store], socket: Path, tmp_path: Path) -> None:
    store = open_store()
    settings = {"data-root": str(store.data_root), "exec-root": str(store.config.exec_root)}
    (tmp_path / "daemon.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "layerstore.cli", "--config", str(tmp_path / "daemon.json")]
    command += ["snapshotter", "--address", str(socket)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process, Client(socket) as client:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Listening on {socket}\n"
        client.prepare("a")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    done = subprocess.run([*command[:5], "ps", "-aq"], capture_output=True, text=True, check=True)
    assert done.stdout == "", "people do not see it"
    done = subprocess.run([*command[:5], "ps", "-aq", "--filter", "owner=containerd"], capture_output=True, text=True)
    assert len(done.stdout.split()) == 1
