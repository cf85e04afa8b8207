"""A store that somebody has altered to harm whoever attaches it: told in words, and nothing outside of it is opened."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attached import record
from layerstore.attached import docker as docker_reader
from layerstore.attached import splits
from layerstore.attached import values as attached_values
from layerstore.attached.kinds import peer as reader
from layerstore.attached.root import Root
from layerstore.attached.values import AttachedStore
from layerstore.digest import DiffID, ImageID, chain_ids
from layerstore.errors import Damaged
from support import images as make

pytestmark = pytest.mark.root

DIFF_IDS = [DiffID(make.digest(tar)) for tar in record.LAYERS]
CHAINS = chain_ids(DIFF_IDS)
IMAGE = ImageID(make.digest(make.config(record.LAYERS)))


@pytest.fixture
def docker(peer: Callable[[str], Path]) -> Path:
    """Docker's store, to be altered."""
    return peer("docker")


@pytest.fixture
def podman(peer: Callable[[str], Path]) -> Path:
    """podman's, to be altered."""
    return peer("podman")


def layer_of(store: AttachedStore, number: int = 0) -> bytes | None:
    """The tar of one of the image's layers; None if there is no such layer."""
    layer = store.layer(CHAINS[number], DIFF_IDS[number])
    if layer is None:
        return None
    assert layer.write is not None
    out = bytearray()
    layer.write(out.extend)
    return bytes(out)


def refused(store: AttachedStore, *words: str) -> None:
    """Whatever is asked of the store is an answer or an error in words, and one has these words."""
    told = []
    for ask in (
        store.names,
        store.ids,
        lambda: store.config(IMAGE),
        lambda: store.size(IMAGE, DIFF_IDS),
        lambda: [layer_of(store, number) for number in range(len(CHAINS))],
    ):
        try:
            ask()
        except Damaged as error:
            told.append(str(error))
    assert any(all(word in text for word in words) for text in told), told


def at(docker: Path, number: int = 0) -> Path:
    """What docker says of a layer."""
    return docker / "image/overlay2/layerdb/sha256" / CHAINS[number][7:]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("cache-id", "../../../../etc", "no name of a layer's folder"),
        ("cache-id", "/etc", "no name of a layer's folder"),
        ("diff", "sha256:" + "0" * 64, "it is the layer sha256:0000"),
        ("diff", "nothing", "it is no digest"),
        ("diff", "x" * 5000, "more than 4096 bytes"),
        ("tar-split.json.gz", "no gzip", "cannot be inflated"),
    ],
)
def test_what_docker_says_of_a_layer_is_not_believed(docker: Path, name: str, content: str, words: str) -> None:
    (at(docker) / name).write_text(content)
    refused(reader(f"docker:{docker}"), words)


def test_links_and_what_is_no_file_are_not_followed(docker: Path, place: Path) -> None:
    store = reader(f"docker:{docker}")
    secret = place / "secret"
    secret.mkdir()
    (secret / "diff").mkdir()
    (secret / "diff/file").write_text("of the host")
    key = (at(docker) / "cache-id").read_text()
    (docker / "overlay2" / key).rename(docker / "overlay2/away")

    (docker / "overlay2" / key).symlink_to(secret)
    refused(store, "a symbolic link or `..` is on the way")
    (docker / "overlay2" / key).unlink()
    (docker / "overlay2" / key).mkdir()
    (docker / "overlay2" / key / "diff").symlink_to(secret / "diff")
    assert store.layer(CHAINS[0], DIFF_IDS[0]) is None
    config = docker / "image/overlay2/imagedb/content/sha256" / IMAGE[7:]
    config.unlink()
    os.mkfifo(config)
    refused(store, "it is no plain file")
    config.unlink()
    config.symlink_to("/etc/passwd")
    refused(store, "a symbolic link or `..` is on the way")
    config.unlink()
    config.write_bytes(make.config(record.LAYERS[:1]))
    refused(store, "the config of the image is not what its name says")


