"""Layers: kept once, shared where they may be, mended, given out as they came, gone when nobody needs them."""

from __future__ import annotations

import errno
import io
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore.digest import ChainID, DiffID
from layerstore.driver import Layer
from layerstore.errors import Damaged, DepthExceeded, DigestMismatch, InUse, InvalidArchive, LayerstoreError
from layerstore.images import Image
from layerstore.layers import rows
from layerstore.layers.relay import relay
from layerstore.store import Store
from layerstore.testing import trees
from layerstore_overlay2 import Overlay2
from support import images as make
from support.faults import descriptors

pytestmark = pytest.mark.root

Content = Callable[[Image], dict[str, str]]
Leftovers = Callable[[], Sequence[str]]


def given_out(store: Store, chain: ChainID) -> bytes:
    out = bytearray()
    store.write_layer(chain, out.extend)
    return bytes(out)


def known(store: Store, chains: Sequence[ChainID]) -> list[bool]:
    """Which of these layers have a row, and are not noted as damaged."""
    with store._parts.database.read() as tx:
        found = rows.find(tx, chains)
    return [chain in found and not found[chain].damaged for chain in chains]


def diffs(store: Store, data_root: Path) -> int:
    """How many diffs are kept, by the folders of the home."""
    return sum(not path.name.startswith(".") for path in (data_root / "overlay2").iterdir())


def test_loaded_layers_are_what_they_were(
    store: Store, add: Adder, base: bytes, upper: bytes, read_back: Content
) -> None:
    image = add(base, upper, name="a")
    assert read_back(image) == {"etc/passwd": "root:x:0:0\nme:x:1:1\n", "etc/new": "new", "usr/tool": "#!/bin/sh\n"}
    assert [given_out(store, chain) for chain in image.chain_ids] == [base, upper]
    assert [store._layers.size(chain) for chain in image.chain_ids] == [len(base), len(upper)]
    assert image.size == len(base) + len(upper)
    assert store.check(content=True) == []


def test_layer_that_is_there_is_not_read_again(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path
) -> None:
    add(base, upper)
    used = trees.disk_usage(data_root / "overlay2")
    add.read.clear()
    third = make.layer(make.file("third", "3"))
    add(base, upper, third)
    assert add.read == [make.digest(third)]
    add.read.clear()
    add(base, upper)
    assert add.read == []
    assert diffs(store, data_root) == 3
    assert trees.disk_usage(data_root / "overlay2") - used < 32 << 10


def test_same_diff_twice_in_one_image_is_kept_once(
    store: Store, add: Adder, base: bytes, data_root: Path, read_back: Content
) -> None:
    twice = make.layer(make.folder("x/"), make.file("x/y", "y"), make.whiteout("etc/group"))
    between = make.layer(make.file("x/y", "between"), make.file("etc/group", "again"))
    image = add(base, twice, between, twice)
    assert add.read.count(make.digest(twice)) == 1
    assert diffs(store, data_root) == 3
    assert len(set(image.chain_ids)) == 4
    assert read_back(image) == {"etc/passwd": "root:x:0:0\n", "usr/tool": "#!/bin/sh\n", "x/y": "y"}
    with store.create_container(image) as box:
        with box.mount() as root:
            (root / "x/y").unlink()
        assert [str(change) for change in box.changes()] == ["C /x", "D /x/y"]


def test_same_diff_on_other_parents_is_shared(
    store: Store, add: Adder, base: bytes, data_root: Path, read_back: Content
) -> None:
    other = make.layer(make.folder("./"), make.file("only", "here"))
    common = make.layer(make.folder("./"), make.folder("x/"), make.file("x/y", "y"))
    one, two = add(base, common), add(other, common)
    assert add.read.count(make.digest(common)) == 1
    assert diffs(store, data_root) == 3
    assert read_back(two) == {"only": "here", "x/y": "y"}
    one.remove(force=True)
    assert read_back(two) == {"only": "here", "x/y": "y"}
    assert store.check(content=True) == []


def test_implied_directories_look_as_in_the_parents_of_each_stack(
    store: Store, add: Adder, base: bytes, data_root: Path
) -> None:
    other = make.layer(make.folder("etc/", mode=0o700, uid=7), make.file("etc/x", ""))
    implied = make.layer(make.file("etc/deep/file", "f"))
    add(base, implied)
    add(other, implied)
    assert add.read.count(make.digest(implied)) == 1, "made from the one that is there"
    by_layers = {image.layers: image for image in store.images()}
    for layers, mode, owner in (((base, implied), 0o750, 3), ((other, implied), 0o700, 7)):
        with by_layers[tuple(DiffID(make.digest(layer)) for layer in layers)].mount() as root:
            facts = (root / "etc").stat()
            assert (facts.st_mode & 0o777, facts.st_uid) == (mode, owner)
    assert store.check(content=True) == []


