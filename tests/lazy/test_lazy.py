"""Lazy layers: ready before they are there, right when they are read, and ordinary in the end."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import layerstore
from layerstore import registry
from layerstore.access import Access
from layerstore.config import Config
from layerstore.digest import DiffID, of_bytes
from layerstore.errors import ConfigError, DriverNotSupported, KernelError
from layerstore.holding.passing import Given, hand_over, taken_over
from layerstore.layers.lazy import Present
from layerstore.limits import USUAL
from layerstore.seekable.index import ARTIFACT, INDEX_TYPE, LayerIndex
from layerstore.seekable.making import make
from layerstore.store import Store
from lazy.conftest import LARGE, LAYERS, SECOND, Lazies, bytes_of, gone, until
from lazy.gate import Gate
from registry.conftest import CredentialFiles
from registry.servers.memory import LAYER, MANIFEST
from registry.servers.quirks import Quirks
from registry.servers.tokens import PASSWORD, USER
from support import images, tabled
from support.faults import descriptors

pytestmark = pytest.mark.root

READ = """
import sys
try:
    sys.stdout.buffer.write(open(sys.argv[1], "rb").read())
except OSError as error:
    print(error.strerror, end="")
"""


@pytest.fixture
def gate(quirks: Quirks, pushed: str) -> Gate:
    """Closed."""
    return Gate(quirks)


@pytest.fixture
def box(lazies: Lazies, pushed: str, gate: Gate) -> Iterator[tuple[Store, Path]]:
    """A store and the tree of a container in it, of whose layers nothing has come yet."""
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        with store.create_container(image, name="box").mount() as tree:
            yield store, tree


def reader(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", READ, str(path)], stdout=subprocess.PIPE)


def said(process: subprocess.Popen[bytes]) -> bytes:
    return process.communicate(timeout=60)[0]


def waits(process: subprocess.Popen[bytes]) -> None:
    """See that a reader waits in the kernel for an answer."""
    until(lambda: b"fanotify" in Path(f"/proc/{process.pid}/stack").read_bytes())


def test_an_image_is_ready_before_its_layers_are_there(lazies: Lazies, pushed: str, gate: Gate, quirks: Quirks) -> None:
    quirks.forget()
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        assert len(store._parts.layers.lazy()) == 2
        assert sum(seen.sent for seen in quirks.requests) < sum(map(len, LAYERS)) / 20
        with store.create_container(image, name="box") as box, box.mount() as tree:
            assert (tree / "data").is_dir()
            assert (tree / "large").stat().st_size == len(LARGE)
            gate.is_open = True
            assert (tree / "etc/motd").read_text() == "hello\n"
            assert (tree / "data/7").read_bytes() == bytes_of(300_000, 7)
            assert (tree / "large").read_bytes() == LARGE
            until(lambda: not store._parts.layers.lazy())
            assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)
        assert list(store.check(content=True)) == []
        written: list[bytes] = []
        store.write_layer(image.layers[0], lambda data: written.append(bytes(data)))
        assert b"".join(written) == LAYERS[0]
        until(lambda: not lazies.processes())
        box.remove()


def test_whoever_opens_the_store_next_can_use_a_lazy_image(lazies: Lazies, pushed: str, gate: Gate) -> None:
    """Also if the first thing that it does is to make a container."""
    with lazies.open() as store:
        store.pull(pushed, lazy=True)
    lazies.kill("warden", "fetcher", "holder")
    gate.is_open = True
    with lazies.open() as store, store.create_container(pushed).mount() as tree:
        assert (tree / "etc/motd").read_text() == "hello\n"


def test_it_is_read_from_the_mirrors_of_the_name_by_which_it_was_pulled(
    lazies: Lazies, pushed: str, gate: Gate, quirks: Quirks, conf: Callable[[str], Path]
) -> None:
    conf(
        "[[registry]]\nprefix = 'x.example'\nlocation = '127.0.0.1:1'\n"
        f"[[registry.mirror]]\nlocation = '{quirks.host}'\npull-from-mirror = 'digest-only'\n"
    )
    lazies.patience = "5"
    name = f"x.example/team/app@{registry.manifest(pushed).digest}"
    with lazies.open() as store:
        image = store.pull(name, lazy=True)
        assert len(store._parts.layers.lazy()) == 2
        gate.is_open = True
        with store.create_container(image, name="box") as box, box.mount() as tree:
            assert (tree / "etc/motd").read_text() == "hello\n"


def test_what_has_to_be_whole_waits_until_it_is(lazies: Lazies, pushed: str, gate: Gate) -> None:
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        gate.is_open = True
        written: list[bytes] = []
        store.write_layer(image.layers[1], lambda data: written.append(bytes(data)))
        assert b"".join(written) == LAYERS[1]


def test_a_reader_waits_for_a_registry_no_longer_than_is_said(
    lazies: Lazies, pushed: str, gate: Gate, quirks: Quirks
) -> None:
    lazies.patience = "1"
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        with store.create_container(image).mount() as tree:
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                (tree / "etc/motd").read_text()
            gate.is_open = True
            until(lambda: said(reader(tree / "etc/motd")) == b"hello\n")


def test_wrong_bytes_are_an_error_and_are_named(box: tuple[Store, Path], gate: Gate) -> None:
    store, tree = box
    gate.spoil()
    gate.is_open = True
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        (tree / "second").read_bytes()
    problems = until(lambda: list(store.check()))
    assert {problem.kind for problem in problems} == {"damaged layer"}


def test_an_index_that_lies_of_names_and_modes_is_found_out(
    lazies: Lazies, pushed: str, gate: Gate, quirks: Quirks, tmp_path: Path
) -> None:
    """Every byte that came is right, and so is the DiffID; what was told of them was not."""
    gate.is_open = True
    lie_in_index(quirks, images.layer(images.file("etc/sudo", "hello\n"), SECOND), tmp_path)
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        until(lambda: [layer.diff_id for layer in store._parts.layers.lazy()] == [image.layers[1]])
        problems = until(lambda: list(store.check()))
        assert {problem.layer for problem in problems} == {image.layers[1]}
        assert "its index has told of it what it does not have" in problems[0].text


def lie_in_index(quirks: Quirks, tar: bytes, place: Path) -> None:
    """Have the second layer's index tell of another tar."""
    [(key, (kind, data))] = [(key, found) for key, found in quirks.manifests.items() if ARTIFACT.encode() in found[1]]
    manifest = json.loads(data)
    true = [part for part in manifest["layers"] if part["mediaType"] == INDEX_TYPE][1]
    index = LayerIndex.unpacked(quirks.blobs["team/app", true["digest"]], USUAL)
    made = make(b"", index.blob, len(tar), "none", DiffID(of_bytes(tar)), io.BytesIO(tar), place)
    assert made is not None
    packed = evolve(index, stream=made[0].stream).packed()
    true |= {"digest": quirks.put_blob("team/app", packed), "size": len(packed)}
    del quirks.manifests[key]
    quirks.put_manifest("team/app", None, manifest, kind)


