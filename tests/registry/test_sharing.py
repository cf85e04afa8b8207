"""Whole pulls with remotes: the registry is asked for what nobody else has, and the image comes whatever they do."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

import layerstore
from core.adding import Adder
from layerstore import Store
from layerstore.digest import of_bytes
from layerstore.errors import Unreachable
from layerstore.registry.remotes import health, peer
from layerstore.registry.remotes.bucket import Bucket
from layerstore.registry.remotes.remote import Address
from layerstore.registry.transport.http import Body
from layerstore.registry.transport.settings import Settings
from support import images as make

from .servers.listening import Answer, Seen
from .servers.memory import INDEX, MANIFEST
from .servers.peers import ServedStore, Spoil, honest
from .servers.quirks import Quirks, slow
from .servers.seaweed import Seaweed

pytestmark = pytest.mark.root

LAYERS = [make.layer(make.file(f"layer{number}", os.urandom((300 + 100 * number) << 10))) for number in range(5)]


@pytest.fixture(autouse=True)
def _all_are_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.HEALTH, "_paused", {})
    monkeypatch.setattr(health.HEALTH, "_known", set())
    of = Settings.of.__func__  # type: ignore[attr-defined]
    hasty = {"connect_timeout": 20.0, "read_timeout": 20.0, "pause": 0.01}
    monkeypatch.setattr(
        Settings, "of", classmethod(lambda cls, *given, **more: evolve(of(cls, *given, **more), **hasty))
    )


@pytest.fixture
def dead(closed_port: int) -> str:
    """Where nobody listens."""
    return f"http://127.0.0.1:{closed_port}"


@pytest.fixture
def opened(backing: Callable[[str], Path]) -> Iterator[Callable[..., Store]]:
    """`opened(remotes=[...])`: one more store; `opened(of=store, remotes=[...])`: the same once more."""
    with ExitStack() as stack:
        folder, numbers = backing("ext4"), count()

        def open_store(remotes: Sequence[str] = (), *, of: Store | None = None, **more: Any) -> Store:
            place = folder / f"store{next(numbers)}" if of is None else of.data_root
            settings = layerstore.Config(
                data_root=place, exec_root=place / "exec", storage_driver="overlay2", remotes=tuple(remotes), **more
            )
            return stack.enter_context(layerstore.open(config=settings))

        yield open_store


@pytest.fixture
def name(quirks: Quirks) -> str:
    """An image of five layers in a registry."""
    quirks.put_image("team/app", "1", LAYERS)
    return f"{quirks.host}/team/app:1"


def fetched(quirks: Quirks) -> Counter[str]:
    """How often the registry gave each layer."""
    layers = {digest for (_, digest), data in quirks.blobs.items() if len(data) > 100_000}
    return Counter(seen.path.rpartition("/")[2] for seen in quirks.asked("GET", "/blobs/") if seen.path[-71:] in layers)


def layer_blobs(quirks: Quirks) -> list[bytes]:
    return [data for data in quirks.blobs.values() if len(data) > 100_000]


def is_whole(store: Store, name: str) -> bool:
    assert store.check(content=True) == []
    assert not (store.data_root / "partial").exists() or not os.listdir(store.data_root / "partial")
    return store.image(name).layers == tuple(make.digest(layer) for layer in LAYERS)


def test_eight_stores_pull_one_image_and_the_registry_gives_each_blob_once(
    opened: Callable[..., Store], quirks: Quirks, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "ASK", 30.0)  # on a machine that has much to do, a second may pass
    quirks.spoil("GET", "/blobs/", slow(3_000_000))
    stores = [opened() for _ in range(8)]
    failures: list[BaseException] = []

    def pull(store: Store) -> None:
        try:
            store.pull(name)
        except BaseException as error:
            failures.append(error)

    with ExitStack() as stack:
        urls = [stack.enter_context(ServedStore(store)).url for store in stores]
        pulling = [opened(urls, of=store) for store in stores]
        threads = [threading.Thread(target=pull, args=(store,)) for store in pulling]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert all(is_whole(store, name) for store in stores)
    assert len(fetched(quirks)) == len(LAYERS)
    assert fetched(quirks).total() == len(LAYERS)


def test_what_another_store_has_is_not_asked_of_the_registry(
    opened: Callable[..., Store], quirks: Quirks, name: str
) -> None:
    other = opened()
    other.pull(name)
    quirks.forget()
    with ServedStore(other) as served:
        mine = opened([served.url])
        mine.pull(name)
    assert is_whole(mine, name)
    assert fetched(quirks).total() == 0


def test_a_bucket_has_the_layers(
    opened: Callable[..., Store], quirks: Quirks, name: str, seaweed: Seaweed, tmp_path: Path
) -> None:
    text = seaweed.remote(tmp_path.name)
    bucket = Bucket(Address.parse(text))
    for data in layer_blobs(quirks):
        bucket.write(of_bytes(data), Body.of(data))
    store = opened([text])
    store.pull(name)
    assert is_whole(store, name)
    assert fetched(quirks).total() == 0


def _other_bytes() -> Callable[[bytes], Iterable[bytes]]:
    return lambda data: [bytes(len(data))]


def _altered_at_the_end() -> Callable[[bytes], Iterable[bytes]]:
    return lambda data: [data[:-1], bytes([data[-1] ^ 1])]


def _dies() -> Callable[[bytes], Iterable[bytes]]:
    def alter(data: bytes) -> Iterator[bytes]:
        yield data[: len(data) // 2]
        raise ConnectionAbortedError

    return alter


@pytest.mark.parametrize("has", ["blobs", "tars"])
@pytest.mark.parametrize("fault", [_other_bytes, _altered_at_the_end, _dies])
def test_whatever_another_store_gives_the_image_comes(
    opened: Callable[..., Store], quirks: Quirks, name: str, fault: Spoil, has: str
) -> None:
    other = opened(keep_blobs=has == "blobs")
    if has == "blobs":
        other.pull(name)
    else:  # nobody knows how to make the blobs of these
        Adder(other)(*LAYERS)
    quirks.forget()
    with ServedStore(other, spoil=fault) as served:
        mine = opened([served.url])
        mine.pull(name)
        assert served.given > 0
    assert is_whole(mine, name)
    assert set(fetched(quirks).values()) <= {1}
    assert fetched(quirks).total() >= 1


def test_a_store_that_dies_in_the_middle_costs_no_byte_twice(
    opened: Callable[..., Store], quirks: Quirks, name: str
) -> None:
    other = opened(keep_blobs=True)
    other.pull(name)
    quirks.forget()
    dead = threading.Event()

    def until_it_dies() -> Callable[[bytes], Iterable[bytes]]:
        def alter(data: bytes) -> Iterator[bytes]:
            if dead.is_set():
                raise ConnectionAbortedError
            yield data
            time.sleep(0.02)
            if other_served.given > 1_000_000:
                dead.set()

        return alter

    with ServedStore(other, spoil=until_it_dies) as other_served:
        mine = opened([other_served.url])
        mine.pull(name)
    assert is_whole(mine, name)
    whole = sum(map(len, layer_blobs(quirks)))
    assert quirks.sent("/blobs/") + other_served.given < 1.3 * whole


def test_a_bucket_that_dies_in_the_middle(
    opened: Callable[..., Store], quirks: Quirks, name: str, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with Seaweed(tmp_path_factory.mktemp("dying")) as dying:
        text = dying.remote(tmp_path.name)
        bucket = Bucket(Address.parse(text))
        for data in layer_blobs(quirks):
            bucket.write(of_bytes(data), Body.of(data))
        store = opened([text])
        threading.Timer(0.05, dying.kill).start()
        store.pull(name)
    assert is_whole(store, name)


def test_a_registry_that_dies_when_all_is_elsewhere_fails_only_for_names(
    opened: Callable[..., Store], quirks: Quirks, name: str
) -> None:
    other = opened()
    other.pull(name)

    def gone(seen: Seen, answer: Answer) -> Answer:
        return Answer(503)

    quirks.spoil("GET", "/blobs/sha256:(?!" + str(other.image(name).id)[7:] + ")", gone)
    with ServedStore(other, spoil=honest) as served:
        mine = opened([served.url])
        mine.pull(name)
    assert is_whole(mine, name)


def test_a_remote_that_is_none_is_an_error(opened: Callable[..., Store], name: str) -> None:
    with pytest.raises(layerstore.errors.ConfigError, match="is no remote"):
        opened(["10.0.0.1:5000"]).pull(name)


# --- what is given on


@pytest.fixture(params=["folder", "s3", "registry"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path, repository: str) -> str:
    """A remote that can be written to."""
    if request.param == "folder":
        return f"file://{tmp_path}/bucket"
    if request.param == "s3":
        return str(request.getfixturevalue("seaweed").remote(tmp_path.name))
    return f"registry://{request.getfixturevalue('docker_registry').host}/{repository}/bucket"


@pytest.mark.parametrize("how", ["pull", "push"])
def test_what_came_or_went_can_be_had_from_the_remote_alone(
    opened: Callable[..., Store], quirks: Quirks, name: str, keeper: str, how: str
) -> None:
    store = opened([keeper], push_through=True)
    told: list[str] = []
    if how == "pull":
        first = store.pull(name, told=told.append)
    else:
        Adder(store)(*LAYERS, name=name)
        store.push(name, told=told.append)
        first = store.image(name)
    assert told == []
    quirks.spoil(None, "", lambda seen, answer: Answer(503))
    late = opened([keeper])
    again = late.pull(name, told=told.append)
    assert is_whole(late, name)
    assert (again.id, again.digests) == (first.id, first.digests)
    assert len(told) == 1
    assert f"is what {keeper.partition('?')[0]} has by that name" in told[0]


def test_an_index_is_given_on_with_the_image_that_was_pulled(
    opened: Callable[..., Store], quirks: Quirks, name: str, keeper: str
) -> None:
    [digest] = [digest for (repository, digest) in quirks.manifests if repository == "team/app"]
    size = len(quirks.manifests["team/app", digest][1])
    here = {"architecture": "amd64", "os": "linux"}
    entries = [{"mediaType": MANIFEST, "digest": digest, "size": size, "platform": here}]
    entries.append({**entries[0], "digest": make.digest(b"another"), "platform": {**here, "architecture": "s390x"}})
    quirks.put_manifest("team/app", "all", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}, INDEX)
    name = name.replace(":1", ":all")
    opened([keeper], push_through=True).pull(name, platform="linux/amd64")
    quirks.spoil(None, "", lambda seen, answer: Answer(503))
    late = opened([keeper])
    late.pull(name, platform="linux/amd64")
    assert is_whole(late, name)


def test_another_name_of_an_image_that_is_there_is_given_on(
    opened: Callable[..., Store], quirks: Quirks, name: str, keeper: str
) -> None:
    store = opened([keeper], push_through=True)
    store.pull(name)
    quirks.tags["team/app", "stable"] = quirks.tags["team/app", "1"]
    name = name.replace(":1", ":stable")
    store.pull(name)  # of which nothing has to be fetched
    quirks.spoil(None, "", lambda seen, answer: Answer(503))
    late = opened([keeper])
    late.pull(name)
    assert is_whole(late, name)


def test_what_cannot_be_given_on_fails_nothing(opened: Callable[..., Store], name: str, dead: str) -> None:
    told: list[str] = []
    store = opened([f"s3://bucket?endpoint={dead}&region=x&anonymous=true"], push_through=True)
    begin = time.monotonic()
    store.pull(name, told=told.append)
    assert time.monotonic() - begin < 60
    assert is_whole(store, name)


def test_a_name_is_not_asked_of_a_store(opened: Callable[..., Store], quirks: Quirks, name: str) -> None:
    other = opened(keep_blobs=True)
    other.pull(name)
    quirks.spoil(None, "", lambda seen, answer: Answer(503))
    with ServedStore(other) as served, pytest.raises(Unreachable):
        opened([served.url]).pull(name)
