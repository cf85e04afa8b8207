"""A push and a copy, in a process that is killed or fails at any point of it: see test_push_crash.py.

Its arguments: data-root, the name to push, the folder to copy to.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import layerstore
from support import images

LAYERS = [
    images.layer(images.file("small", "small\n")),
    # Larger than what is held in memory, and than one piece of a request.
    images.layer(images.file("large", random.Random(5).randbytes(5 << 20))),
    images.layer(images.file("other", "other\n" * 1000)),
]


def settings(data_root: Path) -> layerstore.Config:
    return layerstore.Config(
        data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2", max_download_attempts=2
    )


def run(data_root: Path, name: str, folder: Path) -> None:
    """The image goes to the registry, and from there into a layout."""
    from layerstore import registry

    config = settings(data_root)
    with layerstore.open(config=config) as store:
        store.push(name)
    registry.copy(f"docker://{name}", f"oci:{folder}", config=config)


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
