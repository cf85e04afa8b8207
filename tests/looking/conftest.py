"""Images to look into, made of tars that Python's own tarfile wrote."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

import layerstore
from layerstore import Image, Store
from layerstore.testing.filesystems import Filesystems
from support import images as make
from tar.conftest import Scratch, scratch_on

Build = Callable[..., Image]


@pytest.fixture
def build(store: Store) -> Build:
    """`build(("RUN make", tar), ("ENV A=b", None), name="x")`: an image with these lines; None makes no layer."""

    def built(*steps: tuple[str, bytes | None], name: str | None = None) -> Image:
        tars = [tar for _, tar in steps if tar is not None]
        history: list[dict[str, Any]] = [
            {"created": f"2024-01-02T03:04:{number:02}Z", "created_by": line, "empty_layer": tar is None}
            for number, (line, tar) in enumerate(steps)
        ]
        config = make.config(tars, history=history)
        return store.add(config, list(sources(tars)), [name] if name else [])

    return built


def sources(tars: Sequence[bytes]) -> Iterator[layerstore.LayerSource]:
    """Where the tars can be read."""
    for tar in tars:
        yield layerstore.LayerSource(open=_opener(tar))


def _opener(tar: bytes) -> Callable[[], AbstractContextManager[io.BytesIO]]:
    @contextmanager
    def opened() -> Iterator[io.BytesIO]:
        yield io.BytesIO(tar)

    return opened


@pytest.fixture(scope="session")
def scratch(filesystems: Filesystems) -> Scratch:
    """`with scratch() as folder`: an empty folder on ext4, gone afterwards."""
    return scratch_on(filesystems, "ext4")
