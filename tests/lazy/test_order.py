"""In which order a first run reads: recorded, attached to the image, and followed; whatever it says."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from layerstore import Store
from layerstore.cli.front import front
from layerstore.errors import InvalidArchive, LayerstoreError, NotFound
from layerstore.layers.recording import recording
from layerstore.seekable import ORDER_TYPE, Order, Read
from lazy.conftest import LARGE, LAYERS, Lazies, bytes_of, until
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = pytest.mark.root

LAYER = "sha256:" + "1" * 64
AT = LAYERS[0].rindex(LARGE[:4096])
"""Where the largest file lies in its layer."""


def test_what_is_read_is_recorded_in_order(lazies: Lazies, pushed: str, quirks: Quirks, tmp_path: Path) -> None:
    gate = Gate(quirks)
    with lazies.open() as store:
        image = store.pull(pushed, lazy=True, prefetch_from="nothing")
        with store.record_order(image, tmp_path / "order"), store.create_container(image).mount() as tree:
            with pytest.raises(LayerstoreError, match="for another"), store.record_order(image, tmp_path / "no"):
                pass
            gate.is_open = True
            with (tree / "large").open("rb") as file:
                file.seek(5 << 20)
                file.read(10)
            assert (tree / "second").read_bytes() == bytes_of(2 << 20, 3)
        read = Order.of_file(tmp_path / "order").reads
        until(lambda: not store._parts.layers.lazy())  # the rest comes after it
        with pytest.raises(NotFound, match="no layer of the image is lazy"), store.record_order(image, tmp_path / "no"):
            pass
    assert [path.name for path in tmp_path.iterdir() if "order" in path.name or path.name == "no"] == ["order"]
    first, *_, last = read
    assert first.layer == image.layers[0]
    assert AT + (4 << 20) < first.offset <= AT + (5 << 20) < first.offset + first.size
    assert last.layer == image.layers[1]
    assert sum(one.size for one in read if one.layer == last.layer) >= 2 << 20


def asked(quirks: Quirks) -> list[int]:
    """Where the first data begin that were asked for of each blob, in order; not what asks for a byte."""
    found = [re.fullmatch(r"bytes=(\d+)-(\d+)", seen.headers.get("Range", "")) for seen in quirks.requests]
    return [int(one[1]) for one in found if one is not None and int(one[2]) - int(one[1]) > 40_000]


def test_it_comes_first_to_others(lazies: Lazies, pushed: str, store: Store, quirks: Quirks, tmp_path: Path) -> None:
    image = store.image(pushed)
    wanted = Order((Read(image.layers[0], AT + (5 << 20), 10), Read(image.layers[0], AT + (3 << 20), 4096)))
    (tmp_path / "order").write_bytes(wanted.packed())
    store.push(pushed, order=tmp_path / "order")
    store.push(pushed, order=tmp_path / "order")  # which is there
    orders = [data for _, data in quirks.manifests.values() if ORDER_TYPE.encode() in data]
    assert len(orders) == 1
    gate = Gate(quirks)
    gate.is_open = True
    quirks.forget()
    with lazies.open() as mine:
        mine.pull(pushed, lazy=True)
        begun = until(lambda: asked(quirks))
        assert begun[0] > len(LAYERS[0]) / 100  # what nobody asks for begins at 0
        until(lambda: not mine._parts.layers.lazy())
        assert list(mine.check(content=True)) == []


def test_a_push_says_what_became_of_the_order(pushed: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "order").write_bytes(Order((Read(store.image(pushed).layers[0], 0, 10),)).packed())
    said: list[tuple[str, str]] = []
    for _ in range(2):
        store.push(pushed, order=tmp_path / "order", done=lambda label, words: said.append((label, words)))
    assert [words for label, words in said if label == "order of a first run"] == ["Attached", "Already attached"]


@pytest.mark.parametrize("when", [(), ("--pull", "always"), ("--pull", "newer")])
def test_what_would_be_pulled_whole_is_not_recorded_and_not_pulled(
    lazies: Lazies, pushed: str, quirks: Quirks, tmp_path: Path, when: tuple[str, ...]
) -> None:
    settings = tmp_path / "daemon.json"
    found = {"data-root": str(lazies.root), "exec-root": str(lazies.exec_root), "storage-driver": "erofs"}
    settings.write_text(json.dumps(found))
    with lazies.open() as store:
        if when:
            store.pull(pushed, lazy=True)
        before = store.lacking()
    words = ["--config", str(settings), "run", "--isolation", "process", "--record-order", str(tmp_path / "order")]
    quirks.forget()
    result = CliRunner().invoke(front, [*words, *when, pushed, "true"])
    assert result.exit_code == 125
    assert "would be pulled whole: give --lazy, too" in result.stderr
    assert not any("/manifests/" in seen.path for seen in quirks.requests)
    with lazies.open() as store:
        assert (bool(store.images()), bool(store.containers())) == (bool(before), False)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (b"\0", "is no order of a first run"),
        (b"[]", "is no order"),
        (b"[" * 100_000, "is no order"),
        (json.dumps({"version": 2, "layers": [], "reads": []}), "its version is 2"),
        (json.dumps({"version": 1, "layers": [LAYER], "reads": [[1, 0, 1]]}), "is no order"),
        (json.dumps({"version": 1, "layers": [LAYER], "reads": [[0, -1, 1]]}), "-1 is no size"),
        (json.dumps({"version": 1, "layers": [LAYER], "reads": [[0, 0, 1 << 62]]}), "is no size"),
        (json.dumps({"version": 1, "layers": [LAYER], "reads": [[0, True, 1]]}), "True is no size"),
        (json.dumps({"version": 1, "layers": [LAYER], "reads": [[0, 0, 1]] * 20_001}), "no list of 20000"),
        (json.dumps({"version": 1, "layers": ["sha256:1"], "reads": []}), "is no order"),
        (b" " * (1 << 20) + b"{}", "more than 1048576 bytes"),
    ],
)
def test_others_are_refused_in_words(document: str | bytes, words: str) -> None:
    data = document.encode() if isinstance(document, str) else document
    with pytest.raises(InvalidArchive, match=words):
        Order.unpacked(data, "the file")


def test_an_order_of_which_a_part_could_not_be_written_is_none(tmp_path: Path) -> None:
    class Full:
        @contextmanager
        def recorded(self, stored: object, file: int) -> Iterator[tuple[list[str], Callable[[], bool]]]:
            os.write(file, b"0 0 4096\n0 40")
            yield [LAYER], lambda: True

    with pytest.raises(LayerstoreError, match="could be written down"), recording(Full(), (), tmp_path / "order"):  # type: ignore[arg-type]
        pass
    assert not [path for path in tmp_path.iterdir() if "order" in path.name]


def reads(*of: tuple[int, int]) -> Sequence[Read]:
    return [Read(LAYER, offset, size) for offset, size in of]  # type: ignore[arg-type]


def test_an_order_is_as_small_as_it_can_be_and_comes_back_as_it_was() -> None:
    made = Order.of(reads((0, 10), (10, 10), (40, 5), (20, 1), (21, 4)))
    assert list(made.reads) == reads((0, 20), (40, 5), (20, 5))
    assert Order.unpacked(made.packed(), "it") == made
    assert made.of_layer(made.reads[0].layer) == ((0, 0, 20), (1, 40, 5), (2, 20, 5))
    endless = Order.of(reads(*((2 * number, 1) for number in range(50_000))))
    assert len(Order.unpacked(endless.packed(), "it").reads) == 20_000


def test_one_that_is_wrong_costs_nothing_but_a_line(
    lazies: Lazies, pushed: str, store: Store, quirks: Quirks, tmp_path: Path
) -> None:
    """It names what the layer has not, and then it is none at all."""
    image = store.image(pushed)
    [first, _] = image.layers
    (tmp_path / "order").write_bytes(Order((Read(first, 1 << 50, 1 << 50), Read(first, 0, 0))).packed())
    store.push(pushed, order=tmp_path / "order")
    with lazies.open() as mine:
        mine.pull(pushed, lazy=True)
        until(lambda: not mine._parts.layers.lazy())
        mine.image(pushed).remove(force=True)
        digest = json.loads(next(data for _, data in quirks.manifests.values() if ORDER_TYPE.encode() in data))
        [part] = [part["digest"] for part in digest["layers"] if part["mediaType"] == ORDER_TYPE]
        quirks.blobs["team/app", part] = b"x" * len(quirks.blobs["team/app", part])
        told: list[str] = []
        mine.pull(pushed, lazy=True, told=told.append)
        assert [line for line in told if "in which order its layers are wanted cannot be told" in line]
        with pytest.raises(NotFound, match="there is no file"):
            mine.pull(pushed, lazy=True, prefetch_from=tmp_path / "none")
