"""Uploads in every way at once: whatever a client sends, and in whatever order, the server has what a model has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.client import OCTETS, Client, digest

if TYPE_CHECKING:
    from layerstore import Store

pytestmark = pytest.mark.root

UPLOADS = "/v2/app/blobs/uploads/"
PIECES = st.binary(max_size=60) | st.integers(1, 300_000).map(lambda size: b"x" * size)
STEPS = st.one_of(
    st.tuples(st.just("stream"), PIECES),
    st.tuples(st.just("chunked stream"), PIECES),
    st.tuples(st.just("chunk"), PIECES.filter(len)),
    st.tuples(st.just("chunk elsewhere"), st.integers(1, 1000)),
    st.tuples(st.just("chunk of another size"), st.integers(1, 50)),
    st.tuples(st.just("wrong digest"), PIECES),
    st.tuples(st.just("status"), st.none()),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=settings().max_examples // 4)
@given(steps=st.lists(STEPS, max_size=8), last=PIECES, algorithm=st.sampled_from(["sha256", "sha512"]))
def test_an_upload_is_what_was_taken(
    client: Client, store: Store, steps: list[tuple[str, object]], last: bytes, algorithm: str
) -> None:
    begun = client("POST", UPLOADS)
    place, model = begun.header["location"], b""
    for kind, what in steps:
        end = len(model)
        match kind, what:
            case "stream", bytes(piece):
                answer, status = client("PATCH", place, piece, Content_Type=OCTETS), 202
                model += piece
            case "chunked stream", bytes(piece):
                answer, status = client("PATCH", place, iter([piece[:5], piece[5:]])), 202
                model += piece
            case "chunk", bytes(piece):
                answer = client("PATCH", place, piece, Content_Range=f"{end}-{end + len(piece) - 1}")
                status = 202
                model += piece
            case "chunk elsewhere", int(gap):
                answer, status = client("PATCH", place, b"yy", Content_Range=f"{end + gap}-{end + gap + 1}"), 416
            case "chunk of another size", int(more):
                answer, status = client("PATCH", place, b"y", Content_Range=f"{end}-{end + more}"), 400
            case "wrong digest", bytes(piece):
                name = digest(model + piece + b"!", algorithm)
                answer, status = client("PUT", place, piece, query={"digest": name}), 400
            case _:
                answer, status = client("GET", place), 204
        assert answer.status == status, (kind, answer)
        assert client("GET", place).header["range"] == f"0-{max(len(model) - 1, 0)}"
    name = digest(model + last, algorithm)
    done = client("PUT", place, last, query={"digest": name})
    assert (done.status, done.header["docker-content-digest"]) == (201, name)
    assert client("GET", f"/v2/app/blobs/{name}").body == model + last
    assert client("GET", place).status == 404
    assert store.blobs.remains().partial == 0
