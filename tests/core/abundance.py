"""A store with one of everything, and all that can be seen of a store from outside: for what must not change either.

As a program (`python abundance.py DATA_ROOT TO`) it converts a store, to be killed while it does; `plain` of
these tests counts as a driver there, too.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import layerstore
from layerstore import plugins
from layerstore.testing.trees import listing
from support import images as make

PLAIN = "core.plain:Plain"


def entries() -> dict[str, str]:
    """The drivers that are installed, and the one of these tests."""
    return {**_installed(), "plain": PLAIN}


_installed = plugins._entries


def settings(data_root: Path, driver: str | None = None) -> layerstore.Config:
    return layerstore.Config(data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver=driver)


def layers() -> dict[str, bytes]:
    """Tars of layers, odd in many ways."""
    return {
        "base": make.layer(
            make.folder("./", mode=0o755, xattrs={"user.root": b"yes"}),
            make.folder("etc/", mode=0o750, uid=3),
            make.file("etc/passwd", "root:x:0:0\n"),
            make.file("etc/group", "root:x:0\n"),
            make.folder("etc/conf.d/"),
            *(make.file(f"etc/conf.d/{number}", str(number) * 100) for number in range(30)),
            make.folder("usr/"),
            make.file("usr/tool", b"#!/bin/sh\n", mode=0o4755, xattrs={"security.capability": CAPABILITY}),
            make.hard_link("usr/tool2", "usr/tool"),
            make.symlink("usr/link", "../etc/passwd"),
            make.fifo("usr/fifo", mode=0o600),
            make.device("usr/null", 1, 3, mode=0o666),
            make.folder("old/"),
            make.file("old/1", "one"),
            make.folder("old/deep/"),
            make.file("old/deep/2", "two", mtime=1_600_000_000.123456789),
            make.file("large", bytes(range(256)) * 4096),
        ),
        "upper": make.layer(
            make.folder("etc/", mode=0o750, uid=3),
            make.file("etc/passwd", "root:x:0:0\nme:x:1:1\n"),
            make.whiteout("etc/group"),
            make.hard_link("etc/alias", "etc/passwd"),
            make.folder("old/"),
            make.opaque("old"),
            make.file("old/new", "n"),
        ),
        "links": make.layer(make.hard_link("usr/tool3", "usr/tool"), make.whiteout("nothing")),
        "twice": make.layer(make.file("twice", "first"), make.file("twice", "second"), make.file("etc/implied/x", "y")),
        "other": make.layer(make.folder("etc/", mode=0o700), make.file("etc/group", "g"), make.folder("usr/")),
        "alone": make.layer(make.opaque(""), make.file("alone", "a")),
    }


CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
IMAGES = {
    "one:1": ("base", "upper", "links", "twice"),
    "two:1": ("other", "upper"),
    "three:1": ("base", "alone", "upper", "upper"),
}


def edit(root: Path) -> None:
    """Changes of every kind. `root` shows the image one:1."""
    (root / "etc/passwd").write_text("altered\n")
    (root / "etc/conf.d/3").unlink()
    os.rename(root / "etc/conf.d/4", root / "etc/moved")
    for name in os.listdir(root / "etc/conf.d"):
        if name.startswith("1"):
            (root / "etc/conf.d" / name).unlink()
    (root / "old/new").unlink()
    (root / "old").rmdir()
    (root / "old").mkdir(mode=0o711)
    (root / "old/again").write_text("again")
    (root / "usr/link").unlink()
    (root / "usr/link").write_text("no link now")
    (root / "usr/fifo").unlink()
    (root / "usr/fifo").mkdir()
    (root / "usr/fifo/inside").write_bytes(b"\0" * 5000)
    os.unlink(root / "usr/null")
    os.symlink("nowhere", root / "usr/null")
    os.link(root / "etc/alias", root / "etc/alias2")  # of a lower file, which is not altered
    (root / "a").write_text("linked")
    os.link(root / "a", root / "z")
    os.link(root / "a", root / "usr/m")
    (root / "usr/tool").write_text("three names")
    os.chmod(root / "usr/tool", 0o2755)
    os.setxattr(root / "usr", "user.mark", b"m")
    os.setxattr(root / "large", "trusted.mark", b"of root")
    os.chown(root / "twice", 7, 8)
    os.mkfifo(root / "pipe", 0o620)
    os.mknod(root / "zero", 0o20640, os.makedev(1, 5))
    with open(root / "holes", "wb") as file:
        file.seek(3_000_000)
        file.write(b"end")
    (root / os.fsdecode(b"\xff\xfe")).write_text("no UTF-8")
    (root / ("l" * 200) / ("m" * 200)).mkdir(parents=True)
    os.utime(root / "usr", ns=(5, 1_500_000_000_987_654_321))
    os.utime(root / "a", ns=(5, 1_400_000_000_000_000_001))


def fill(store: layerstore.Store, folder: Path) -> None:
    """Images that share diffs, containers with changes and without, one that was committed, one from nothing."""
    tars = layers()
    for name, parts in IMAGES.items():
        archive = folder / f"{name[:-2]}.tar"
        make.docker_archive(archive, [tars[part] for part in parts], [name])
        store.load(archive)
    store.tag("one:1", "registry.example/one:again")
    with store.create_container("one:1", name="edited").mount() as root:
        edit(root)
    store.create_container("one:1", name="untouched")
    store.create_container("two:1", name="never-mounted")
    box = store.create_container("three:1", name="committed")
    with box.mount() as root:
        (root / "alone").unlink()
        (root / "committed").write_text("c")
    box.commit("made:1", message="m")
    with box.mount() as root:
        (root / "later").write_text("l")
        os.chmod(root, 0o700)
        os.utime(root, ns=(1, 1_300_000_000_000_000_000))
    with store.create_container(name="nothing").mount() as root:
        (root / "hello").write_text("h")
        (root / "folder").mkdir()
    store.create_container(name="nothing-at-all")
    store.import_tar(io.BytesIO(tars["base"]))  # an image without a name
    with store.container("untouched").mount():
        pass
    build(store, tars)


def build(store: layerstore.Store, tars: dict[str, bytes]) -> None:
    """Layers that no image has, kept by leases, and a container on one."""

    def keep(tx: layerstore.Transaction, layer: layerstore.StoredLayer) -> None:
        store.lease(tx, layer.chain_id, owner="build", name=f"{len(store.leases('build'))}")

    top = None
    for part in ("base", "upper", "twice"):
        source = layerstore.LayerSource(partial(io.BytesIO, tars[part]))
        top = store.add_layer(source, top and top.chain_id, record=keep)
    assert top is not None
    box = store.create_container(on=top.chain_id, name="built")
    for step in ("a", "b"):
        with box.mount() as root:
            (root / f"step-{step}").write_text(step)
            (root / "etc/passwd").unlink(missing_ok=True)
        box.seal(record=keep)
    with box.mount() as root:
        (root / "unsealed").write_text("u")


def seen(store: layerstore.Store, *, trees: bool = True) -> dict[str, Any]:
    """All that can be seen of a store, whatever its driver is. `trees`: which mounts every container."""
    facts: dict[str, Any] = {"check": [str(problem) for problem in store.check(content=True)]}
    for image in store.images():
        saved = io.BytesIO()
        store.save(image, saved)
        facts[image.id] = (image.tags, image.layers, image.parent, image.history, digest(saved.getvalue()))
        if trees:
            with image.mount() as root:
                facts[f"tree of {image.id}"] = listing(root)
    facts["leases"] = leases = dict(store.leases("build"))
    for name, chain in leases.items() if trees else ():
        with store.open_layers(chain) as root:
            facts[f"tree of lease {name}"] = (listing(Path(f"/proc/self/fd/{root}")), store.layer(chain))
    for box in store.containers():
        facts[box.name] = (box.id, box.image_id, box.image_name, box.created, box.size_limit)
        facts[f"changes of {box.name}"] = [str(change) for change in box.changes()]
        facts[f"diff of {box.name}"] = digest_of(box.write_changes)
        if trees:
            with box.mount() as root:
                facts[f"tree of {box.name}"] = listing(root)
    return facts


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_of(write_to: Callable[[Any], object]) -> str:
    found = hashlib.sha256()
    write_to(found.update)
    return found.hexdigest()


if __name__ == "__main__":
    plugins._entries = entries
    layerstore.migrate(sys.argv[2], config=settings(Path(sys.argv[1])))
