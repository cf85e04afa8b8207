"""What is copied is copied to the last attribute: capabilities, holes, large files, names of one inode."""

from __future__ import annotations

import os
import struct
from itertools import pairwise
from pathlib import Path

from attrs import evolve

from layerstore.driver import Layer, StorageDriver
from layerstore.testing import trees
from layerstore.testing.conformance.subject import Subject
from layerstore.testing.edits import MountedTree
from layerstore.testing.tars import Entry, file, folder
from layerstore.testing.workbench import Workbench

Bench = Workbench[StorageDriver]

CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
"""security.capability, version 2: cap_net_bind_service, effective (linux/capability.h)."""

ODD: list[Entry] = [
    file(b"capable", b"x", mode=0o755, uid=5, gid=6, xattrs={b"security.capability": CAPABILITY}),
    file(b"setuid", b"x", mode=0o6755, uid=5, gid=6, xattrs={b"user.a": b"1", b"trusted.b": b"2"}),
    file(b"unreadable", b"x", mode=0o000, uid=5, gid=6),
    folder(b"setgid", mode=0o2755, uid=5, gid=6),
    file(b"setgid/inner", b"x", mode=0o640, uid=1, gid=2),
    folder(b"sticky", mode=0o1777),
    file(b"xattrs", b"", xattrs={b"user.n%d" % number: bytes([number]) * number for number in range(1, 40)}),
]
"""What the order of calls loses."""

BEYOND = (2 << 30) + (1 << 20) + 1
"""More than one call copies (2 GiB less a page), and more than 31 bits count."""


def _without_root_time(listing: dict[str, trees.Entry]) -> dict[str, trees.Entry]:
    """It changes with every name."""
    return {**listing, "": evolve(listing[""], mtime_ns=0)}


class Copies(Subject):
    """A container begins as its image, whatever has to be copied for it."""

    def _begun(self, bench: Bench, layer: Layer, *, content: bool = True) -> None:
        """A container on it shows the same, and a layer on top too, by whatever way these are made."""
        expected = bench.listing(layer) if content else self._bare(bench, layer, ())
        box = bench.container([layer])
        with bench.mount(box, [layer]) as root:
            found = trees.listing(root, content=content)
        trees.assert_same(_without_root_time(expected), _without_root_time(found))
        top = bench.layer([layer], file(b"top", b"x"))
        shown = bench.listing(top, [layer]) if content else self._bare(bench, top, [layer])
        del shown["top"]
        trees.assert_same(_without_root_time(expected), _without_root_time(shown))

    def _bare(self, bench: Bench, layer: Layer, parents: list[Layer] | tuple[()]) -> dict[str, trees.Entry]:
        with bench.look(layer, parents) as root:
            return trees.listing(root, content=False)

    def test_attributes_that_the_order_of_calls_loses(self, bench: Bench) -> None:
        self._begun(bench, bench.layer((), folder(b".", mtime=3), *ODD))

    def test_a_change_next_to_it_leaves_them_alone(self, bench: Bench) -> None:
        """A copy-up copies them, too."""
        layer = bench.layer((), folder(b".", mtime=3), *ODD)
        expected = bench.listing(layer)
        box = bench.container([layer])
        with bench.edit(box, [layer]) as hand:
            for entry in ODD:
                hand.setxattr(entry.name, b"trusted.later", b"1")
        seen = bench.listing(box, [layer])
        for entry in ODD:
            name = entry.name.decode()
            later = tuple(sorted((*expected[name].xattrs, ("trusted.later", b"1"))))
            assert seen[name].xattrs == later
            assert (seen[name].mode, seen[name].uid) == (expected[name].mode, expected[name].uid)

    def test_holes_stay_holes(self, bench: Bench) -> None:
        made = bench.staged((), folder(b".", mtime=3))
        self._sparse(bench.tree(made) / "sparse", 64 << 20)
        layer = bench.seal(made)
        before = self._blocks(bench, layer, ())
        self._begun(bench, layer)
        box = bench.container([layer])
        with bench.mount(box, [layer]) as root, (root / "sparse").open("r+b") as target:
            target.seek(8 << 20)
            target.write(b"now")
        os.sync()
        sealed = bench.seal(box, [layer])
        assert self._blocks(bench, sealed, [layer]) <= before + (8 << 20) // 512, "a copy-up goes by pieces of some MiB"

    def test_a_file_beyond_two_gibibytes(self, bench: Bench) -> None:
        made = bench.staged((), folder(b".", mtime=3))
        self._sparse(bench.tree(made) / "sparse", BEYOND)
        layer = bench.seal(made)
        self._begun(bench, layer, content=False)
        box = bench.container([layer])
        with bench.mount(box, [layer]) as root, (root / "sparse").open("r+b") as target:
            target.seek(1 << 20)
            target.write(b"!")
            assert os.pread(target.fileno(), 9, BEYOND - 4) == b"end."
            assert os.pread(target.fileno(), 4, BEYOND // 2) == bytes(4)
        os.sync()
        assert self._blocks(bench, box, [layer]) < (64 << 20) // 512

    def _sparse(self, path: Path, size: int) -> None:
        with path.open("wb") as target:
            target.write(b"begin")
            target.seek(size // 3 & ~4095)
            target.write(os.urandom(5000))
            target.seek(size - 4)
            target.write(b"end.")
        os.utime(path, ns=(10**18, 10**18))

    def _blocks(self, bench: Bench, layer: Layer, parents: list[Layer] | tuple[()]) -> int:
        with bench.look(layer, parents) as root:
            return (root / "sparse").stat().st_blocks

    def test_names_of_one_file_in_many_folders(self, bench: Bench) -> None:
        """Copied by several threads, which come upon the names of a file at the same time, they are still one file."""
        folders = [b"d%03d" % number for number in range(160)]
        made = bench.staged((), folder(b".", mtime=3), *(folder(name) for name in folders))
        with MountedTree(bench.tree(made)) as hand:
            for above, name in pairwise(folders):
                hand.write(above + b"/shared", above * 20_000)
                hand.link(name + b"/above", above + b"/shared")
                hand.link(name + b"/again", above + b"/shared")
                for number in range(2):
                    hand.write(name + b"/own%d" % number, name)
        layer = bench.seal(made)
        for _ in range(2):
            self._begun(bench, layer)
