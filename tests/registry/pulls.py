"""Pulls in a process that is killed, or fails, at any point of them: see test_pull_crash.py.

Its arguments: data-root, the name of a repository with the tags 1 and 2, and whether blobs are kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import layerstore


def settings(data_root: Path, *, keep: bool) -> layerstore.Config:
    return layerstore.Config(
        data_root=data_root, exec_root=data_root.with_name("exec"), storage_driver="overlay2", keep_blobs=keep
    )


def run(data_root: Path, name: str, *, keep: bool) -> None:
    """An image comes, another that shares a layer with it, and both go."""
    with layerstore.open(config=settings(data_root, keep=keep)) as store:
        first = store.pull(f"{name}:1")
        second = store.pull(f"{name}:2")
        assert first.layers[0] == second.layers[0]
        assert not store.pull(f"{name}:1").is_newer
        store.remove_image(f"{name}:1")
        store.remove_image(f"{name}@{second.digest}")
        store.remove_image(f"{name}:2")


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2], keep=sys.argv[3] == "keep")
