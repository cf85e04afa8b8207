"""The application: which request is answered by what, who may ask, and errors in the protocol's words."""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from layerstore.compression import COMPRESSIONS
from layerstore.errors import FULL, ConfigError, InvalidReference, LayerstoreError, NotFound, ReadOnlyStore
from layerstore.faces.serve import listing, names, pulling
from layerstore.faces.serve.messages import Refused, Reply, Request, of_json, require_user
from layerstore.faces.serve.peers import Peers
from layerstore.faces.serve.pushing import Pushing
from layerstore.faces.serve.uploads import Limits, Uploads

if TYPE_CHECKING:
    from layerstore.faces.serve.passwords import Passwords
    from layerstore.store import Store

__all__ = ["Limits", "Registry"]

_ROUTES: Final = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("support", r"/v2/?"),
        ("catalog", r"/v2/_catalog"),
        ("has", r"/v2/_layerstore/has"),
        ("turn", r"/v2/_layerstore/turn"),
        ("shared", r"/v2/_layerstore/blobs/([^/]+)"),
        ("manifest", r"/v2/(.+)/manifests/([^/]+)"),
        ("tags", r"/v2/(.+)/tags/list"),
        ("referrers", r"/v2/(.+)/referrers/([^/]+)"),
        ("uploads", r"/v2/(.+)/blobs/uploads/?"),
        ("upload", r"/v2/(.+)/blobs/uploads/([^/]+)"),
        ("blob", r"/v2/(.+)/blobs/([^/]+)"),
    )
)
_COMMON: Final = (("Docker-Distribution-Api-Version", "registry/2.0"), ("X-Content-Type-Options", "nosniff"))


class Registry:
    """A WSGI application (PEP 3333) that is the registry of a store. Any number of threads may call it.

    `read_only`: nothing may be pushed or deleted. `compression`: of the layers of images that were neither pushed nor
    pulled ("gzip", "zstd" or "none"). `passwords`: who may come in; None is everybody.
    """

    def __init__(
        self,
        store: Store,
        *,
        read_only: bool = False,
        compression: str = "none",
        passwords: Passwords | None = None,
        limits: Limits | None = None,
    ) -> None:
        if compression not in COMPRESSIONS:
            raise ConfigError(
                f"there is no compression {compression!r}", remedy=f"Choose one of {', '.join(COMPRESSIONS)}."
            )
        limits = Limits() if limits is None else limits
        self._repositories = store.repositories
        self._peers = Peers(store)
        self._uploads = Uploads(store.blobs, limits)
        self._pushing = Pushing(store.repositories, store.blobs, self._uploads)
        self._read_only = read_only
        self._compression = compression
        self._passwords = passwords

    def close(self) -> None:
        """Let the uploads go that are under way; a later server goes on with them."""
        self._uploads.close()

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        reply = self._reply(environ)
        if reply.stream is None or not reply.size or environ["REQUEST_METHOD"] == "HEAD":
            start_response(reply.line, _headers(reply))
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [reply.body]
        write = None

        def send(data: bytes | memoryview) -> None:
            nonlocal write
            if write is None:
                write = start_response(reply.line, _headers(reply))
            write(bytes(data))  # which copies no bytes

        try:
            reply.stream(send)
        except LayerstoreError as error:
            if write is not None:
                _tell(error, environ)
                # The client sees that it got too little.
                raise ConnectionAbortedError(errno.ECONNABORTED, error.message) from error
            failure = _failure(error, environ)
            start_response(failure.line, _headers(failure))
            return [failure.body]
        return []

    def _reply(self, environ: Mapping[str, Any]) -> Reply:
        try:
            request = Request.of(environ)
            require_user(request, self._passwords)
            return self._answer(request)
        except Refused as refusal:
            return refusal.reply
        except ReadOnlyStore as error:
            return Refused(405, "UNSUPPORTED", error.message).reply
        except InvalidReference as error:
            return Refused(400, "NAME_INVALID", error.message).reply
        except NotFound:
            # It was removed between two looks.
            return Refused(404, "BLOB_UNKNOWN", "it was removed this moment").reply
        except LayerstoreError as error:
            return _failure(error, environ)
        except OSError:
            raise  # the connection broke: nobody waits for an answer
        except Exception:
            traceback.print_exc(file=environ["wsgi.errors"])
            return Refused(500, "UNKNOWN", "a defect of layerstore, which its log tells of").reply

    def _answer(self, request: Request) -> Reply:
        found = ((kind, match) for kind, pattern in _ROUTES if (match := pattern.fullmatch(request.path)) is not None)
        kind, match = next(found, ("", None))
        if match is None:
            raise Refused(404, "UNSUPPORTED", "there is nothing at this path")
        if kind in ("support", "catalog"):
            _require(request, "GET", "HEAD")
            return of_json({}) if kind == "support" else listing.catalog(self._repositories, request)
        if kind in ("has", "turn"):
            _require(request, "POST")
            return self._peers.has(request) if kind == "has" else self._peers.turn(request)
        if kind == "shared":
            _require(request, "GET")
            return self._peers.blob(match[1], request)
        name = names.repository(match[1], request)
        reply = self._of(kind, name, match[2] if match.re.groups > 1 else "", request)
        return reply if name.ns is None else reply.with_headers(("OCI-Namespace", name.ns))

    def _of(self, kind: str, name: names.Name, what: str, request: Request) -> Reply:
        repositories, pushing = self._repositories, self._pushing
        match kind:
            case "tags":
                answers = {"GET": lambda: listing.tags(repositories, name, request)}
            case "referrers":
                answers = {"GET": lambda: listing.referrers(repositories, name, what, request)}
            case "manifest":
                answers = {
                    "GET": lambda: pulling.manifest(repositories, name, what, request, self._compression),
                    "PUT": lambda: pushing.put_manifest(name, what, request),
                    "DELETE": lambda: pushing.delete_manifest(name, what),
                }
            case "blob":
                answers = {
                    "GET": lambda: pulling.blob(repositories, name, what, request),
                    "DELETE": lambda: pushing.delete_blob(name, what),
                }
            case "uploads":
                answers = {"POST": lambda: pushing.begin(name, request)}
            case _:
                answers = {
                    "GET": lambda: pushing.status(name, what),
                    "PATCH": lambda: pushing.append(name, what, request),
                    "PUT": lambda: pushing.finish(name, what, request),
                    "DELETE": lambda: pushing.cancel(name, what),
                }
        if self._read_only:
            answers = {method: answer for method, answer in answers.items() if method == "GET" and kind != "upload"}
        _require(request, *answers, *(["HEAD"] if "GET" in answers else []))
        return answers["GET" if request.method == "HEAD" else request.method]()


def _headers(reply: Reply) -> list[tuple[str, str]]:
    headers = [*reply.headers, *_COMMON]
    if reply.status not in (204, 304):
        headers.append(("Content-Length", str(len(reply.body) if reply.size is None else reply.size)))
    return headers


def _failure(error: LayerstoreError, environ: Mapping[str, Any]) -> Reply:
    """The answer where the store failed, and a line for who runs the server."""
    _tell(error, environ)
    return Refused(507 if error.errno in FULL else 500, "UNKNOWN", error.message).reply


def _tell(error: LayerstoreError, environ: Mapping[str, Any]) -> None:
    print(f"layerstore: {error}", file=environ["wsgi.errors"], flush=True)


def _require(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise Refused(405, "UNSUPPORTED", "the operation is unsupported", headers=[("Allow", ", ".join(methods))])
