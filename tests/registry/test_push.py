"""Pushing: what is sent, what is not, and what comes back out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from support import images

from .servers.debian import DockerRegistry

if TYPE_CHECKING:
    from layerstore import Image, Store

pytestmark = pytest.mark.root

LAYERS = [
    images.layer(images.folder("etc"), images.file("etc/hosts", "localhost\n"), images.file("big", bytes(300_000))),
    images.layer(images.file("etc/motd", "hello\n")),
    images.layer(images.whiteout("big"), images.file("x", "x" * 5000)),
]


@pytest.fixture
def ours(store: Store, tmp_path: Path) -> Image:
    """An image of three layers, loaded."""
    [image] = store.load(images.docker_archive(tmp_path / "ours.tar", LAYERS))
    return image


def test_what_was_pushed_can_be_read(
    store: Store, ours: Image, docker_registry: DockerRegistry, repository: str
) -> None:
    name = f"{docker_registry.host}/{repository}:1"
    ours.tag(name)
    happened: list[tuple[str, str]] = []
    pushed = store.push(name, done=lambda label, words: happened.append((label, words)))
    assert pushed.name == name
    assert {words for _, words in happened} == {"Pushed"}
    again: list[str] = []
    assert store.push(name, done=lambda _, words: again.append(words)) == pushed
    assert again == ["Layer already exists"] * 3
