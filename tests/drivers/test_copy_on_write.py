"""What is changed in a container is copied, and nothing else: in bytes of the filesystem, driver by driver.

Blocks are shared on xfs and btrfs, so that one byte costs a few KiB; ext4 cannot, and copies the file. The figures for
people are in docs/copy-on-write.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from benchmarks.copy_on_write import FORMS, HOME, MIB, SIZE, measure

pytestmark = [pytest.mark.root, pytest.mark.tools("fuse-overlayfs")]

# What the filesystem itself needs for a few new inodes and its trees.
FEW = MIB

CASES = [(form, kind) for form in FORMS for kind in ("ext4", "xfs", "btrfs") if form != "btrfs" or kind == "btrfs"]


@pytest.mark.parametrize(("form", "kind"), CASES, ids=[f"{form} on {kind}".replace(", ", "-") for form, kind in CASES])
def test_only_what_is_changed_is_copied(own_filesystem: Callable[..., Path], form: str, kind: str) -> None:
    spent = measure(own_filesystem(kind, size=HOME), form.partition(",")[0], FORMS[form])
    assert spent.whole, "the image or a sibling container has changed"
    shares = kind != "ext4"
    copies_trees = form in ("vfs", "aufs, copy")
    if copies_trees and not shares:
        assert spent.container > 2 * SIZE - FEW  # all of the image, for it has no other way
    else:
        assert spent.container < FEW
    copies_file = not shares and not copies_trees
    assert (spent.write > SIZE - FEW) == copies_file
    assert (spent.chmod > SIZE - FEW) == (copies_file and "metacopy" not in form)
    for cost in (spent.write, spent.chmod):
        assert cost < FEW or cost > SIZE - FEW, "neither the file nor next to nothing"
