"""A request, and the reply to it, whatever server brings them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, Final
from urllib.parse import parse_qs

from attrs import evolve, field

from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.faces.serve.passwords import Passwords

Write = Callable[[bytes | memoryview], object]

_QUERY_LIMIT: Final = 64
"""The most parameters of a query."""

_UNPRINTABLE: Final = re.compile(r"[^\x20-\x7e]")


@frozen
class Reply:
    """What is answered. `stream` writes a body of `size` bytes; without it, `body` is all of it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    stream: Callable[[Write], None] | None = None
    size: int | None = None

    @property
    def line(self) -> str:
        """`404 Not Found`."""
        return f"{self.status} {HTTPStatus(self.status).phrase}"

    def with_headers(self, *headers: tuple[str, str]) -> Reply:
        """The same, with more headers."""
        return evolve(self, headers=(*self.headers, *headers))


class Refused(Exception):
    """A request that is answered by an error (distribution-spec, "Error Codes")."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        detail: object = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        error: dict[str, object] = {"code": code, "message": message}
        if detail is not None:
            error["detail"] = detail
        self.errors = [error]
        self.headers = tuple(headers)

    @property
    def reply(self) -> Reply:
        """What to answer."""
        return of_json({"errors": self.errors}, status=self.status).with_headers(*self.headers)


def of_json(value: object, *, status: int = 200, media_type: str = "application/json") -> Reply:
    """A reply whose body is JSON."""
    return Reply(status, (("Content-Type", media_type),), json.dumps(value, separators=(",", ":")).encode())


def warning(text: str) -> tuple[str, str]:
    """The header that tells a person something (distribution-spec, "Warnings")."""
    quoted = _UNPRINTABLE.sub("?", text)[:1000].replace("\\", "\\\\").replace('"', '\\"')
    return "Warning", f'299 - "{quoted}"'


@frozen
class Request:
    """What is asked. `path` is unquoted; `body` gives up to so many bytes, and none at the end."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str] = field(repr=False)
    body: BinaryIO = field(repr=False)

    @classmethod
    def of(cls, environ: Mapping[str, Any]) -> Request:
        """The request that a WSGI server was sent. Raises `Refused`."""
        try:
            path = environ.get("PATH_INFO", "").encode("latin-1").decode()
            query = parse_qs(
                environ.get("QUERY_STRING", ""), keep_blank_values=True, errors="strict", max_num_fields=_QUERY_LIMIT
            )
        except ValueError:
            raise Refused(400, "UNSUPPORTED", "the URL is not as URLs are") from None
        headers = {name[5:].replace("_", "-").lower(): text for name, text in environ.items() if name[:5] == "HTTP_"}
        headers["content-type"] = environ.get("CONTENT_TYPE") or ""
        headers["content-length"] = environ.get("CONTENT_LENGTH") or ""
        return cls(environ["REQUEST_METHOD"], path, query, headers, environ["wsgi.input"])

    def parameter(self, name: str) -> str | None:
        """The last value of a parameter of the query."""
        values = self.query.get(name)
        return values[-1] if values else None

    def header(self, name: str) -> str:
        """A header, "" if it is not there."""
        return self.headers.get(name.lower(), "").strip()


def require_user(request: Request, passwords: Passwords | None) -> None:
    """Raise `Refused` if there are passwords, and who asks says none of them."""
    if passwords is None or passwords.admit(request.header("Authorization")):
        return
    raise Refused(
        401,
        "UNAUTHORIZED",
        "authentication required",
        headers=[("WWW-Authenticate", 'Basic realm="layerstore", charset="UTF-8"')],
    )