def test_hard_link_to_a_lower_layer_is_resolved(store: Store, add: Adder, base: bytes, read_back: Content) -> None:
    linked = make.layer(make.folder("etc/", mode=0o750, uid=3), make.hard_link("etc/alias", "etc/passwd"))
    image = add(base, linked)
    assert read_back(image)["etc/alias"] == "root:x:0:0\n"
    assert given_out(store, image.chain_ids[1]) == linked
    changed = make.layer(make.folder("./"), make.folder("etc/", mode=0o750, uid=3), make.file("etc/passwd", "other"))
    assert read_back(add(changed, linked))["etc/alias"] == "other"
    assert store.check(content=True) == []


def test_hard_link_to_nothing_is_refused(store: Store, add: Adder, base: bytes, leftovers: Leftovers) -> None:
    with pytest.raises(InvalidArchive):
        add(base, make.layer(make.hard_link("alias", "no/such/file")))
    assert store.images() == []
    store.close()
    assert leftovers() == []


def test_opaque_root_hides_everything_below(store: Store, add: Adder, base: bytes, read_back: Content) -> None:
    root_of = make.layer(make.folder("./", mode=0o711, uid=9), make.file("old", "o"))
    image = add(base, root_of, make.layer(make.opaque(""), make.file("new", "n")), make.layer(make.file("more", "m")))
    assert read_back(image) == {"new": "n", "more": "m"}
    with store.create_container(image) as box:
        with box.mount() as root:
            assert sorted(os.listdir(root)) == ["more", "new"]
            # What is hidden is what is in it: the directory itself stays as it was.
            assert (root.stat().st_mode & 0o7777, root.stat().st_uid) == (0o711, 9)
        assert list(box.changes()) == []


@pytest.mark.parametrize("bad", ["digest", "cut", "rubbish", "raises"])
def test_bad_layer_leaves_no_trace(
    store: Store, add: Adder, base: bytes, upper: bytes, leftovers: Leftovers, bad: str
) -> None:
    config = make.config([base, upper])
    layer = {"digest": make.layer(make.file("x", "y")), "cut": upper[: len(upper) // 2], "rubbish": b"x" * 4096}.get(
        bad
    )

    def failing() -> io.BytesIO:
        raise OSError("the disk is gone")

    sources = [
        layerstore.LayerSource(open=lambda: io.BytesIO(base)),
        layerstore.LayerSource(open=failing if layer is None else lambda: io.BytesIO(layer)),
    ]
    expected: type[Exception] = OSError if layer is None else InvalidArchive
    with pytest.raises(expected) as caught:
        add.images.add(config, sources, ["a"])
    if bad == "digest":
        assert isinstance(caught.value, DigestMismatch)
        assert caught.value.layer == make.digest(upper)
    assert store.images() == []
    assert store.check() == []
    store.close()
    assert leftovers() == []


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_sources_are_told_before_they_are_read_in_their_order(
    settings: layerstore.Config, base: bytes, upper: bytes, driver: str
) -> None:
    """Only those that are going to be read: what the store has is not expected."""
    layers = [base, upper, make.layer(make.file("x", b"x" * 100_000))]
    told: list[str] = []

    def source(number: int) -> layerstore.LayerSource:
        def opened() -> io.BytesIO:
            told.append(f"read {number}")
            return io.BytesIO(layers[number])

        return layerstore.LayerSource(
            open=opened, size=len(layers[number]), expect=lambda: told.append(f"expected {number}")
        )

    with layerstore.open(config=evolve(settings, storage_driver=driver)) as store:
        store.add(make.config(layers[:1]), [source(0)])
        told.clear()
        store.add(make.config(layers), [source(number) for number in range(3)])
    # The largest first, where that can be.
    order = [2, 1] if driver == "overlay2" else [1, 2]
    assert told[:2] == [f"expected {number}" for number in order]
    assert sorted(told[2:]) == ["read 1", "read 2"]


def test_who_waits_for_a_layer_is_told_that_another_failed(add: Adder) -> None:
    given_up = threading.Event()

    class Waiting(io.RawIOBase):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            assert given_up.wait(10)
            raise OSError("given up")

    one, two = make.layer(make.file("a")), make.layer(make.file("b"))
    sources = [
        layerstore.LayerSource(open=Waiting, abandon=given_up.set),
        layerstore.LayerSource(open=lambda: io.BytesIO(b"x" * 2048)),
    ]
    with pytest.raises(InvalidArchive):
        add.images.add(make.config([one, two]), sources)
    assert given_up.is_set()


def test_first_failure_stops_the_other_layers(store: Store, add: Adder) -> None:
    endless_read = 0

    class Endless(io.RawIOBase):
        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            nonlocal endless_read
            endless_read += 1
            header = make.layer(make.file("big", b"0" * 512))[:512]
            buffer[: len(header)] = header
            return len(header)

    one, two = make.layer(make.file("a")), make.layer(make.file("b"))
    sources = [layerstore.LayerSource(open=Endless), layerstore.LayerSource(open=lambda: io.BytesIO(b"x" * 2048))]
    with pytest.raises(InvalidArchive):
        add.images.add(make.config([one, two]), sources)
    before = endless_read
    assert threading.active_count() < 10
    assert endless_read == before


@pytest.mark.parametrize("wrong", ["other bytes", "cut short", "no tar"])
@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_what_turns_out_to_be_wrong_is_read_from_a_surer_place(
    data_root: Path, base: bytes, upper: bytes, wrong: str, driver: str
) -> None:
    bad = {"other bytes": base.replace(b"root:x", b"mine:x"), "cut short": base[:1500], "no tar": b"<html>" * 200}
    sources = [
        layerstore.LayerSource(
            open=lambda: nullcontext(io.BytesIO(bad[wrong])), instead=lambda: nullcontext(io.BytesIO(base))
        ),
        layerstore.LayerSource(open=lambda: nullcontext(io.BytesIO(upper))),
    ]
    settings = layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver)
    with layerstore.open(config=settings) as store:
        with store.add(make.config([base, upper]), sources).mount() as root:
            assert (root / "etc/passwd").read_text() == "root:x:0:0\nme:x:1:1\n"
        assert os.listdir(store._parts.session.folder) == []
        assert store.check(content=True) == []


