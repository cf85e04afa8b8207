"""Another store, by its `serve`: what has it, whose turn is it, and a blob that it may still be receiving.

Three questions beside the distribution protocol, under a name of our own (`/v2/_layerstore/`, as the distribution spec
has extensions), for that has no way to ask for many blobs at once, or for one that is not there yet. docs/fleet.md
tells their form. What a peer answers is hostile: small, of the right shape, or nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from attrs import evolve

from layerstore.digest import Digest
from layerstore.errors import LayerstoreError
from layerstore.registry.remotes.remote import ASK, SILENCE, SLOWEST, Address, Remote, RemoteFailed
from layerstore.registry.transport.hosts import Endpoint, is_insecure

if TYPE_CHECKING:
    from layerstore.registry.transport.http import Http, Reply
    from layerstore.registry.transport.settings import Settings

__all__ = ["BLOBS", "HAS", "MOST_DIGESTS", "TURN", "Peer"]

HAS: Final = "/v2/_layerstore/has"
TURN: Final = "/v2/_layerstore/turn"
BLOBS: Final = "/v2/_layerstore/blobs/"

MOST_DIGESTS: Final = 500
"""In one question."""

_ANSWER_LIMIT: Final = 256 << 10
_PIECE: Final = 128 << 10
"""Of which the beginning is lost when it breaks off: a reply fills what it is given."""

_ID: Final = re.compile(r"[0-9a-f]{32}")
_RANGE: Final = re.compile(r"bytes (\d{1,19})-")


class Peer(Remote):
    """A store that is served. `id`: the store's own name, empty until it has answered."""

    def __init__(self, address: Address, settings: Settings) -> None:
        super().__init__(address.url)
        verify = not is_insecure(settings, address.place)
        self._endpoint = Endpoint(address.place, address.url, verify=verify, plain=address.scheme == "http")
        self._settings = evolve(settings, attempts=1, connect_timeout=ASK, unrelated_timeout=ASK)
        self._open: dict[float, Http] = {}
        self.id = ""

    def has(self, digests: Collection[Digest]) -> dict[Digest, int]:
        found: dict[Digest, int] = {}
        rest = iter(digests)
        while batch := list(islice(rest, MOST_DIGESTS)):
            answer = self._ask(HAS, {"digests": batch})
            if not isinstance(name := answer.get("id"), str) or not _ID.fullmatch(name):
                raise RemoteFailed(self.name, "its answer has no store's ID: it is no `layerstore serve`")
            self.id = name
            there = answer.get("there")
            found |= dict(_sizes(there if isinstance(there, dict) else {}, batch))
        return found

    def turn(self, digest: Digest, store: str, lost: Collection[str], *, gives: bool) -> str | None:
        """The ID of the store that `store` is to have a blob from, as this one decides it. See `Turns.take`."""
        answer = self._ask(TURN, {"digest": digest, "store": store, "lost": sorted(lost), "gives": gives})
        found = answer.get("from")
        return found if isinstance(found, str) and _ID.fullmatch(found) else None

    def read(self, digest: Digest, start: int, end: int) -> _Careful:
        # The size is told, for a store that is still receiving the blob does not know it.
        target = f"{BLOBS}{digest}?{urlencode({'size': end})}"
        reply = self._request(SILENCE, "GET", target, headers={"Range": f"bytes={start}-{end - 1}"})
        came_from = _RANGE.match(reply.headers.get("Content-Range", ""))
        if reply.status == 206 and came_from is not None and int(came_from[1]) == start:
            return _Careful(self.name, reply)
        reply.close()
        raise RemoteFailed(self.name, f"it answered {reply.status} for a blob", is_absent=reply.status in (404, 416))

    def close(self) -> None:
        for http in self._open.values():
            http.close()

    def _ask(self, target: str, question: dict[str, Any]) -> dict[str, Any]:
        from layerstore.registry.transport.http import Body

        body = Body.of(json.dumps(question).encode())
        reply = self._request(ASK, "POST", target, headers={"Content-Type": "application/json"}, body=body)
        with reply:
            if reply.status != 200:
                raise RemoteFailed(self.name, f"it answered {reply.status}")
            try:
                answer = json.loads(reply.document(_ANSWER_LIMIT))
            except LayerstoreError as error:
                raise RemoteFailed(self.name, error.message) from None
            except (ValueError, RecursionError):
                answer = None
        if not isinstance(answer, dict):
            raise RemoteFailed(self.name, "its answer is no JSON object: it is no `layerstore serve`")
        return answer

    def _request(self, patience: float, method: str, target: str, **more: Any) -> Reply:
        from layerstore.registry.transport.http import Http

        http = self._open.get(patience)
        if http is None:
            slowest = SLOWEST if patience == SILENCE else self._settings.slowest
            http = self._open.setdefault(patience, Http(evolve(self._settings, read_timeout=patience, slowest=slowest)))
        try:
            return http.request(self._endpoint, method, target, repeat=False, **more)
        except LayerstoreError as error:
            raise RemoteFailed(self.name, error.message) from None


class _Careful:
    """A blob on its way here, whose failures are the remote's."""

    def __init__(self, name: str, reply: Reply) -> None:
        self._name = name
        self._reply = reply

    def readinto(self, buffer: memoryview, /) -> int:
        try:
            return self._reply.readinto(buffer[:_PIECE])
        except LayerstoreError as error:
            # That it breaks off says nothing of its health: the blob may have been given up there.
            raise RemoteFailed(self._name, error.message, is_absent=True) from None

    def close(self) -> None:
        self._reply.close()


def _sizes(there: dict[str, Any], asked: Collection[Digest]) -> Iterator[tuple[Digest, int]]:
    for digest in asked:
        size = there.get(digest)
        if isinstance(size, int) and not isinstance(size, bool) and 0 < size < 1 << 62:
            yield digest, size
