"""One word of daemon.json makes no difference.

The same image and the same edits, under every driver, give the same tree, the same diff, byte for byte, and the same
DiffIDs.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

import layerstore
from core.adding import Adder
from layerstore.testing import trees
from layerstore.testing.strategies import posix_acl
from support import images as make

pytestmark = pytest.mark.root

WHEN = 1_700_000_100_123_456_789

FORMS = {
    "overlay2": (),
    "btrfs": (),
    "vfs": (),
    "erofs": (),
    "aufs": ("aufs.mode=fuse",),
    "aufs, copied": ("aufs.mode=copy",),
}

LOWER = make.layer(
    make.folder("etc", mode=0o750, uid=3, gid=4),
    make.file("etc/passwd", "root:x:0:0\n", xattrs={"user.note": b"lower"}),
    make.file("etc/shadow", "secret", mode=0o600),
    make.file("etc/same", "before"),
    make.file("etc/listed", "l", mode=0o600, xattrs={"system.posix_acl_access": posix_acl()}),
    make.folder("lib", mode=0o1777),
    make.file("lib/long", b"x" * 70_000),
    make.hard_link("lib/alias", "lib/long"),
    make.symlink("lib/link", "long"),
    make.symlink("lib/link-of-macos", "long", mode=0o755),
    make.device("lib/null", 1, 3),
    make.fifo("lib/pipe"),
    make.folder("opt/tree/deep"),
    make.file("opt/tree/deep/file", "deep"),
    make.file("opt/tree/other", "other"),
    make.folder("opt/replaced"),
    make.file("opt/replaced/old", "old"),
    make.file("opt/file", "a file that becomes a folder"),
    make.file("opt/touched", "t"),
    make.file("opt/moved", "m"),
    make.file("opt/target", "overwritten by a rename"),
)
UPPER = make.layer(
    make.file("etc/group", "root:x:0\n"),
    make.whiteout("opt/tree/other"),
    make.folder("opt/replaced"),
    make.opaque("opt/replaced"),
    make.file("opt/replaced/new", "new"),
    make.file("opt/added/by/implication", "i"),
    make.hard_link("opt/linked", "opt/moved"),
)
LAST = make.layer(
    make.whiteout("opt/added"),
    make.file("opt/tree/by/implication", "i"),
    make.hard_link("opt/again", "second"),
)


def edit(root: Path) -> None:
    """What programs do in a container. Symbolic links are made and removed here, and never followed."""
    with open(root / "etc/passwd", "a") as file:
        file.write("me:x:1:1\n")
    before = os.stat(root / "etc/same")
    (root / "etc/same").write_text("after!")
    os.utime(root / "etc/same", ns=(before.st_atime_ns, before.st_mtime_ns))
    os.chmod(root / "etc/shadow", 0o640)
    os.chmod(root / "etc/shadow", 0o600)
    os.chown(root / "etc/group", 7, 8)
    os.setxattr(root / "etc", "user.mark", b"\0set")
    os.unlink(root / "lib/alias")  # before the other name is written to: a copy-up of overlay parts the two
    os.truncate(root / "lib/long", 10)
    os.link(root / "lib/long", root / "lib/again")
    os.unlink(root / "lib/link")
    os.symlink("/nowhere", root / "lib/link")
    os.unlink(root / "lib/null")
    os.mknod(root / "lib/tty", stat.S_IFCHR | 0o620, os.makedev(5, 0))
    os.unlink(root / "opt/tree/deep/file")
    os.rmdir(root / "opt/tree/deep")
    os.rmdir(root / "opt/tree")
    os.mkdir(root / "opt/tree", 0o700)
    (root / "opt/tree/fresh").write_text("f")
    os.unlink(root / "opt/file")
    os.mkdir(root / "opt/file")
    (root / "opt/file/inside").write_text("i")
    os.unlink(root / "opt/replaced/new")
    os.rmdir(root / "opt/replaced")
    (root / "opt/replaced").write_text("now a file")
    with open(root / "opt/touched", "r+b"):
        pass
    os.rename(root / "opt/moved", root / "opt/target")
    (Path(os.fsdecode(os.fsencode(root) + b"/\xff\n")) / "a" / "b").mkdir(parents=True)
    with open(root / "sparse", "wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    (root / "gone").write_text("made and removed")
    os.unlink(root / "gone")


def settle(root: Path, changes: layerstore.Changes) -> None:
    """Give all that changed one time: clocks are no part of this."""
    for change in reversed(changes):
        if change.kind is not layerstore.Kind.DELETED:
            os.utime(str(root) + change.path, ns=(WHEN, WHEN), follow_symlinks=False)
    os.utime(root, ns=(WHEN, WHEN))  # its time alone is no change


@frozen
class Outcome:
    """What a driver made of the image and the edits."""

    image: dict[str, trees.Entry]
    mounted: dict[str, trees.Entry]
    changes: list[str]
    backwards: list[str]
    topmost: list[str]
    diff: str
    committed: tuple[str, ...]
    committed_live: tuple[str, ...]
    flattened: dict[str, trees.Entry]


def outcome(folder: Path, form: str) -> Outcome:
    driver = form.partition(",")[0]
    settings = layerstore.Config(
        data_root=folder / form, exec_root=folder / "exec", storage_driver=driver, storage_opts=FORMS[form]
    )
    with layerstore.open(config=settings) as store:
        image = Adder(store)(LOWER, UPPER, name="x")
        with image.mount() as root:
            seen = trees.listing(root)
        box = store.create_container(image)
        with box.mount() as root:
            edit(root)
            settle(root, box.changes())
            mounted = trees.listing(root)
            live = box.commit("live")
        diff = io.BytesIO()
        box.write_changes(diff.write)
        changes = [str(change) for change in box.changes()]
        assert [str(change) for change in box.changes(image)] == changes
        backwards = [str(change) for change in image.changes(box)]
        topmost = [str(change) for change in image.changes()]
        made = box.commit("made")
        assert list(box.changes()) == []
        assert [str(change) for change in made.changes()] == changes  # against its parent
        assert [str(change) for change in live.changes(made)] == []
        with made.mount() as root:
            flattened = trees.listing(root)
        assert store.check(content=True) == []
        return Outcome(
            image=seen,
            mounted=mounted,
            changes=changes,
            backwards=backwards,
            topmost=topmost,
            diff=hashlib.sha256(diff.getvalue()).hexdigest(),
            committed=tuple(made.chain_ids),
            committed_live=tuple(live.chain_ids),
            flattened=flattened,
        )


@pytest.mark.tools("fuse-overlayfs")
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_drivers_are_told_apart_by_nothing_but_their_name(backing: Callable[[str], Path], kind: str) -> None:
    folder = backing(kind)
    forms = [form for form in FORMS if form != "btrfs" or kind == "btrfs"]
    outcomes = {form: outcome(folder, form) for form in forms}
    expected = outcomes["overlay2"]
    assert "C /etc/same" in expected.changes
    assert "C /etc/shadow" not in expected.changes  # its mode is what it was
    turned = {"A": "D", "D": "A", "C": "C"}
    top_down = {line for line in expected.changes if line[2:].rpartition("/")[0] in ("", "/etc", "/lib")}
    assert {f"{turned[line[0]]}{line[1:]}" for line in top_down} <= set(expected.backwards)
    assert "D /opt/tree/other" in expected.topmost
    assert "C /etc/passwd" not in expected.topmost
    assert "C /opt/touched" not in expected.changes  # opened for writing, which copies it up on overlay
    for form, found in outcomes.items():
        for part in ("image", "mounted", "flattened"):
            differences = trees.differences(getattr(expected, part), getattr(found, part))
            assert not differences, f"{form}, {part}: " + "\n".join(differences)
        assert found == expected, form


@frozen
class Steps:
    """What a driver made of layers without an image: the layers, and the tree of the last."""

    layers: tuple[layerstore.StoredLayer | None, ...]
    tree: dict[str, trees.Entry]


def steps(folder: Path, form: str) -> Steps:
    """Layers one on the other: of a tar, sealed from a container, of a tar, sealed while it is mounted."""
    driver = form.partition(",")[0]
    settings = layerstore.Config(
        data_root=folder / f"{form}-steps",
        exec_root=folder / "exec",
        storage_driver=driver,
        storage_opts=FORMS[form],
    )
    with layerstore.open(config=settings) as store:

        def keep(tx: layerstore.Transaction, layer: layerstore.StoredLayer) -> None:
            store.lease(tx, layer.chain_id, owner="test", name=layer.chain_id)

        def add(tar: bytes, parent: layerstore.ChainID | None) -> layerstore.StoredLayer:
            return store.add_layer(layerstore.LayerSource(lambda: io.BytesIO(tar)), parent, record=keep)

        lower = add(LOWER, None)
        box = store.create_container(on=add(UPPER, lower.chain_id).chain_id)
        with box.mount() as root:
            edit(root)
            (root / "etc/made").touch()  # a copy-up of fuse-overlayfs alters the time of the folder: here all do
        first = box.seal(latest=WHEN, record=keep)
        with box.mount() as root:
            (root / "etc/same").write_text("after!")  # as it is, at another time
            (root / "second").write_text("2")
        second = box.seal(latest=WHEN, record=keep)
        with box.mount() as root:
            os.utime(root / "second")
        nothing = box.seal(latest=WHEN)
        assert first is not None
        assert second is not None
        third = add(LAST, second.chain_id)
        box = store.create_container(on=third.chain_id)
        with box.mount() as root:
            (root / "opt/tree/live").write_text("l")
            live = box.seal(latest=WHEN, record=keep)
        assert live is not None
        with store.open_layers(live.chain_id) as tree:
            seen = trees.listing(Path(f"/proc/self/fd/{tree}"))
        assert store.check(content=True) == []
        assert store.prune().layers == ()
        return Steps((lower, first, second, nothing, third, live), seen)


@pytest.mark.tools("fuse-overlayfs")
@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_layers_without_an_image_are_the_same_under_every_driver(backing: Callable[[str], Path], kind: str) -> None:
    folder = backing(kind)
    forms = [form for form in FORMS if form != "btrfs" or kind == "btrfs"]
    outcomes = {form: steps(folder, form) for form in forms}
    expected = outcomes["overlay2"]
    assert expected.layers[3] is None
    assert {"second", "opt/tree/live", "opt/tree/by/implication", "opt/again"} <= {
        path.lstrip("/") for path in expected.tree
    }
    for form, found in outcomes.items():
        differences = trees.differences(expected.tree, found.tree)
        assert not differences, f"{form}: " + "\n".join(differences)
        assert found == expected, form
