"""Images of docker's and podman's stores are there where they lie, to the bit, and nothing is written to those."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layerstore
from attached import record
from layerstore import Image, Store
from layerstore.errors import ConfigError, Damaged, DriverNotSupported, InUse, NotFound
from layerstore.images import Images
from layerstore.testing import trees
from support import images as make
from support.faults import descriptors

pytestmark = pytest.mark.root

NAME, BUILT, LAYERS = record.NAME, record.BUILT, record.LAYERS
Peer = Callable[[str], Path]
Attached = Callable[..., Store]


def all_of(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything of a folder that a write would alter."""
    found: dict[str, tuple[object, ...]] = {}
    for path in (folder, *folder.rglob("*")):
        facts = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        found[str(path)] = (facts.st_ino, facts.st_mode, facts.st_nlink, facts.st_mtime_ns, facts.st_ctime_ns, content)
    return found


def tar_of(store: Store, chain: str) -> bytes:
    out = bytearray()
    store.write_layer(chain, out.extend)
    return bytes(out)


@pytest.mark.parametrize("kind", ["docker", "podman", "vfs", "containerd"])
def test_an_image_is_there_to_the_bit_and_is_used_where_it_lies(
    kind: str, place: Path, peer: Peer, attached: Attached
) -> None:
    before = all_of(peer(kind))
    store = attached(kind)

    [listed] = [image for image in store.attached_images() if NAME in image.tags]
    image = store.image(NAME)
    assert (listed.id, listed.config_bytes) == (image.id, make.config(LAYERS)) == (image.id, image.config_bytes)
    assert [tar_of(store, chain) for chain in image.chain_ids] == list(LAYERS)
    assert store.images() == [store.image(image.id)]

    with image.mount() as seen, store.browse(NAME) as tree:
        shown = trees.listing(seen)
        trees.assert_same(shown, trees.browsed(tree))
        assert (seen / "etc/motd").read_text() == "hello\n"
        assert sorted(os.listdir(seen / "bin")) == [entry.name for entry in tree.children(tree.find("/bin"))] == ["new"]
        assert tree.read("/etc/passwd") == b"root:x:0:0\nme:x:1:1\n"
    with store.create_container(NAME, name="web") as box:
        with box.mount() as root:
            (root / "etc/motd").write_text("changed\n")
            (root / "lib/implied/deep").unlink()
        assert [str(change) for change in box.changes()] == [
            *("C /etc", "C /etc/motd", "C /lib", "C /lib/implied", "D /lib/implied/deep")
        ]
        mine = box.commit("mine:1")
        box.remove()
    assert mine.layers[:-1] == image.layers
    store.save("mine:1", place / "mine.tar")
    assert store.check(content=True) == []
    assert all_of(place / kind) == before

    done = store.adopt("mine:1")

    assert (done.image.id, done.notices) == (mine.id, ())
    shutil.rmtree(place / kind)
    assert store.check(content=True) == []
    assert tar_of(store, image.chain_ids[1]) == LAYERS[1]
    with store.image("mine:1").mount() as seen:
        assert (seen / "etc/motd").read_text() == "changed\n"
        adopted = trees.listing(seen)
    assert adopted.keys() == shown.keys() - {"lib/implied/deep"}


def test_of_a_store_whose_driver_cannot_an_image_is_adopted(peer: Peer, attached: Attached, place: Path) -> None:
    peer("docker")
    store = attached("docker", driver="vfs")

    with pytest.raises(DriverNotSupported, match=r"a store by vfs cannot use the images of docker:.* where they lie"):
        store.create_container(NAME)
    done = store.adopt(NAME)

    assert done.names == (NAME,)
    shutil.rmtree(place / "docker")
    assert [tar_of(store, chain) for chain in store.image(NAME).chain_ids] == list(LAYERS)
    assert store.adopt(NAME).image.id == done.image.id


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_is_adopted_shares_its_blocks_where_that_can_be(kind: str, backing: Callable[[str], Path]) -> None:
    place = backing(kind)
    root = record.unpacked("podman", place / "podman")
    config = layerstore.Config(data_root=place / "own", exec_root=place / "run", storage_driver="overlay2")
    with layerstore.open(config=config, attach=[f"podman:{root}"]) as store:
        done = store.adopt(NAME)
        assert [tar_of(store, chain) for chain in done.image.chain_ids] == list(LAYERS)
        assert store.adopt(NAME).shared == 0
    assert done.shared == (120_000 if kind == "xfs" else 0)


