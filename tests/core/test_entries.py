"""What a store tells of a layer's names."""

from __future__ import annotations

import pytest

import layerstore
from core.adding import Adder
from layerstore import EntryKind, NotFound
from support import images as make

pytestmark = pytest.mark.root


def test_a_layer_is_listed_by_either_of_its_names(add: Adder, base: bytes, upper: bytes) -> None:
    image = add(base, upper)
    assert image.chain_id is not None
    by_chain = list(add.store.layer_entries(image.chain_id))
    assert by_chain == list(add.store.layer_entries(image.layers[-1]))
    assert {entry.path: entry.kind for entry in by_chain if entry.path} == {
        b"etc": EntryKind.FOLDER,
        b"etc/passwd": EntryKind.FILE,
        b"etc/group": EntryKind.REMOVAL,
        b"etc/new": EntryKind.FILE,
    }


def test_a_list_that_was_begun_ends_though_its_layer_goes(add: Adder, base: bytes) -> None:
    image = add(base, name="going")
    assert image.chain_id is not None
    listed = add.store.layer_entries(image.chain_id)
    image.remove()
    assert {entry.path for entry in listed} == {b"", b"etc", b"etc/passwd", b"etc/group", b"usr", b"usr/tool"}


def test_a_committed_layer_is_listed_as_a_loaded_one(add: Adder, base: bytes, store: layerstore.Store) -> None:
    container = store.create_container(add(base))
    with container.mount() as root:
        (root / "etc/new").write_text("new")
        (root / "usr/tool").unlink()
    image = container.commit()
    found = {entry.path: entry for entry in store.layer_entries(image.layers[-1])}
    assert found[b"etc/new"].size == 3
    assert found[b"usr/tool"].kind is EntryKind.REMOVAL


def test_a_layer_that_is_not_there_is_named(store: layerstore.Store) -> None:
    with pytest.raises(NotFound, match="no layer"):
        store.layer_entries(make.digest(b"none"))
