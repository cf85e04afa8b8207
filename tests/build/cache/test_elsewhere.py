"""Caches that lie elsewhere: a folder, a registry, an image, a store. Only what is hit comes, and none is needed."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest
from attrs import evolve

import layerstore
from layerstore import ChainID, Store
from layerstore.build.cache import Cache, Spec, give, inline, offers, parse_spec, prune
from registry.servers.debian import DockerRegistry
from support.faults import descriptors

from .conftest import layer_with

pytestmark = pytest.mark.root

PLATFORM = {"architecture": "amd64", "os": "linux"}
A, B, C, D = (letter * 64 for letter in "abcd")
Places = Callable[[str], tuple[Spec, Spec]]


@pytest.fixture
def other(own_filesystem: Callable[..., Path], tmp_path: Path) -> Iterator[Store]:
    """Another store, which has nothing."""
    settings = layerstore.Config(
        data_root=own_filesystem("ext4") / "other", exec_root=tmp_path / "exec", storage_driver="overlay2"
    )
    with layerstore.open(config=settings) as opened:
        yield opened


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that is open to all."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry, which is not installed")
    with DockerRegistry(tmp_path_factory.mktemp("registry")) as running:
        yield running.host


def build(store: Store, *specs: Spec, warn: Callable[[str], object] = pytest.fail) -> tuple[list[str], Cache]:
    """Build: A, on it B, which writes nothing, and C; and D on nothing, of another stage. What had to be done."""
    done: list[str] = []
    tops: dict[str, ChainID | None] = {}

    def step(cache: Cache, key: str, parent: ChainID | None) -> ChainID | None:
        with cache.claim(key) as entry:
            if entry is not None:
                return parent if entry.layer is None else entry.layer.chain_id
            done.append(key[0])
            if key == B:
                cache.record_nothing(key, parent=parent, description="RUN true")
                return parent
            return store.add_layer(
                layer_with(key[0], key[0] * 50_000),
                parent,
                record=lambda tx, layer: cache.record(tx, key, layer, description=f"RUN {key[0]}"),
            ).chain_id

    with Cache(store) as cache:
        for spec in specs:
            cache.use(spec, warn=warn)
        tops["a"] = step(cache, A, None)
        tops["b"] = step(cache, B, tops["a"])
        tops["c"] = step(cache, C, tops["b"])
        tops["d"] = step(cache, D, None)
        cache.top = tops["c"]  # type: ignore[attr-defined]
    return done, cache


def top_of(cache: Cache) -> ChainID:
    return cache.top  # type: ignore[attr-defined, no-any-return]


@pytest.fixture(params=["local", "registry", "store"])
def places(request: pytest.FixtureRequest, tmp_path: Path, own_filesystem: Callable[..., Path]) -> Places:
    """`places("mode=max")`: where a cache is given to, and where it is found again."""

    def at(options: str) -> tuple[Spec, Spec]:
        more = f",{options}" if options else ""
        match request.param:
            case "local":
                place = str(tmp_path / "cache")
                words = (f"dest={place}", f"src={place}")
            case "registry":
                place = f"{request.getfixturevalue('registry')}/cache/{options.replace('=', '-') or 'min'}"
                words = (f"ref={place}", f"ref={place}")
            case _:
                place = str(own_filesystem("ext4") / "cache")
                words = (f"dest={place}", f"src={place}")
        return (
            parse_spec(f"type={request.param},{words[0]}{more}", to=True),
            parse_spec(f"type={request.param},{words[1]}", to=False),
        )

    return at


def test_what_was_done_here_need_not_be_done_there(store: Store, other: Store, places: Places) -> None:
    to, source = places("mode=max")
    done, cache = build(store)
    assert done == ["a", "b", "c", "d"]
    give(cache, to, top_of(cache), platform=PLATFORM, warn=pytest.fail)
    assert build(other, source)[0] == []
    assert other.check(content=True) == []
    assert build(other)[0] == []  # it is the other store's own by now


def test_the_image_alone_is_given_unless_all_is_asked_for(store: Store, other: Store, places: Places) -> None:
    to, source = places("")
    _, cache = build(store)
    give(cache, to, top_of(cache), platform=PLATFORM, warn=pytest.fail)
    assert build(other, source)[0] == ["d"]


def test_only_what_is_hit_comes(store: Store, other: Store, tmp_path: Path) -> None:
    _, cache = build(store)
    give(
        cache,
        parse_spec(f"type=local,dest={tmp_path / 'cache'},mode=max", to=True),
        top_of(cache),
        platform=PLATFORM,
        warn=pytest.fail,
    )
    with Cache(other) as there:
        there.use(parse_spec(f"type=local,src={tmp_path / 'cache'}", to=False))
        assert there.find("e" * 64) is None
        assert other.disk_usage().layers == ()
        found = there.find(A)
        assert found is not None
        assert found.layer is not None
        assert [layer.diff_id for layer in other.disk_usage().layers] == [found.layer.diff_id]


def test_what_steps_stand_on_is_not_given_with_them(store: Store, other: Store, tmp_path: Path) -> None:
    """Whoever comes to a step on a base image has that; who has it not, does not find the step."""
    base = layer_with("base", Random(1).randbytes(50_000))

    def keep(one: Store, tx: layerstore.Transaction, layer: layerstore.StoredLayer) -> None:
        one.lease(tx, layer.chain_id, owner="x", name="x")

    stores = [one.add_layer(base, record=partial(keep, one)).chain_id for one in (store, other)]
    place = tmp_path / "cache"
    with Cache(store) as cache:
        top = store.add_layer(
            layer_with("top", "t"), stores[0], record=lambda tx, layer: cache.record(tx, A, layer, description="RUN")
        )
        spec = parse_spec(f"type=local,dest={place},mode=max", to=True)
        give(cache, spec, top.chain_id, platform=PLATFORM, warn=pytest.fail)
    assert sum(path.stat().st_size for path in (place / "blobs/sha256").iterdir()) < 5_000
    for has_base in (True, False):
        with Cache(other) as cache:
            cache.use(parse_spec(f"type=local,src={place}", to=False), warn=pytest.fail)
            assert (cache.find(A) is not None) == has_base
        prune(Cache(other))
        other.end_leases("x", ["x"])
    assert other.check() == []


def test_an_image_is_a_cache_of_its_own_steps(store: Store, other: Store, registry: str) -> None:
    _, cache = build(store)
    top = top_of(cache)
    diffs = [store.layer(top).diff_id]
    below = store.layer(top).parent
    assert below is not None
    diffs.insert(0, store.layer(below).diff_id)
    config = {**PLATFORM, "rootfs": {"type": "layers", "diff_ids": diffs}, **inline(cache, top)}
    store.add_image(json.dumps(config).encode(), top, [f"{registry}/app:1"])
    store.push(f"{registry}/app:1")
    assert build(other, parse_spec(f"{registry}/app:1", to=False))[0] == ["d"]
    assert other.images() == []


def test_the_same_cache_is_the_same_bytes(store: Store, tmp_path: Path) -> None:
    _, cache = build(store)
    for name in ("one", "two"):
        spec = parse_spec(f"type=local,dest={tmp_path / name},mode=max", to=True)
        give(cache, spec, top_of(cache), platform=PLATFORM, warn=pytest.fail)
    assert (tmp_path / "one/index.json").read_bytes() == (tmp_path / "two/index.json").read_bytes()


@pytest.mark.parametrize("what", ["missing", "an image", "damaged", "no JSON"])
def test_a_cache_that_is_no_good_is_told_and_fails_nothing(
    store: Store, other: Store, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "cache"
    _, cache = build(store)
    if what == "an image":
        config = json.dumps(
            {**PLATFORM, "rootfs": {"type": "layers", "diff_ids": [store.layer(top_of(cache)).diff_id]}}
        )
        store.save_layers(config.encode(), [top_of(cache)], folder)
    elif what != "missing":
        spec = parse_spec(f"type=local,dest={folder},mode=max,compression=uncompressed", to=True)
        give(cache, spec, top_of(cache), platform=PLATFORM, warn=pytest.fail)
    if what == "damaged":
        for blob in (folder / "blobs/sha256").iterdir():
            if blob.stat().st_size > 50_000:
                blob.write_bytes(blob.read_bytes().replace(b"aaaa", b"zzzz").replace(b"dddd", b"zzzz"))
    if what == "no JSON":
        (folder / "index.json").write_text("{")
    told: list[str] = []
    done, _ = build(other, parse_spec(f"type=local,src={folder}", to=False), warn=told.append)
    assert done == ["a", "b", "c", "d"]
    assert len(told) == 1
    assert "is not used" in told[0]
    assert other.check(content=True) == []


def test_no_store_is_made_where_one_is_looked_for(other: Store, tmp_path: Path) -> None:
    told: list[str] = []
    build(other, parse_spec(f"type=store,src={tmp_path / 'none'}", to=False), warn=told.append)
    assert "there is no store" in told[0]
    assert not (tmp_path / "none").exists()


def test_a_store_of_another_driver_is_a_cache_too(
    store: Store, other: Store, own_filesystem: Callable[..., Path]
) -> None:
    place = own_filesystem("btrfs") / "cache"
    with layerstore.open(config=evolve(store.config, data_root=place, storage_driver="btrfs")):
        pass
    _, cache = build(store)
    spec = parse_spec(f"type=store,dest={place},mode=max", to=True)
    give(cache, spec, top_of(cache), platform=PLATFORM, warn=pytest.fail)
    assert build(other, parse_spec(f"type=store,src={place}", to=False))[0] == []


def test_a_registry_that_cannot_be_reached_is_told(other: Store) -> None:
    told: list[str] = []
    done, _ = build(other, parse_spec("127.0.0.1:1/none", to=False), warn=told.append)
    assert done == ["a", "b", "c", "d"]
    assert told


def test_a_failure_to_give_is_an_error_unless_it_may_fail(store: Store) -> None:
    _, cache = build(store)
    text = "type=registry,ref=127.0.0.1:1/none"
    with pytest.raises(layerstore.LayerstoreError):
        give(cache, parse_spec(text, to=True), top_of(cache), platform=PLATFORM, warn=pytest.fail)
    told: list[str] = []
    give(cache, parse_spec(f"{text},ignore-error=true", to=True), top_of(cache), platform=PLATFORM, warn=told.append)
    assert "was not given" in told[0]


def test_what_was_taken_in_is_pruned_as_what_was_done(store: Store, other: Store, tmp_path: Path) -> None:
    _, cache = build(store)
    spec = parse_spec(f"type=local,dest={tmp_path / 'cache'},mode=max", to=True)
    give(cache, spec, top_of(cache), platform=PLATFORM, warn=pytest.fail)
    build(other, parse_spec(f"type=local,src={tmp_path / 'cache'}", to=False))
    prune(Cache(other))
    other.wait()
    assert other.disk_usage().layers == ()
    assert other.leases("build") == {}


@pytest.mark.parametrize(("owner", "name"), [(offers, "FileIO"), (threading.Thread, "start")])
def test_a_pipe_between_two_stores_is_closed_where_nothing_can_be_made_of_it(
    store: Store, owner: object, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cache = build(store)
    [source, *_] = offers.sources(store, store.layer(top_of(cache)))

    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, fails)
        with pytest.raises(MemoryError), source.open():
            pass
    assert descriptors() == before
    with source.open() as stream:
        assert stream.readinto(memoryview(bytearray(512)))
    assert descriptors() == before