def test_what_docker_removes_meanwhile_is_told_and_comes_back_with_a_load(
    peer: Peer, attached: Attached, place: Path
) -> None:
    peer("docker")
    store = attached("docker")
    image = store.image(NAME)
    box = store.create_container(NAME, name="web")
    shutil.rmtree(place / "docker/overlay2")

    for use in (lambda: box.mount().__enter__(), lambda: tar_of(store, image.chain_ids[0]), lambda: store.adopt(NAME)):
        with pytest.raises(Damaged, match=r"lies in the attached store docker:.*, which has removed it meanwhile"):
            use()
    assert {problem.kind for problem in store.check()} == {"missing layer"}

    store.load(make.docker_archive(place / "image.tar", LAYERS, [NAME]))

    assert store.check(content=True) == []
    with box.mount() as root:
        assert (root / "etc/motd").read_text() == "hello\n"
    box.remove()


def test_a_folder_that_dockers_kernel_renamed_by_a_direction_is_shown(peer: Peer, attached: Attached) -> None:
    root = peer("docker")
    store = attached("docker")
    [top] = [path.parents[1] for path in (root / "overlay2").glob("*/diff/etc/motd")]
    (top / "moved").mkdir()
    os.setxattr(top / "moved", "trusted.overlay.redirect", b"/lib")
    os.setxattr(top / "moved", "trusted.overlay.origin", b"")

    with store.image(NAME).mount() as seen, store.browse(NAME) as tree:
        assert (seen / "moved/implied/deep").read_bytes() == b"x" * 70_000
        trees.assert_same(trees.listing(seen), trees.browsed(tree))
    with store.create_container(NAME) as box, box.mount() as seen:
        assert os.listdir(seen / "moved") == ["implied"]


