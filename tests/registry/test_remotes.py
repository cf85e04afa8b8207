"""Remotes one by one: what is a remote's address, buckets, who is asked first, who is left alone."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.digest import of_bytes
from layerstore.errors import ConfigError
from layerstore.registry.remotes.bucket import Bucket
from layerstore.registry.remotes.health import LONGEST_PAUSE, Health
from layerstore.registry.remotes.mirror import tag_of
from layerstore.registry.remotes.remote import Address, Reading, Remote, RemoteFailed
from layerstore.registry.remotes.remotes import Remotes
from layerstore.registry.remotes.turns import Turns, first_of
from layerstore.registry.transport.http import Body
from layerstore.registry.transport.settings import Settings

from .servers.seaweed import Seaweed

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(params=["folder", "s3", "registry", "registry over s3"])
def keeper(request: pytest.FixtureRequest, tmp_path: Path, repository: str) -> Iterator[Remote]:
    """An empty remote that can be written to."""
    kind = request.param
    if kind == "folder":
        text = f"file://{tmp_path}/bucket"
    elif kind == "s3":
        text = request.getfixturevalue("seaweed").remote(tmp_path.name)
    else:
        server = request.getfixturevalue("docker_registry" if kind == "registry" else "object_registry")
        text = f"registry://{server.host}/{repository}/bucket"
    with Remotes([text], settings=Settings(pause=0.01), store_id="0" * 32) as remotes:
        assert remotes.keeper is not None
        yield remotes.keeper


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket: a folder, and SeaweedFS."""
    if request.param == "folder":
        return Bucket(Address.parse(f"file://{tmp_path}/bucket"))
    seaweed: Seaweed = request.getfixturevalue("seaweed")
    return Bucket(Address.parse(seaweed.remote(tmp_path.name)))


def read(reading: Reading, step: int = 100_000) -> bytes:
    buffer, found = memoryview(bytearray(step)), b""
    while count := reading.readinto(buffer):
        found += buffer[:count]
    reading.close()
    return found


# --- addresses


@pytest.mark.parametrize(
    ("text", "scheme", "url"),
    [
        ("http://10.0.0.7:5000", "http", "http://10.0.0.7:5000"),
        ("registry://registry.example/layers/", "registry", "registry://registry.example/layers"),
        ("s3://bucket/a/b?endpoint=http://127.0.0.1:9000", "s3", "s3://bucket/a/b"),
        ("file:///srv/layers", "file", "file:///srv/layers"),
    ],
)
def test_an_address(text: str, scheme: str, url: str) -> None:
    address = Address.parse(text)
    assert (address.scheme, address.url) == (scheme, url)


@pytest.mark.parametrize(
    "text",
    ["", "10.0.0.7", "ftp://host", "http://", "s3://", "file://", "file://host/x", "http://h:x", "http://h/path"],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="is no remote"):
        Address.parse(text)


@pytest.mark.parametrize("text", ["https://me:open-sesame@host", "s3://bucket?secret_access_key=open-sesame"])
def test_a_secret_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Address.parse(text)
    assert "sesame" not in str(caught.value)


def test_tags_of_names_are_tags_and_differ() -> None:
    names = [
        "docker.io/library/a:1",
        "docker.io/library/a_1",
        "[::1]:5000/x:1",
        "host:5000/" + "x" * 240 + ":" + "t" * 128,
    ]
    tags = [tag_of(name) for name in names]
    assert len(set(tags)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag) for tag in tags)


def test_an_option_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="no option 'endpiont'"):
        Bucket(Address.parse("s3://bucket?endpiont=x"))


# --- buckets


def test_a_keeper_has_what_was_written(keeper: Remote) -> None:
    small, large = os.urandom(5), os.urandom(12 << 20)
    for data in (small, large):
        keeper.write(of_bytes(data), Body.of(data))
        keeper.write(of_bytes(data), Body.of(data))
    absent = of_bytes(b"absent")
    assert keeper.has([of_bytes(small), of_bytes(large), absent]) == {of_bytes(small): 5, of_bytes(large): 12 << 20}
    assert keeper.has([]) == {}
    assert read(keeper.read(of_bytes(large), 0, len(large))) == large
    assert read(keeper.read(of_bytes(large), 9 << 20, len(large))) == large[9 << 20 :]
    with pytest.raises(RemoteFailed) as caught:
        read(keeper.read(absent, 0, 10))
    assert caught.value.is_absent


