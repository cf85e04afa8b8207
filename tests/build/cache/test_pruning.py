"""What goes when room is wanted: the longest unused first, from the top of a chain down, and never what is used."""

from __future__ import annotations

import json
from functools import partial

import pytest

from layerstore import ChainID, Store
from layerstore.build.cache import OWNER, Cache, prune, records

from .conftest import Done, layer_with

pytestmark = pytest.mark.root

A, B, C = "a" * 64, "b" * 64, "c" * 64
KIB = b"x" * 100_000


def kept(cache: Cache) -> list[str]:
    return [record.id for record in records(cache)]


def test_all_goes_but_what_an_image_has(store: Store, cache: Cache, done: Done) -> None:
    below = done(A, name="a")
    done(B, below.chain_id, name="b")
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [below.diff_id]}}
    store.add_image(json.dumps(config).encode(), below.chain_id, ["base:1"])
    pruned = prune(cache)
    assert [record.id for record in pruned.records] == [B]
    assert pruned.reclaimed == 10240
    assert [(record.id, record.shared) for record in records(cache)] == [(A, True)]
    assert prune(cache, all=True).reclaimed == 0
    assert kept(cache) == []
    assert store.leases(OWNER) == {}
    assert store.check() == []
    assert store.image("base:1").layers == (below.diff_id,)


def test_nothing_is_left_of_what_went(store: Store, cache: Cache, done: Done) -> None:
    below = done(A)
    done(B, below.chain_id, name="b")
    prune(cache)
    store.wait()
    assert store.disk_usage().layers == ()
    assert store.check() == []


def test_what_stands_on_a_step_goes_before_it(cache: Cache, done: Done) -> None:
    """A layer keeps those below: the step that was used before the one on it would free nothing."""
    below = done(A, name="a", content=KIB)
    done(B, below.chain_id, name="b", content=KIB)
    done(C, name="c", content=KIB)
    for key in (A, B):
        assert cache.find(key)
    assert prune(cache, keep=250_000).reclaimed > 100_000
    assert set(kept(cache)) == {A, B}
    assert prune(cache, keep=150_000).reclaimed > 100_000
    assert kept(cache) == [A]


def test_a_step_of_two_keys_stays_by_both_or_goes(store: Store, cache: Cache, done: Done) -> None:
    """A hit by the one is a use of the other, else that would go, and free nothing."""
    record = partial(cache.record, description="COPY . .", exact=B)
    store.add_layer(layer_with("a", KIB), record=lambda tx, layer: [record(tx, key, layer) for key in (A, B)])
    done(C, name="c", content=KIB)
    assert cache.find(A)
    prune(cache, keep=150_000)
    assert set(kept(cache)) == {A, B}
    prune(cache, keep=50_000)
    assert kept(cache) == []


def test_as_much_is_kept_as_fits(cache: Cache, done: Done) -> None:
    done(A, name="a", content=KIB)
    done(B, name="b", content=KIB)
    assert prune(cache, keep=1_000_000).records == ()
    assert len(kept(cache)) == 2
    prune(cache, keep=150_000)
    assert kept(cache) == [B]


def test_only_what_fits_goes(cache: Cache, done: Done) -> None:
    done(A, name="a", description="RUN one")
    done(B, name="b", description="RUN two")
    prune(cache, fits=lambda record: "one" in record.description)
    assert kept(cache) == [B]


def test_what_a_build_that_goes_on_has_used_stays(store: Store, cache: Cache, done: Done) -> None:
    done(A, name="a")
    done(B, name="b")
    with Cache(store) as build:
        assert build.find(B)
        assert [record.id for record in prune(cache, all=True).records] == [A]
        assert kept(cache) == [B]
    prune(cache)
    assert kept(cache) == []


def test_a_step_that_wrote_nothing_goes_with_what_it_stood_on(store: Store, cache: Cache, done: Done) -> None:
    below = done(A)
    cache.record_nothing(B, parent=below.chain_id)
    cache.record_nothing(C)
    prune(cache, fits=lambda record: record.id == A)
    prune(cache, fits=lambda _: False)
    assert kept(cache) == [C]


def test_a_lease_without_a_step_goes(store: Store, cache: Cache, done: Done) -> None:
    layer = done(A)
    store.lease(None, ChainID(layer.chain_id), owner=OWNER, name="left")
    prune(cache, fits=lambda _: False)
    assert list(store.leases(OWNER).values()) == [layer.chain_id]
