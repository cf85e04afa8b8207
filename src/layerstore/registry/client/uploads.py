"""A blob on its way into a registry: mounted from where it is already, else sent at once, else in chunks.

What registries differ in (distribution-spec, "Pushing Blobs"): Google's takes a blob only at once; Cloudflare refuses
more than 100 MB at once, before or in the middle of it; Artifactory has kept only the last chunk. So a blob is sent at
once, and in chunks where that was refused, which is remembered of the host as long as the process lives. After a
failure the registry is asked how much it has; its word decides, for some take chunks in any order and spoil them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from enum import Enum
from threading import Lock
from typing import Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

from layerstore.digest import Digest
from layerstore.errors import CertificateError, Denied, LayerstoreError, RegistryError, Unauthorized, Unreachable
from layerstore.registry.client.sources import Progress, Source
from layerstore.registry.transport.hosts import Endpoint
from layerstore.registry.transport.http import Body, Http, Reply, Rights
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.words import printable
from layerstore.values import define

__all__ = ["CHUNK", "Progress", "Sent", "Uploads"]

CHUNK: Final = 16 << 20
_LEAST_CHUNK: Final = 1 << 20
_MOUNTS: Final = 3
"""Repositories that are tried for a mount: each costs a round trip."""

_COPYING: Final = 16 << 20
"""Bytes a second that a registry copies at least."""

_TYPE: Final = {"Content-Type": "application/octet-stream"}
_RANGE: Final = re.compile(r"(?:bytes[= ])?0-(\d{1,19})")
_DONE: Final = (200, 201, 204)

_chunks_of: dict[str, int] = {}
"""Hosts that refuse large bodies → bytes of a chunk."""
_chunks_lock: Final = Lock()


class Sent(Enum):
    """How a blob got there."""

    PRESENT = "present"
    MOUNTED = "mounted"
    SENT = "sent"


@define
class _Session:
    """An upload that a registry waits for. `location` is new with each reply, and its query has to be kept."""

    location: str
    offset: int = 0
    least: int = 0
    """The least bytes of a chunk, but for the last (OCI-Chunk-Min-Length)."""

    def follow(self, reply: Reply) -> None:
        """Take over what a reply says of where to go on."""
        if location := reply.headers.get("Location"):
            self.location = urljoin(reply.url, location)


class _Again(Exception):
    """The session is of no use any more; `error` is why."""

    def __init__(self, error: LayerstoreError) -> None:
        super().__init__(str(error))
        self.error = error
        self.is_refusal = not isinstance(error, Unreachable)
        """Does the registry say so, and not the line?"""


class _TooLarge(_Again):
    """A body was larger than the registry, or what stands before it, takes; or looked so."""

    def __init__(self, error: LayerstoreError, *, is_said: bool) -> None:
        super().__init__(error)
        self.is_said = is_said


@define
class Uploads:
    """Brings blobs into one repository. `find` asks whether one is there."""

    http: Http
    settings: Settings
    endpoint: Endpoint
    path: str
    access: Sequence[Rights]
    find: Callable[[Digest], int | None]

    def bring(
        self,
        digest: Digest,
        body: Body,
        *,
        mount_from: Sequence[str] = (),
        progress: Progress | None = None,
        tried: Callable[[str], object] | None = None,
    ) -> Sent:
        """Have the blob there. Raises what `Http.request` raises, and `RegistryError` if it is refused."""
        session = None
        for source in [source for source in mount_from if source != self.path][:_MOUNTS]:
            if session is not None:
                self._give_up(session)
            if tried is not None:
                tried(source)
            session = self._mount(digest, source)
            if session is None:
                return Sent.MOUNTED
        _Upload(self, digest, body, progress).run(session)
        return Sent.SENT

    def _mount(self, digest: Digest, source: str) -> _Session | None:
        """Mount a blob of another repository; a session where it has to be sent instead. None: it is mounted."""
        query = urlencode({"mount": digest, "from": source})
        # Both: docker-registry wants to see the right to read where it is mounted from in the same token.
        access = (*self.access, Rights(source, ("pull",)))
        try:
            reply = self.request("POST", f"{self._target}?{query}", access=access)
        except (Denied, Unauthorized):
            return self.begin()
        with reply:
            if reply.status == 201:
                return None
            return self._session(reply) if reply.status == 202 else self.begin()

    def begin(self) -> _Session:
        """A new session."""
        with self.request("POST", self._target) as reply:
            if reply.status != 202:
                raise reply.failure(f"beginning an upload to {self.title}")
            return self._session(reply)

    def _session(self, reply: Reply) -> _Session:
        session = _Session("")
        session.follow(reply)
        if not session.location:
            raise RegistryError(
                f"{self.title} takes an upload, but does not say where: its reply has no Location",
                remedy="Tell those who run the registry.",
            )
        least = reply.headers.get("OCI-Chunk-Min-Length", "").strip()
        session.least = int(least) if re.fullmatch(r"[0-9]{1,18}", least) else 0
        return session

    def _give_up(self, session: _Session) -> None:
        """Let the registry forget a session that is not needed."""
        try:
            self.request("DELETE", session.location).close()
        except LayerstoreError:
            pass  # it forgets by itself, later

    def request(
        self,
        method: str,
        target: str,
        *,
        headers: dict[str, str] | None = None,
        body: Body | None = None,
        access: Sequence[Rights] | None = None,
    ) -> Reply:
        """One request, made once where it alters something: what became of it has to be asked first."""
        return self.http.request(
            self.endpoint,
            method,
            target,
            access=self.access if access is None else access,
            headers={"Content-Length": "0"} | (headers or {}) if body is None and method != "GET" else headers,
            body=body,
            # Another session is as good; one that nobody uses goes by itself.
            repeat=method in ("GET", "POST"),
        )

    @property
    def _target(self) -> str:
        return f"/v2/{quote(self.path)}/blobs/uploads/"

    @property
    def title(self) -> str:
        """The repository, in errors."""
        return f"{printable(self.endpoint.registry)}/{self.path}"

    @property
    def chunk(self) -> int | None:
        """The bytes of a chunk for this host, if it is known that it wants chunks."""
        with _chunks_lock:
            return _chunks_of.get(self.endpoint.host)

    def remember(self, chunk: int) -> None:
        """This host wants chunks of no more than so many bytes."""
        with _chunks_lock:
            _chunks_of[self.endpoint.host] = chunk


class _Upload:
    """One blob on its way: which form is tried next, and how often it may still be."""

    def __init__(self, uploads: Uploads, digest: Digest, body: Body, progress: Progress | None) -> None:
        self._uploads = uploads
        self._digest = digest
        self._size = body.size
        self._source = Source(body, digest, progress)
        self._failures = 0
        self._chunk = uploads.chunk
        self._is_limit = False
        """Is the size of a chunk the host's wish, as far as can be told, and not for the sake of a bad line?"""
        self._is_at_once = False
        """Chunks were not taken, so it is sent at once whatever else is known."""
        self._is_streamed = False
        """It was not taken at once by PUT, so it is sent as docker does."""

    def run(self, session: _Session | None) -> None:
        """Send the blob, in a session that there is or in new ones."""
        with self._source:
            while True:
                try:
                    self._send(self._uploads.begin() if session is None else session)
                    return
                except _TooLarge as again:
                    self._smaller(again)
                except _Again as again:
                    self._failed(again)
                session = None

    def _failed(self, again: _Again) -> None:
        """Count a failure; a registry that says the same again is believed."""
        self._failures += 1
        if self._failures >= (2 if again.is_refusal else self._uploads.settings.attempts):
            raise again.error
        if not again.is_refusal:
            self._uploads.http.pause_before(self._failures)

    def _smaller(self, again: _TooLarge) -> None:
        """After a body that was too large: chunks, and smaller ones."""
        at_once = self._size if self._chunk is None else self._chunk
        if at_once is None or self._is_at_once or at_once <= _LEAST_CHUNK:
            raise again.error
        self._chunk = CHUNK if self._chunk is None and at_once > CHUNK else max(at_once // 2, _LEAST_CHUNK)
        self._is_limit = self._is_limit or again.is_said or at_once > CHUNK
        if not again.is_said:
            self._failed(again)

    def _send(self, session: _Session) -> None:
        if self._size is None or self._is_streamed:
            self._in_one_stream(session)
        elif self._chunk is None or self._is_at_once or max(self._chunk, session.least) >= self._size:
            self._at_once(session, self._size)
        else:
            self._in_chunks(session, self._size, max(self._chunk, session.least))

    # --- the three forms ---

    def _at_once(self, session: _Session, size: int) -> None:
        """POST and PUT (distribution-spec, "POST then PUT")."""
        try:
            reply = self._uploads.request(
                "PUT", self._final(session), headers=dict(_TYPE), body=self._source.piece(0, size)
            )
        except CertificateError:
            raise
        except Unreachable as error:
            if self._has_arrived():
                return
            # A reset in the middle of a body may be a proxy's way to say that it is too large, or the line is bad.
            is_shrinkable = size > _LEAST_CHUNK and self._source.sent
            raise (_TooLarge(error, is_said=False) if is_shrinkable else _Again(error)) from error
        self._finish(reply)

    def _in_one_stream(self, session: _Session) -> None:
        """One PATCH with all, then PUT, as docker sends: what any registry has met."""
        try:
            reply = self._uploads.request("PATCH", session.location, headers=dict(_TYPE), body=self._source.whole())
        except CertificateError:
            raise
        except Unreachable as error:
            raise _Again(error) from error
        with reply:
            if reply.status != 202:
                raise self._refused(reply)
            session.follow(reply)
        self._commit(session)

    def _in_chunks(self, session: _Session, size: int, chunk: int) -> None:
        """POST, PATCHes and PUT ("Pushing a blob in chunks")."""
        stuck = 0
        before = 0
        while session.offset < size:
            count = min(chunk, size - session.offset)
            headers = _TYPE | {"Content-Range": f"{session.offset}-{session.offset + count - 1}"}
            try:
                reply = self._uploads.request(
                    "PATCH", session.location, headers=headers, body=self._source.piece(session.offset, count)
                )
            except CertificateError:
                raise
            except Unreachable as error:
                self._ask(session, error)
                smaller = max(chunk // 2, _LEAST_CHUNK, session.least)
                if session.offset > before or smaller >= chunk:
                    stuck = self._stuck(stuck, error)
                else:
                    chunk = smaller  # where a line breaks often, a small one may arrive
                continue
            with reply:
                if reply.status == 202:
                    session.follow(reply)
                    session.offset = _offset_of(reply, session.offset + count)
                elif reply.status == 416:
                    refusal = reply.failure(f"sending a chunk to {self._uploads.title}")
                    stuck = self._stuck(stuck, refusal)
                    session.follow(reply)
                    self._ask(session, refusal)
                else:
                    raise self._refused(reply)
            if session.offset > before:
                before, stuck = session.offset, 0
        self._commit(session)
        if self._is_limit and self._chunk is not None:
            self._uploads.remember(self._chunk)

    def _stuck(self, count: int, error: LayerstoreError) -> int:
        """Count what brought the upload no further."""
        count += 1
        if count >= self._uploads.settings.attempts:
            raise error
        self._uploads.http.pause_before(count)
        return count

    def _ask(self, session: _Session, error: LayerstoreError) -> None:
        """Learn how much of an upload the registry has ("Upload status"). `error` is why it is asked."""
        with self._uploads.request("GET", session.location) as reply:
            if reply.status != 204 and reply.status != 200:
                raise _Again(error)  # docker-registry drops an upload whose last chunk broke off
            session.follow(reply)
            session.offset = _offset_of(reply, session.offset)

    def _commit(self, session: _Session) -> None:
        try:
            reply = self._uploads.request("PUT", self._final(session), headers=dict(_TYPE))
        except CertificateError:
            raise
        except Unreachable as error:
            if self._has_arrived():
                return
            raise _Again(error) from error
        self._finish(reply)

    def _final(self, session: _Session) -> str:
        joint = "&" if urlsplit(session.location).query else "?"
        return f"{session.location}{joint}digest={quote(self._digest, safe='')}"

    def _finish(self, reply: Reply) -> None:
        with reply:
            if reply.status in _DONE or (reply.status == 202 and self._has_arrived()):
                self._source.tell_all()
                return
            raise self._refused(reply)

    def _refused(self, reply: Reply) -> Exception:
        """What a reply means that is no success: another form, a new session, or the end."""
        error = reply.failure(f"sending blob {self._digest} to {self._uploads.title}")
        if reply.status == 413:
            return _TooLarge(error, is_said=True)
        if self._chunk is not None and reply.status in (400, 405, 411, 416, 501) and not self._is_at_once:
            # Chunks may be what it does not know; to be refused for the size is the worse that can come of it.
            self._is_at_once = True
            return _Again(error)
        if reply.status in (405, 411, 501) and not self._is_streamed:
            self._is_streamed = True
            return _Again(error)
        if reply.status in (400, 404, 416) or reply.status >= 500:
            return _Again(error)
        return error

    def _has_arrived(self) -> bool:
        """Is the blob there, although nobody said so?

        A registry over an object store copies a large one before it answers, which may take longer than anybody is
        silent for: it is waited for as long as to send it again would take at least.
        """
        is_all_sent = self._size is not None and self._source.sent >= self._size
        until = time.monotonic() + (self._size or 0) / _COPYING if is_all_sent else 0.0
        attempt = 1
        while True:
            try:
                if self._uploads.find(self._digest) is not None:
                    return True
            except LayerstoreError:
                return False
            if time.monotonic() >= until:
                return False
            self._uploads.http.pause_before(attempt)
            attempt += 1


def _offset_of(reply: Reply, otherwise: int) -> int:
    """Where an upload goes on, by its `Range`, which names the last byte and so cannot say that there is none."""
    match = _RANGE.fullmatch(reply.headers.get("Range", "").strip())
    if match is None:
        return otherwise
    return int(match[1]) + 1 if match[1] != "0" or otherwise == 1 else 0
