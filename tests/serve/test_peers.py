"""What a served store answers to other stores, and to those who only say that they are."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from layerstore.digest import of_bytes
from serve.client import Client

if TYPE_CHECKING:
    from layerstore import Store

pytestmark = pytest.mark.root

BLOB = bytes(range(256)) * 100
DIGEST = of_bytes(BLOB)
ONE, TWO = "1" * 32, "2" * 32


def ask(client: Client, what: str, question: Any) -> tuple[int, Any]:
    data = question if isinstance(question, bytes) else json.dumps(question).encode()
    reply = client("POST", f"/v2/_layerstore/{what}", data)
    return reply.status, json.loads(reply.body)


def test_which_blobs_are_there(store: Store, client: Client) -> None:
    store.blobs.put(io.BytesIO(BLOB))
    status, answer = ask(client, "has", {"digests": [DIGEST, of_bytes(b"absent")]})
    assert (status, answer) == (200, {"id": store.id, "there": {DIGEST: len(BLOB)}})


def test_whose_turn_it_is(client: Client) -> None:
    question = {"digest": DIGEST, "lost": [], "gives": True}
    assert ask(client, "turn", {**question, "store": ONE}) == (200, {"from": None})
    assert ask(client, "turn", {**question, "store": TWO}) == (200, {"from": ONE})
    assert ask(client, "turn", {**question, "store": TWO, "lost": [ONE]}) == (200, {"from": None})


@pytest.mark.parametrize(
    ("what", "question"),
    [
        ("has", b"<html>"),
        ("has", b"[" * 100_000),
        ("has", b'{"digests": ["' + b"x" * (300 << 10)),
        ("has", []),
        ("has", {}),
        ("has", {"digests": [7]}),
        ("has", {"digests": ["sha256:../../x"]}),
        ("has", {"digests": [DIGEST] * 501}),
        ("turn", {"digest": DIGEST}),
        ("turn", {"digest": DIGEST, "store": "me"}),
        ("turn", {"digest": DIGEST, "store": ONE, "lost": [{}]}),
        ("turn", {"digest": DIGEST, "store": ONE, "lost": [ONE] * 17}),
        ("turn", {"digest": "x", "store": ONE}),
    ],
)
def test_questions_that_make_no_sense(client: Client, what: str, question: Any) -> None:
    status, answer = ask(client, what, question)
    assert status == 400
    assert answer["errors"][0]["message"]


def test_a_part_of_a_blob(store: Store, client: Client) -> None:
    store.blobs.put(io.BytesIO(BLOB))
    place = f"/v2/_layerstore/blobs/{DIGEST}?size={len(BLOB)}"
    reply = client("GET", place, Range="bytes=1000-1999")
    assert (reply.status, reply.body) == (206, BLOB[1000:2000])
    assert reply.header["content-range"] == f"bytes 1000-1999/{len(BLOB)}"


@pytest.mark.parametrize(
    ("place", "status"),
    [
        (f"{DIGEST}?size=0", 400),
        (f"{DIGEST}", 400),
        (f"{DIGEST}?size=many", 400),
        ("sha256:x?size=5", 400),
        (f"{of_bytes(b'absent')}?size=5", 404),
    ],
)
def test_blobs_that_cannot_be_had(client: Client, place: str, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerstore.registry.remotes.answering.BEGINS", 0.1)
    assert client("GET", f"/v2/_layerstore/blobs/{place}").status == status