def test_what_is_removed_there_when_it_was_adopted_is_here(
    peer: Peer, attached: Attached, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, add = peer("docker"), Images.add
    store = attached("docker")

    def added(self: Images, *arguments: Any, **named: Any) -> Image:
        image = add(self, *arguments, **named)
        shutil.rmtree(root / "overlay2")
        return image

    monkeypatch.setattr(Images, "add", added)
    done = store.adopt(NAME)
    assert (done.names, done.shared) == ((NAME,), 0)
    with store.image(NAME).mount() as seen:
        assert (seen / "etc/motd").read_text() == "hello\n"


def test_what_is_pulled_there_again_is_found_in_its_new_folder(peer: Peer, attached: Attached, place: Path) -> None:
    root = peer("docker")
    store = attached("docker")
    image = store.image(NAME)
    with image.mount():
        pass
    for folder in list((root / "overlay2").iterdir()):
        if folder.name != "l":
            folder.rename(folder.with_name(folder.name[::-1]))
    for key in (root / "image/overlay2/layerdb/sha256").glob("*/cache-id"):
        key.write_text(key.read_text()[::-1])

    with image.mount() as seen:
        assert (seen / "etc/motd").read_text() == "hello\n"


def test_a_name_means_the_own_image_first_and_nothing_is_removed_there(
    peer: Peer, attached: Attached, place: Path
) -> None:
    peer("docker"), peer("podman")
    store = attached("docker", "podman")

    assert store.image(NAME).id == store.image(NAME).id
    with pytest.raises(InUse, match=f"{NAME} is one of the attached store docker:"):
        store.remove_image(NAME)
    with pytest.raises(NotFound, match=r"no such image: example\.org/other"):
        store.image("example.org/other")
    store.tag(BUILT, "mine:1")
    assert store.image("mine:1").tags == ("mine:1",)
    with make.docker_archive(place / "same.tar", LAYERS, ["same:1"]).open("rb") as stream:
        [loaded] = store.load(stream)
    assert all(str(folder).startswith(str(store.data_root)) for folder in loaded.folders.values())
    [own] = store.load(make.docker_archive(place / "other.tar", [make.layer(make.file("x", "y"))], [NAME]))
    assert store.image(NAME) == own
    store.remove_image(NAME)
    assert store.image(NAME).config_bytes == make.config(LAYERS)
    assert store.remove_image("mine:1")
    assert store.remove_image("same:1")
    store.prune()
    assert store.images() == []


@pytest.mark.parametrize("driver", ["overlay2", "vfs"])
def test_another_store_of_this_library_goes_on_meanwhile(driver: str, place: Path, attached: Attached) -> None:
    other = attached(driver=driver)
    [theirs] = other.load(make.docker_archive(place / "image.tar", LAYERS, [NAME]))
    root = other.data_root
    before = {str(path): path.lstat().st_ino for path in root.rglob("*")}
    config = layerstore.Config(data_root=place / "mine", exec_root=place / "run", storage_driver="overlay2")
    with layerstore.open(config=config, attach=[f"layerstore:{root}"]) as store:
        assert [image.tags for image in store.attached_images()] == [(NAME,)]
        assert store.image(NAME).id == theirs.id
        assert [tar_of(store, chain) for chain in theirs.chain_ids] == list(LAYERS)
        with store.image(NAME).mount() as seen, theirs.mount() as there:
            trees.assert_same(trees.listing(there), trees.listing(seen))
        assert {str(path): path.lstat().st_ino for path in root.rglob("*") if str(path) in before} == before
        other.tag(NAME, "later:1")
        assert store.image("later:1").id == theirs.id
        for ref in (NAME, "later:1"):
            other.remove_image(ref)
        with pytest.raises(NotFound):
            store.image("later:1")
        with pytest.raises(Damaged, match="has removed it meanwhile"):
            tar_of(store, theirs.chain_ids[0])
    assert other.check() == []


def test_of_another_store_of_this_library_nothing_stays_open(place: Path, attached: Attached) -> None:
    """Else its disk could not be unmounted for as long as the process lives."""
    other = attached(driver="overlay2")
    other.load(make.docker_archive(place / "image.tar", LAYERS, [NAME]))
    root = other.data_root
    other.close()
    config = layerstore.Config(data_root=place / "mine", exec_root=place / "run", storage_driver="overlay2")
    with layerstore.open(config=config, attach=[f"layerstore:{root}"]) as store:
        assert [image.tags for image in store.attached_images()] == [(NAME,)]
        assert [name for name in descriptors().values() if Path(name).is_relative_to(root)] == []


def test_threads_borrow_an_image_at_the_same_time(peer: Peer, attached: Attached) -> None:
    peer("docker")
    store, ready = attached("docker"), threading.Barrier(6)
    seen: list[object] = []

    def borrow() -> None:
        ready.wait()
        seen.append(store.image(BUILT))

    threads = [threading.Thread(target=borrow) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert seen == [store.image(BUILT)] * 6
    assert [image.id for image in store.images()] == [store.image(BUILT).id]


def test_without_a_tar_split_the_tar_is_made_anew_and_that_is_told(peer: Peer, attached: Attached) -> None:
    root = peer("docker")
    store = attached("docker")
    with store.image(NAME).mount() as seen:
        before = trees.listing(seen)
    store.prune()
    for split in (root / "image/overlay2/layerdb/sha256").glob("*/tar-split.json.gz"):
        split.unlink()

    with pytest.raises(DriverNotSupported, match="nothing there says what its tar was"):
        store.image(NAME)
    done = store.adopt(NAME)

    assert len(done.notices) == 3
    assert "says what its tar was, so it was made anew: sha256:" in done.notices[0]
    assert done.image.layers != tuple(map(make.digest, LAYERS))
    assert [make.digest(tar_of(store, chain)) for chain in done.image.chain_ids] == list(done.image.layers)
    with store.image(NAME).mount() as seen:
        assert trees.listing(seen) == before


def test_what_is_no_store_is_refused(place: Path, peer: Peer, attached: Attached) -> None:
    root = peer("docker")
    (place / "podman").mkdir()
    for spec, words in (
        (f"docker:{place}/nowhere", "No such file or directory"),
        (f"podman:{place}/podman", "no store of podman: it has no overlay-images and no vfs-images"),
        (f"rkt:{place}", "no kind of store 'rkt'"),
    ):
        with pytest.raises(ConfigError, match=words):
            attached(spec).attached_images()
    with pytest.raises(ConfigError, match="names no store"):
        attached("docker:")
    os.chown(root, 1234, 1234)
    with pytest.raises(ConfigError, match="it belongs to user 1234, and this is user 0"):
        attached("docker").attached_images()
