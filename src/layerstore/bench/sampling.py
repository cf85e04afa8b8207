"""Which files of an image the workloads work on: chosen by chance, and the same for everybody.

The image may be anybody's. Its symlinks are never followed: only names whose every part is a plain folder are taken.
"""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path
from typing import Any, Final

from layerstore.errors import ConfigError

__all__ = ["sampled"]

_CHMOD: Final = 2000
_SMALL: Final = 64 << 10


def sampled(root: Path, seed: int) -> dict[str, Any]:
    """Names below `root` for the fields of `Inputs`."""
    files: list[str] = []
    small: list[str] = []
    taken: set[tuple[int, int]] = set()
    for folder, folders, names, fd in os.fwalk(root):
        folders.sort()
        prefix = os.path.relpath(folder, root)
        for name in sorted(names):
            facts = os.stat(name, dir_fd=fd, follow_symlinks=False)
            # Of the names of one file only the first: the others' turn would find it changed already.
            if not stat.S_ISREG(facts.st_mode) or (facts.st_dev, facts.st_ino) in taken:
                continue
            if facts.st_nlink > 1:
                taken.add((facts.st_dev, facts.st_ino))
            path = os.path.normpath(os.path.join(prefix, name))
            files.append(path)
            if 0 < facts.st_size <= _SMALL:
                small.append(path)
    if len(small) < 7:
        raise ConfigError(
            "the image has fewer than seven small files, so there is nothing to edit in it",
            remedy="Name another --image, or leave it out: then one is made.",
        )
    chosen = random.Random(seed).sample(small, 7)
    return {
        "chmod": tuple(files[:_CHMOD]),
        "modify": tuple(chosen[:5]),
        "delete": tuple(chosen[5:]),
        "folder": os.path.dirname(chosen[0]),
    }