def test_a_fetcher_that_is_killed_costs_nobody_anything(box: tuple[Store, Path], gate: Gate, lazies: Lazies) -> None:
    _, tree = box
    process = reader(tree / "data/3")
    waits(process)

    lazies.kill("fetcher")
    gate.is_open = True

    assert said(process) == bytes_of(300_000, 3)
    assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)


def test_a_holder_that_is_killed_is_followed_by_its_fetcher(
    box: tuple[Store, Path], gate: Gate, lazies: Lazies
) -> None:
    """Whoever waited with it gets an error and no zeros; whoever comes after it waits, and gets what is there."""
    _, tree = box
    process = reader(tree / "data/3")
    waits(process)
    before = lazies.all()

    lazies.kill("holder")
    later = reader(tree / "data/4")
    gate.is_open = True

    assert said(process) in (os.strerror(errno.EIO).encode(), bytes_of(300_000, 3))
    assert said(later) == bytes_of(300_000, 4)
    assert (tree / "large").read_bytes() == LARGE
    assert before["holder"] not in lazies.processes().values()


def test_if_holder_and_fetcher_are_killed_readers_wait_for_the_warden(
    box: tuple[Store, Path], gate: Gate, lazies: Lazies
) -> None:
    """What had been asked fails, as the kernel asks it of nobody twice; nobody reads a zero, and nobody has to open."""
    _, tree = box
    process = reader(tree / "data/3")
    waits(process)
    before = lazies.all()

    for name in ("holder", "fetcher"):
        os.kill(before[name], signal.SIGKILL)
    later = [reader(tree / f"data/{number}") for number in range(4, 8)]
    gate.is_open = True

    assert said(process) in (os.strerror(errno.EIO).encode(), bytes_of(300_000, 3))
    assert [said(one) for one in later] == [bytes_of(300_000, number) for number in range(4, 8)]
    assert (tree / "large").read_bytes() == LARGE
    assert lazies.processes().get("holder", before["warden"]) == before["warden"]