@pytest.mark.parametrize("size", [1000, 12 << 20])
@pytest.mark.parametrize("fault", ["other bytes", "too short", "breaks"])
def test_what_is_not_what_it_should_be_is_not_kept(keeper: Remote, size: int, fault: str) -> None:
    data = os.urandom(size)
    digest = of_bytes(data)

    altered = {
        "other bytes": data[: size // 2] + bytes(size - size // 2),
        "too short": data[:-1],
        "breaks": data[: size // 2],
    }

    class Stream(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            piece = super().read(count)
            if not piece and fault == "breaks":
                raise ConnectionResetError("the other side")
            return piece

    with pytest.raises(RemoteFailed):
        keeper.write(digest, Body(size, lambda: Stream(altered[fault])))
    assert keeper.has([digest]) == {}


def test_a_name_is_kept_and_means_another_manifest_later(keeper: Remote) -> None:
    config = b'{"of": "test_remotes"}'
    keeper.write(of_bytes(config), Body.of(config))
    about = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": of_bytes(config), "size": len(config)}
    for note in ("first", "second"):
        content = {"schemaVersion": 2, "mediaType": MANIFEST, "config": about, "layers": [], "annotations": {"n": note}}
        manifest = json.dumps(content).encode()
        keeper.publish("docker.io/library/a:1", manifest, MANIFEST)
        found = keeper.resolve("docker.io/library/a:1")
        assert found is not None
        assert (found.digest, found.media_type, found.size) == (of_bytes(manifest), MANIFEST, len(manifest))
    assert keeper.resolve("docker.io/library/a_1") is None


def test_names_in_a_bucket(bucket: Bucket) -> None:
    assert list(bucket.names()) == []
    first, second = b'{"first":1}', b'{"second":2}'
    bucket.publish("docker.io/library/a:1", first, MANIFEST)
    bucket.publish("docker.io/library/b:1", first, MANIFEST)
    bucket.publish("docker.io/library/a:1", second, MANIFEST)
    assert {name: known.digest for name, known in bucket.names()} == {
        "docker.io/library/a:1": of_bytes(second),
        "docker.io/library/b:1": of_bytes(first),
    }
    found = bucket.resolve("docker.io/library/a:1")
    assert found is not None
    assert read(bucket.read(found.digest, 0, found.size)) == second
    assert bucket.resolve("docker.io/library/c:1") is None


def test_many_give_names_at_once_and_none_is_lost(bucket: Bucket) -> None:
    wanted = {f"docker.io/library/app:{number}" for number in range(8)}
    threads = [threading.Thread(target=bucket.publish, args=(name, name.encode(), MANIFEST)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name for name, _ in bucket.names()} == wanted


def test_a_bucket_is_an_oci_layout(tmp_path: Path) -> None:
    bucket = Bucket(Address.parse(f"file://{tmp_path}/bucket"))
    bucket.publish("docker.io/library/a:1", b"{}", MANIFEST)
    folder = tmp_path / "bucket"
    assert json.loads((folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    [entry] = json.loads((folder / "index.json").read_bytes())["manifests"]
    assert (folder / "blobs" / entry["digest"].replace(":", "/")).read_bytes() == b"{}"
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/library/a:1"


@pytest.mark.parametrize("index", [b"<html>", b"[]", b'{"manifests": {}}', b"[" * 100_000])
def test_an_index_that_is_none(tmp_path: Path, index: bytes) -> None:
    bucket = Bucket(Address.parse(f"file://{tmp_path}/bucket"))
    (tmp_path / "bucket/index.json").write_bytes(index)
    with pytest.raises(RemoteFailed, match="no index"):
        list(bucket.names())


def test_entries_of_an_index_that_mean_nothing_are_passed_over(tmp_path: Path) -> None:
    bucket = Bucket(Address.parse(f"file://{tmp_path}/bucket"))
    note = {"org.opencontainers.image.ref.name": "docker.io/library/a:1"}
    entries = [7, {}, {"annotations": 1}, {"annotations": note}, {"annotations": note, "digest": "sha256:../x"}]
    (tmp_path / "bucket/index.json").write_text(json.dumps({"manifests": entries}))
    assert list(bucket.names()) == []


def test_a_bucket_that_is_gone_says_so_at_once(closed_port: int) -> None:
    bucket = Bucket(Address.parse(f"s3://b/p?endpoint=http://127.0.0.1:{closed_port}&region=x&anonymous=true"))
    begin = time.monotonic()
    with pytest.raises(RemoteFailed) as caught:
        bucket.has([of_bytes(b"a"), of_bytes(b"b")])
    assert time.monotonic() - begin < 15
    assert caught.value.message.startswith("remote s3://b/p: ")
    assert "\n" not in caught.value.message


# --- who is left alone


def test_pauses_grow_and_end_with_the_first_answer() -> None:
    now = 0.0
    health = Health(lambda: now)
    pauses = []
    for _ in range(14):
        assert not health.is_paused("a")
        pauses.append(health.failed("a"))
        assert health.is_paused("a")
        assert not health.is_paused("b")
        now += pauses[-1]
    assert pauses[:4] == [30, 60, 120, 240]
    assert pauses[-1] == LONGEST_PAUSE
    health.worked("a")
    assert health.failed("a") == 1


def test_failures_of_one_moment_count_once() -> None:
    health = Health(lambda: 0.0)
    assert [health.failed("a") for _ in range(3)] == [30, 30, 30]


# --- turns


def test_all_agree_who_is_asked_first() -> None:
    stores = [f"store{number}" for number in range(8)]
    blobs = [f"sha256:{number:064x}" for number in range(800)]
    first = [first_of(blob, stores)[0] for blob in blobs]
    assert first == [first_of(blob, reversed(stores))[0] for blob in blobs]
    assert all(60 < first.count(store) < 140 for store in stores)
    # Without one of them only its own blobs move.
    left = [first_of(blob, stores[1:])[0] for blob in blobs]
    assert all(before == after for before, after in zip(first, left, strict=True) if before != stores[0])


def test_the_first_fetches_and_the_others_have_it_from_those_before() -> None:
    turns = Turns(fan_out=2)
    assert [turns.take("blob", name) for name in "abcdefg"] == [None, "a", "a", "b", "b", "c", "c"]
    assert turns.take("blob", "a") is None
    assert turns.take("blob", "d") == "b"
    assert turns.take("other", "g") is None


def test_who_was_lost_is_given_to_nobody_until_it_asks() -> None:
    turns = Turns(fan_out=2)
    for name in "abc":
        turns.take("blob", name)
    assert turns.take("blob", "b", lost=["a"]) is None
    assert turns.take("blob", "c", lost=["a"]) == "b"
    assert turns.take("blob", "d") == "b"
    assert turns.take("blob", "a") is None
    assert turns.take("blob", "e") == "a"


def test_turns_are_forgotten_and_bounded() -> None:
    now = 0.0
    turns = Turns(clock=lambda: now)
    turns.take("blob", "a")
    now = 299
    assert turns.take("blob", "b") == "a"
    now = 700
    assert turns.take("blob", "c") is None
    for number in range(5000):
        turns.take(f"blob{number}", "a")
    assert len(turns._blobs) <= 4096
    for number in range(80_000):
        turns.take(f"blob{number // 40}", f"store{number}")
    assert sum(len(blob.takers) for blob in turns._blobs.values()) <= 65_536 + 1


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sets(st.sampled_from("abcdefgh"), max_size=3))))
def test_nobody_waits_in_a_circle(questions: list[tuple[str, set[str]]]) -> None:
    turns = Turns(fan_out=2)
    source: dict[str, str | None] = {}
    for store, lost in questions:
        source[store] = turns.take("blob", store, lost=lost)
        assert source[store] not in {*lost, store}
        for name in source:
            seen = [name]
            while (above := source[seen[-1]]) is not None:
                assert above not in seen
                seen.append(above)