def test_documents_have_a_limit(docker: Path, podman: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_reader, "_MOST_NAMES", 100)
    refused(reader(f"docker:{docker}"), "repositories.json", "more than 100 bytes")
    (docker / "image/overlay2/repositories.json").write_text("[" * 90)
    refused(reader(f"docker:{docker}"), "it is not JSON")
    (docker / "image/overlay2/repositories.json").write_text('{"Repositories": {"a": 1, "b": {"b:1": 2, "../x": "y"}}}')
    assert reader(f"docker:{docker}").names() == {}
    (docker / "image/overlay2/repositories.json").write_text('{"Repositories": 3}')
    refused(reader(f"docker:{docker}"), "which images there are")


def split_of(*entries: dict[str, Any]) -> bytes:
    """A tar-split."""
    lines = [json.dumps({"position": number, **entry}).encode() for number, entry in enumerate(entries)]
    return gzip.compress(b"\n".join(lines))


def file_of(name: str, size: object = 4) -> dict[str, Any]:
    """A file's entry."""
    return {"type": 1, "name": name, "size": size, "payload": ""}


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (split_of(file_of("../../../../etc/passwd")), "/../../../../etc/passwd is missing"),
        (split_of(file_of("/etc/passwd")), "/etc/passwd is missing"),
        (split_of(file_of("out")), "/out is missing"),
        (split_of(file_of("through/passwd")), "/through/passwd is missing"),
        (split_of(file_of("folder")), "/folder is no file any more"),
        (split_of(file_of("pipe")), "/pipe is no file any more"),
        (split_of(file_of("file", 1 << 40)), "/file has 4 bytes, and had 1099511627776"),
        (split_of(file_of("file", 3)), "/file has 4 bytes, and had 3"),
        (split_of(file_of("file", -1)), "has the size -1"),
        (split_of(file_of("file", True)), "has the size True"),
        (split_of(file_of("file", 1 << 70)), "has the size"),
        (split_of(file_of("")), "names no file"),
        (split_of(file_of("a\0b")), "names no file"),
        (split_of(file_of("\ud800")), "entry 0 of its tar-split is none"),
        (split_of({"type": 2, "payload": "%%%"}), "entry 0 of its tar-split is none"),
        (split_of({"type": 2}), "entry 0 of its tar-split is none"),
        (split_of({"type": 3}), "an entry of type 3"),
        (split_of({"type": 2, "payload": "", "position": 7}), "entry 7 in place of 0"),
        (gzip.compress(b"[" * 3000), "entry 0 of its tar-split is none"),
        (gzip.compress(b'"a"\n'), "entry 0 of its tar-split is none"),
        (gzip.compress(b"a" * 5000), "a line of more than 4000 bytes"),
        (split_of(file_of("file"))[:-12], "cannot be inflated"),
        (split_of(file_of("file")), "its files are not what they were"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_tar_split_leads_nowhere(split: bytes, words: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splits, "_LONGEST", 4000)
    tree = place / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_text("four")
    (tree / "out").symlink_to("/etc/passwd")
    (tree / "through").symlink_to("/etc")
    os.mkfifo(tree / "pipe")
    (place / "split").write_bytes(split)

    with open(place / "split", "rb", buffering=0) as file, pytest.raises(Damaged) as told:
        splits.write_tar(file, tree, DIFF_IDS[0], lambda _: None, Damaged)

    assert words in told.value.message


def test_a_link_within_the_layer_is_followed_within_it(place: Path) -> None:
    tree = place / "tree"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/file").write_text("four")
    (tree / "lib").symlink_to("/usr/lib")
    (place / "split").write_bytes(
        split_of(file_of("lib/file"), {"type": 2, "payload": base64.b64encode(b"!").decode()})
    )
    out = bytearray()

    with open(place / "split", "rb", buffering=0) as file:
        expected = DiffID(f"sha256:{hashlib.sha256(b'four!').hexdigest()}")
        splits.write_tar(file, tree, expected, out.extend, Damaged)

    assert out == b"four!"


def test_circles_and_rows_of_podman_that_say_nothing_are_no_layers(podman: Path) -> None:
    file = podman / "overlay-layers/layers.json"
    rows = json.loads(file.read_text())
    store = reader(f"podman:{podman}")
    by_digest = {row["diff-digest"]: row for row in rows}
    lowest, middle, top = (by_digest[diff_id] for diff_id in DIFF_IDS)
    assert layer_of(store, 2) == record.LAYERS[2]

    def after(**altered: object) -> list[bool]:
        changed = [{**row, **altered} if row is lowest else row for row in rows]
        file.write_text(json.dumps(changed))
        return [store.layer(chain, diff_id) is not None for chain, diff_id in zip(CHAINS, DIFF_IDS, strict=True)]

    assert after() == [True] * 3
    assert after(parent=top["id"]) == [False] * 3
    assert after(parent=lowest["id"]) == [False] * 3
    assert after(parent="../../etc") == [False] * 3
    assert after(parent=7) == [False] * 3
    assert after(id="../../../etc") == [False] * 3
    assert after(flags={"incomplete": True}) == [False] * 3
    assert after(**{"diff-digest": "sha256:x"}) == [False] * 3
    assert after(**{"diff-size": "many"}) == [True] * 3
    assert after(uidmap=[{"container_id": 0, "host_id": 100_000, "size": 65_536}]) == [True] * 3
    layer = store.layer(CHAINS[0], DIFF_IDS[0])
    assert layer is not None
    assert layer.unfit == "its files have the owners of a user namespace"
    file.write_text(json.dumps({"a": 1}))
    refused(store, "it is no list of what there is")
    assert middle["parent"] == lowest["id"]


def test_documents_of_podman_are_what_their_digests_say(podman: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [folder] = [path for path in (podman / "overlay-images").iterdir() if path.is_dir()]
    config = folder / f"={base64.b64encode(IMAGE.encode()).decode()}"
    store = reader(f"podman:{podman}")
    assert store.ids() == [IMAGE]
    config.write_bytes(config.read_bytes() + b" ")
    refused(store, "the config is not what the manifest says")
    config.unlink()
    assert store.ids() == []
    (folder / "manifest").write_text("[" * 100_000)
    assert store.ids() == []
    (folder / "manifest").unlink()
    (folder / "manifest").mkdir()
    refused(store, "it is no plain file")
    monkeypatch.setattr(attached_values, "MOST_CONFIG", 10)
    images = podman / "overlay-images/images.json"
    images.write_text(json.dumps([{"id": "../../../etc", "names": ["a"]}, {"id": 3}, {"id": "a" * 64, "names": 3}]))
    assert store.ids() == []


def test_layers_of_podman_are_read_again_only_when_they_are_others(
    podman: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, read = podman / "overlay-layers/layers.json", []
    document = Root.document

    def counted(root: Root, name: str, limit: int) -> object:
        read.append(name)
        return document(root, name, limit)

    monkeypatch.setattr(Root, "document", counted)
    store = reader(f"podman:{podman}")
    for _ in range(5):
        assert all(store.layer(chain, diff_id) for chain, diff_id in zip(CHAINS, DIFF_IDS, strict=True))
    assert read.count("overlay-layers/layers.json") == 1

    rows = [row for row in json.loads(file.read_text()) if row["diff-digest"] != DIFF_IDS[2]]
    (podman / "new").write_text(json.dumps(rows))
    (podman / "new").rename(file)
    assert [store.layer(chain, diff_id) is None for chain, diff_id in zip(CHAINS, DIFF_IDS, strict=True)] == [
        False,
        False,
        True,
    ]
    assert read.count("overlay-layers/layers.json") == 2