def test_a_warden_that_is_killed_is_followed_by_another(box: tuple[Store, Path], gate: Gate, lazies: Lazies) -> None:
    _, tree = box
    before = lazies.all()
    lazies.kill("warden")
    after = until(lambda: found if len(found := lazies.all()) == 3 and found["warden"] != before["warden"] else None)
    assert after["holder"] == before["holder"]
    lazies.kill("holder", "fetcher")
    gate.is_open = True
    assert (tree / "data/4").read_bytes() == bytes_of(300_000, 4)


def test_if_all_are_killed_the_next_open_takes_the_mounts_away(
    lazies: Lazies, pushed: str, gate: Gate, tmp_path: Path
) -> None:
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True)
        box = store.create_container(image, name="box")
        tree = box.mount(persistent=True).path
        program = box.launch(["sleep", "1000"], root=str(tmp_path))
    process = reader(tree / "data/3")
    waits(process)
    lazies.kill("warden", "holder", "fetcher")
    said(process)

    with lazies.open() as store:
        assert not os.path.ismount(tree)
        assert gone(program.pid)
        gate.is_open = True
        with store.container("box").mount() as again:
            assert (again / "data/3").read_bytes() == bytes_of(300_000, 3)


def test_what_one_call_is_told_of_registries_is_not_for_lazy_layers(
    lazies: Lazies,
    pushed: str,
    gate: Gate,
    quirks: Quirks,
    credential_files: CredentialFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They go on by what is kept, whoever starts their holder."""
    quirks.users = {USER: PASSWORD}
    credential_files.know(quirks.host, USER, PASSWORD)
    lazies.patience = "3"
    with lazies.open() as store:
        store.create_container(store.pull(pushed, lazy=True), name="box")
    lazies.kill("warden", "holder", "fetcher")
    (tmp_path / "none.json").write_text("{}")
    mine = Access(auth_file=tmp_path / "none.json", verify=False, host=quirks.host, username=USER, password="wrong")
    given: list[Config] = []
    run = subprocess.run

    def noted(words: Any, **options: Any) -> Any:
        if "layerstore.holding" in words:
            given.append(pickle.loads(options["input"])[1])
        return run(words, **options)

    monkeypatch.setattr(subprocess, "run", noted)
    gate.is_open = True
    with lazies.open(mine) as store:
        with pytest.raises(ConfigError, match="Log in first"):
            store.pull(pushed, lazy=True)
        with store.container("box").mount() as tree:
            assert (tree / "data/5").read_bytes() == bytes_of(300_000, 5)
    assert {(config.data_root, config.access) for config in given} == {(lazies.root, Access())}


def test_a_mount_outlives_whoever_made_it(lazies: Lazies, pushed: str, gate: Gate) -> None:
    words = f"""
import os, layerstore
from layerstore.config import Config
config = Config(data_root={str(lazies.root)!r}, exec_root={str(lazies.exec_root)!r}, storage_driver="erofs")
store = layerstore.open(config=config)
image = store.pull({pushed!r}, lazy=True)
print(store.create_container(image, name="box").mount(persistent=True).path, flush=True)
os.kill(os.getpid(), 9)
"""
    killed = subprocess.run([sys.executable, "-c", words], stdout=subprocess.PIPE, check=False)
    tree = Path(os.fsdecode(killed.stdout.strip()))
    gate.is_open = True

    assert (tree / "data/5").read_bytes() == bytes_of(300_000, 5)
    with lazies.open() as store:
        assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)
        store.container("box").remove(force=True)


def test_an_image_that_goes_takes_its_holder_along(lazies: Lazies, pushed: str, gate: Gate) -> None:
    with lazies.open() as store:
        store.pull(pushed, lazy=True).remove(force=True)
    until(lambda: not lazies.processes())
    with lazies.open() as store:
        assert list(store.check()) == []


def test_a_layer_without_an_index_comes_whole_and_that_is_said(lazies: Lazies, quirks: Quirks) -> None:
    quirks.put_image("team/plain", "1", LAYERS)
    told: list[str] = []
    with lazies.open() as store:
        store.pull(f"{quirks.host}/team/plain:1", lazy=True, told=told.append)
        assert store._parts.layers.lazy() == []
    assert len([line for line in told if "pulled whole" in line]) == 2


def test_a_table_of_contents_is_no_index_and_that_is_said(lazies: Lazies, quirks: Quirks, store: Store) -> None:
    """Such a layer can be lazy, as any other in many members, when it has one."""
    blob, notes = tabled.estargz(LAYERS[1])
    layer = {**quirks.describe("team/table", blob, f"{LAYER}+gzip"), "annotations": notes}
    tar = gzip.decompress(blob)  # which has the table
    config = quirks.describe("team/table", images.config([tar]), "application/vnd.oci.image.config.v1+json")
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}
    quirks.put_manifest("team/table", "1", manifest)
    name = f"{quirks.host}/team/table:1"
    told: list[str] = []
    with lazies.open() as mine:
        mine.pull(name, lazy=True, told=told.append)
        assert not mine.lacking()
        mine.image(name).remove(force=True)
    assert [line for line in told if "its table of contents does not say what its tar is" in line]

    store.pull(name)
    store.push(name, with_index=True)
    with lazies.open() as mine:
        image = mine.pull(name, lazy=True)
        with image.mount() as tree:
            assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)
        until(lambda: not mine.lacking())
        assert list(mine.check(content=True)) == []


def test_other_drivers_refuse_in_words(store: Store, pushed: str) -> None:
    with pytest.raises(DriverNotSupported, match="overlay2 has no lazy layers"):
        store.pull(pushed, lazy=True)


def test_what_came_is_believed_in_another_boot_as_far_as_it_was_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lazy").mkdir()
    (tmp_path / "lazy/have").write_bytes(bytes(3))
    folder = os.open(tmp_path, os.O_RDONLY)
    tar = os.open(tmp_path / "tar", os.O_RDWR | os.O_CREAT)
    with Present(folder, 20) as present:
        present.add(3)
        present.sync(tar)
        present.add(17)
    with Present(folder, 20) as present:
        assert [chunk for chunk in range(20) if present.has(chunk)] == [3, 17]
    monkeypatch.setattr("layerstore.layers.lazy.boot_id", lambda: "another")
    with Present(folder, 20) as present:
        assert list(present.missing(20)) == [chunk for chunk in range(20) if chunk != 3]
        assert present.count() == 1
    os.close(folder)
    os.close(tar)


def test_a_full_disk_leaves_no_half_note_of_what_has_come(tmp_path: Path) -> None:
    (tmp_path / "lazy").mkdir()
    (tmp_path / "lazy/have").write_bytes(bytes(3))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder, open_before = os.open(tmp_path, os.O_RDONLY), len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))  # writes are cut short as they are by a full disk
    try:
        with pytest.raises(KernelError):
            Present(folder, 20)
        assert (os.listdir(tmp_path / "lazy"), len(os.listdir("/proc/self/fd"))) == (["have"], open_before)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Present(folder, 20) as present:
        assert present.count() == 0
    os.close(folder)


def test_what_cannot_be_passed_on_leaves_no_descriptor(tmp_path: Path) -> None:
    given = Given(str(tmp_path), layerstore.Config(), 1.0, -1, -1)
    before = descriptors()
    nothing_to_pass_on: Any = [lambda: None]
    with pytest.raises((AttributeError, pickle.PicklingError)):
        hand_over(given, nothing_to_pass_on)
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        taken_over(str(folder))
    assert descriptors() == before
