"""containerd's databases: all that is in them is found, and whatever is wrong in them ends in words, soon."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from attached import record
from layerstore.attached import bolt
from layerstore.attached.kinds import peer as reader
from layerstore.digest import DiffID, chain_ids
from layerstore.errors import Damaged
from support import images as make

pytestmark = pytest.mark.root

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
META = "io.containerd.metadata.v1.bolt/meta.db"


@pytest.fixture
def containerd(peer: Callable[[str], Path]) -> Path:
    """Its store, to be altered."""
    return peer("containerd")


def all_of(bucket: bolt.Bucket) -> dict[bytes, object]:
    """All that a bucket has, as it is listed."""
    return {key: value if isinstance(value, bytes) else all_of(value) for key, value in bucket}


def test_every_key_is_found_in_trees_of_several_pages(containerd: Path) -> None:
    data = (containerd / META).read_bytes()

    top = bolt.root(data, Damaged)

    images = top.bucket("v1", "default", "images")
    assert images is not None
    assert len(all_of(images)) == record.MANY + 2
    assert [key for key, _ in images] == sorted(key for key, _ in images)
    for key, image in images.buckets():
        found = images.bucket(key)
        assert found is not None
        assert all_of(found) == all_of(image)
        assert found.value("createdat") is not None
    assert any(struct.unpack_from("<QH", data, at)[1] == 1 for at in range(8192, len(data), 4096)), "no branch page"
    assert all_of(top).keys() == {b"v1"}
    assert images.value("nothing") is None
    assert images.value("zzz") is None
    assert images.bucket("a", "b") is None
    assert len(reader(f"containerd:{containerd}").names()) == record.MANY + 2


def test_the_older_meta_counts_where_the_newer_is_damaged(containerd: Path) -> None:
    data = bytearray((containerd / META).read_bytes())
    newer = max((0, 4096), key=lambda at: struct.unpack_from("<Q", data, at + 16 + 48)[0])
    data[newer + 40] ^= 1
    whole = bolt.newest(bytes(data))
    assert whole is not None
    all_of(bolt.root(bytes(data), Damaged))
    data[(4096 - newer) + 40] ^= 1
    for broken in (bytes(data), b"", bytes(data[:50]), b"\0" * 100_000):
        with pytest.raises(Damaged, match=r"no file of bbolt"):
            bolt.root(broken, Damaged)


def test_damaged_pages_end_in_words(containerd: Path) -> None:
    whole = (containerd / META).read_bytes()
    dice = random.Random(1)
    told = set()
    used = [at for at in range(8192, len(whole), 4096) if any(whole[at : at + 4096])]
    for number in range(5000 if NIGHTLY else 60):
        data = bytearray(whole)
        page = dice.choice(used)
        for _ in range(dice.choice((1, 3, 20))):
            # Most of it among what says where everything is.
            at = page + dice.randrange(16 + 16 * 8 if number % 3 else 4096)
            data[at] = dice.choice((0, 1, 2, 3, 0x10, 0xFF, dice.randrange(256)))
        try:
            top = bolt.root(bytes(data), Damaged)
            top.bucket("v1", "default", "images", record.NAME, "target")
            all_of(top)
        except Damaged as error:
            told.add(error.message.split(" at byte")[0])
    assert len(told) >= 3, told
    with pytest.raises(Damaged):
        all_of(bolt.root(whole[: 4096 * 3], Damaged))


def test_pages_that_lead_in_a_circle_end(containerd: Path) -> None:
    whole = (containerd / META).read_bytes()
    branch = next(at for at in range(8192, len(whole), 4096) if struct.unpack_from("<QH", whole, at)[1] == 1)
    number, _, count, _ = struct.unpack_from("<QHHI", whole, branch)
    data = bytearray(whole)
    for one in range(count):
        struct.pack_into("<Q", data, branch + 16 + 16 * one + 8, number)

    with pytest.raises(Damaged, match="in a circle"):
        list(bolt.Bucket(bolt._File(bytes(data), 4096, Damaged), number))
    with pytest.raises(Damaged, match="in a circle"):
        bolt.Bucket(bolt._File(bytes(data), 4096, Damaged), number).value("a")


def test_what_is_wrong_in_containerds_store_is_told(containerd: Path) -> None:
    blobs = containerd / "io.containerd.content.v1.content/blobs/sha256"
    diff_ids = [DiffID(make.digest(tar)) for tar in record.LAYERS]
    store = reader(f"containerd:{containerd}")

    def tar_of(number: int) -> bytes:
        layer = store.layer(chain_ids(diff_ids)[number], diff_ids[number])
        assert layer is not None
        assert layer.write is not None
        out = bytearray()
        layer.write(out.extend)
        return bytes(out)

    assert tar_of(0) == record.LAYERS[0]
    packed = {path: path.read_bytes() for path in blobs.iterdir() if path.read_bytes().startswith(b"\x1f\x8b")}
    [lowest] = [path for path, data in packed.items() if len(data) == max(map(len, packed.values()))]
    lowest.write_bytes(packed[lowest][:-20])
    with pytest.raises(Damaged, match="layer sha256:"):
        tar_of(0)
    lowest.write_bytes(next(data for path, data in packed.items() if path != lowest))
    with pytest.raises(Damaged, match="its blob holds the layer sha256:"):
        tar_of(0)
    lowest.unlink()
    layer = store.layer(chain_ids(diff_ids)[0], diff_ids[0])
    assert layer is not None
    assert layer.write is None
    (blobs / make.digest(make.config(record.LAYERS))[7:]).write_bytes(b"{}")
    with pytest.raises(Damaged, match="its bytes are not what its digest says"):
        reader(f"containerd:{containerd}").names()
    (containerd / META).unlink()
    with pytest.raises(Damaged, match="it is not there"):
        store.names()


def test_several_manifests_with_one_config_are_one_image(containerd: Path) -> None:
    blobs = containerd / "io.containerd.content.v1.content/blobs/sha256"
    store = reader(f"containerd:{containerd}")
    names, [image] = store.names(), store.ids()
    meta = (containerd / META).read_bytes()
    documents = {path.name: path.read_bytes() for path in blobs.iterdir() if path.read_bytes().startswith(b"{")}
    [old] = [name for name in documents if meta.count(name.encode()) >= record.MANY]  # an index
    [manifest] = [data for data in documents.values() if b'"layers": [' in data]
    other = manifest.replace(b"{", b'{"annotations": {"a": "b"},', 1)
    new = make.digest(other)[7:]
    (blobs / new).write_bytes(other)
    parts = meta.split(old.encode())
    halves = (part + (new if number % 2 else old).encode() for number, part in enumerate(parts[:-1]))
    (containerd / META).write_bytes(b"".join(halves) + parts[-1])

    again = reader(f"containerd:{containerd}")

    assert again.names() == names
    assert again.ids() == [image]