def test_number_of_layers_must_be_that_of_the_config(store: Store, add: Adder, base: bytes) -> None:
    with pytest.raises(InvalidArchive, match="names 2 layers, its manifest 1"):
        add(base, config=make.config([base, base]))


def test_too_deep_is_refused_before_anything_is_made(
    store: Store, add: Adder, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    driver = store._parts.storage.driver
    monkeypatch.setattr(driver, "capabilities", evolve(driver.capabilities, max_depth=2))
    layers = [make.layer(make.file(str(number))) for number in range(3)]
    with pytest.raises(DepthExceeded, match="3 layers"):
        add(*layers)
    assert add.read == []
    image = add(*layers[:2])
    with store.create_container(image) as box:
        with box.mount() as root:
            (root / "x").touch()
        with pytest.raises(DepthExceeded, match="3 layers"):
            box.commit()
    assert store.check() == []


def damage(data_root: Path, store: Store, image: Image, path: str) -> Path:
    key = store._layers.stack(image.chain_ids[0]).layers[0].key
    return data_root / "overlay2" / key / "diff" / path


@pytest.mark.parametrize("how", ["emptied", "missing file", "missing layer", "missing skeleton", "cut skeleton"])
def test_damaged_layer_is_found_and_unpacked_anew(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path, read_back: Content, how: str
) -> None:
    image = add(base, upper, name="a")
    whole = read_back(image)
    file = damage(data_root, store, image, "usr/tool")
    skeleton = data_root / "skeletons" / file.parents[2].name
    if how == "emptied":
        os.truncate(file, 0)
    elif how == "missing file":
        file.unlink()
    elif how == "missing layer":
        file.parents[2].rename(data_root.with_name("elsewhere"))
    elif how == "missing skeleton":
        skeleton.unlink()
    else:
        os.truncate(skeleton, skeleton.stat().st_size // 2)
    problems = store.check()
    assert problems
    assert {problem.layer for problem in problems} == {make.digest(base)}
    add.read.clear()
    add(base, upper)
    assert add.read == [make.digest(base)]
    assert store.check(content=True) == []
    assert read_back(image) == whole


def test_what_cannot_be_saved_names_the_layer_whose_folder_is_gone(
    store: Store, add: Adder, base: bytes, data_root: Path, tmp_path: Path
) -> None:
    image = add(base)
    damage(data_root, store, image, "usr/tool").parents[2].rename(data_root.with_name("elsewhere"))

    with pytest.raises(layerstore.Damaged, match=f"layer {make.digest(base)}: the layer's folder is missing"):
        store.save([image], tmp_path / "out.tar")
    assert not (tmp_path / "out.tar").exists()


def test_damage_that_only_reading_finds(store: Store, add: Adder, base: bytes, data_root: Path) -> None:
    image = add(base)
    file = damage(data_root, store, image, "usr/tool")
    facts = file.stat()
    file.write_bytes(b"#!/bin/no\n")
    os.chmod(file, facts.st_mode)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert store.check() == []
    problems = store.check(content=True)
    assert [problem.path for problem in problems] == ["/usr/tool"]
    add.read.clear()
    add(base)
    assert add.read == [make.digest(base)]
    assert store.check(content=True) == []


def test_check_goes_on_where_the_driver_fails_at_a_layer(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = add(base, upper)
    damage(data_root, store, image, "usr/tool").unlink()
    odd = store._layers.stack(image.chain_ids[1]).layers[0]
    tree = Overlay2.tree
    monkeypatch.setattr(Overlay2, "tree", lambda driver, layer: 1 / 0 if layer == odd else tree(driver, layer))
    assert {problem.layer for problem in store.check()} == set(image.layers)


def test_damage_found_while_giving_out_is_remembered(store: Store, add: Adder, base: bytes, data_root: Path) -> None:
    image = add(base)
    damage(data_root, store, image, "usr/tool").write_bytes(b"#!/bin/no\n")
    with pytest.raises(Damaged, match="usr/tool"):
        given_out(store, image.chain_ids[0])
    assert known(store, image.chain_ids) == [False]
    add(base)
    assert known(store, image.chain_ids) == [True]
    assert given_out(store, image.chain_ids[0]) == base


def test_mending_reaches_every_stack_that_shares_the_diff(
    store: Store, add: Adder, base: bytes, data_root: Path, read_back: Content
) -> None:
    common = make.layer(make.folder("./"), make.folder("x/"), make.file("x/y", "y"))
    other = make.layer(make.folder("./"), make.file("only", "here"))
    add(base, common)
    two = add(other, common)
    key = store._layers.stack(two.chain_ids[1]).layers[0].key
    (data_root / "overlay2" / key / "diff/x/y").unlink()
    add(base, common)
    assert read_back(two)["x/y"] == "y"
    assert store.check(content=True) == []
    assert diffs(store, data_root) == 3


def test_damaged_layer_stays_while_it_is_mounted(store: Store, add: Adder, base: bytes, data_root: Path) -> None:
    image = add(base)
    file = damage(data_root, store, image, "usr/tool")
    with store.create_container(image) as box, box.mount() as root:
        os.truncate(file, 0)
        add(base)
        assert file.exists()
        assert (root / "etc/passwd").read_text() == "root:x:0:0\n"
    with box.mount() as root:
        assert (root / "usr/tool").read_bytes() == b"#!/bin/sh\n"
    store.prune()
    assert not file.exists()
    assert store.check(content=True) == []


def test_leased_layer_outlives_its_image(store: Store, add: Adder, base: bytes) -> None:
    image = add(base)
    with store._layers.lease([("layer", image.chain_ids[0])], "a test"):
        image.remove()
        assert known(store, image.chain_ids) == [True]
        assert given_out(store, image.chain_ids[0]) == base
    store.prune()
    assert known(store, image.chain_ids) == [False]


def test_shared_layers_go_with_the_last_image(
    store: Store, add: Adder, base: bytes, upper: bytes, leftovers: Leftovers
) -> None:
    one, two = add(base, name="one"), add(base, upper, name="two")
    store.remove_image("one")
    assert known(store, two.chain_ids) == [True, True]
    store.remove_image("two")
    assert known(store, one.chain_ids) == [False]
    store.close()
    assert leftovers() == []


def test_layer_that_cannot_be_removed_keeps_no_other_from_going(
    store: Store, add: Adder, base: bytes, upper: bytes, leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may refuse with any error of this library: something is mounted in a layer, say."""
    image = add(base, upper)
    busy = store._layers.stack(image.chain_ids[1]).layers[0]
    remove = Overlay2.remove

    def refusing(driver: Overlay2, layer: Layer) -> None:
        if layer == busy:
            raise InUse("something is mounted in it", holders=(), remedy="Unmount it.")
        remove(driver, layer)

    with monkeypatch.context() as patched:
        patched.setattr(Overlay2, "remove", refusing)
        with pytest.raises(InUse, match="mounted"):
            image.remove()
        store.wait()
        assert [name for name in leftovers() if len(name) == 32] == [busy.key]
    store.close()
    with layerstore.open(config=store.config):  # it was noted that there is something left
        pass
    assert leftovers() == []


def test_skeletons_go_without_room_for_another_name(
    store: Store, add: Adder, base: bytes, leftovers: Leftovers, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = add(base)
    rename = os.rename

    def full(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        if "skeletons" in os.fspath(source):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source)
        rename(source, target)

    monkeypatch.setattr(os, "rename", full)
    image.remove()
    store.close()
    assert leftovers() == []


def test_staged_layers_are_used_or_discarded(
    store: Store, add: Adder, base: bytes, upper: bytes, leftovers: Leftovers, read_back: Content
) -> None:
    layers = store._layers
    with layers.writeback():
        tars = [layers.stage(io.BytesIO(data)) for data in (base, upper, base)]
    staged = {tar.diff_id: tar for tar in tars}
    assert staged.keys() == {make.digest(base), make.digest(upper)}
    extra = layers.stage(io.BytesIO(make.layer(make.file("extra"))))
    assert (extra.size, extra.entries) == (len(make.layer(make.file("extra"))), 1)
    image = add.images.add_staged(make.config([base, upper]), staged, ["a"])
    again = add.images.add_staged(make.config([base]), staged, ["b"])
    with pytest.raises(InvalidArchive, match="neither in the archive nor in the store"):
        add.images.add_staged(make.config([base, make.layer()]), staged, [])
    for tar in (*tars, extra):
        layers.discard(tar)
        layers.discard(tar)
    assert "etc/new" in read_back(image)
    assert again.layers == image.layers[:1]
    assert store.check(content=True) == []
    store.prune(all_images=True)
    store.close()
    assert leftovers() == []


def test_staging_verifies(store: Store, base: bytes, leftovers: Leftovers) -> None:
    with pytest.raises(DigestMismatch):
        store._layers.stage(io.BytesIO(base), expected=DiffID("sha256:" + "0" * 64))
    with pytest.raises(LayerstoreError):
        store._layers.stage(io.BytesIO(base[:700]))
    store.close()
    assert leftovers() == []


def test_two_threads_load_a_diff_once(store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path) -> None:
    failures: list[BaseException] = []

    def load() -> None:
        try:
            add(base, upper)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(add.read) == sorted([make.digest(base), make.digest(upper)])
    assert diffs(store, data_root) == 2


def test_progress_tells_each_layer_to_its_end(store: Store, add: Adder, base: bytes, upper: bytes) -> None:
    told: dict[str, tuple[int, int | None]] = {}
    sources = [
        layerstore.LayerSource(open=lambda data=data: io.BytesIO(data), size=len(data), label=label)
        for label, data in (("base", base), ("upper", upper))
    ]
    add.images.add(
        make.config([base, upper]), sources, progress=lambda label, done, total: told.update({label: (done, total)})
    )
    assert told == {"base": (len(base), len(base)), "upper": (len(upper), len(upper))}
    told.clear()
    add.images.add(
        make.config([base, upper]), sources, progress=lambda label, done, total: told.update({label: (done, total)})
    )
    assert told == {"base": (len(base), len(base)), "upper": (len(upper), len(upper))}


def test_what_was_read_when_its_image_went_goes_with_the_next_that_does(
    store: Store, add: Adder, base: bytes, upper: bytes, data_root: Path
) -> None:
    first, second = add(base, name="first"), add(upper, name="second")
    assert first.chain_id is not None
    key = store._layers.stack(first.chain_id).diffs[0].key
    with store._layers.lease([("diff", key)], "being read"):
        first.remove()
        store.wait()
        assert diffs(store, data_root) == 2
    second.remove()
    store.wait()
    assert diffs(store, data_root) == 0
    assert store.check() == []


def test_a_relay_for_which_there_is_no_thread_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fails)
        with pytest.raises(RuntimeError), relay(lambda write: write(memoryview(b"x"))):
            pass
    assert descriptors() == before
