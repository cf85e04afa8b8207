"""A disk that is full: the line is told, nothing is left, and what was finished is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import layerstore
from layerstore.build import BuildError
from support.building import Builder

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]


def test_a_build_that_fills_the_disk(own_filesystem: Callable[..., Path], base_archive: Path, tmp_path: Path) -> None:
    folder = own_filesystem("ext4", size=96 << 20)
    settings = layerstore.Config(data_root=folder / "data", exec_root=tmp_path / "exec", storage_driver="overlay2")
    with layerstore.open(config=settings) as store:
        store.load(base_archive)
        make = Builder(store, tmp_path / "context")
        make.context({"large": b"\1" * (120 << 20), "small": "s"})
        with pytest.raises(BuildError) as caught:
            make("FROM base\nRUN echo > /done\nRUN dd if=/dev/zero of=/fill bs=1M count=200\n")
        assert b"No space left" in caught.value.output
        assert caught.value.exit_code == 1
        with pytest.raises(BuildError, match="No space left") as caught:
            make("FROM base\nRUN echo > /done\nCOPY large /\n")
        assert caught.value.place is not None
        assert caught.value.place.line == 3
        store.wait()
        make("FROM base\nRUN echo > /done\nCOPY small /\n", {"small": "s"})
        assert make.done == ["COPY small /"]
        assert store.containers() == []
        assert store.check() == []
