"""The application: the files of the page, and what it asks for. Nothing that is asked alters anything.

What is answered is looked up by name in tables: no path of a request reaches the file system.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from layerstore.errors import LayerstoreError, NotFound
from layerstore.faces.serve.messages import Refused, Reply, Request, of_json, require_user
from layerstore.faces.ui import guard
from layerstore.faces.ui.documents import Documents

if TYPE_CHECKING:
    from layerstore.faces.serve.passwords import Passwords
    from layerstore.store import Store

__all__ = ["Page"]

_FILES: Final = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
    "/data.js": ("data.js", "text/javascript"),
    "/dom.js": ("dom.js", "text/javascript"),
    "/table.js": ("table.js", "text/javascript"),
    "/picture.js": ("picture.js", "text/javascript"),
    "/details.js": ("details.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_LISTS: Final = ("images", "layers", "containers", "checkpoints", "volumes")

_COMMON: Final = (
    # What is in a name or a label could not run, even if the page took it for markup: nothing inline, nothing else's.
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


class Page:
    """A WSGI application (PEP 3333) that shows a store. Any number of threads may call it.

    `token`: what whoever asks for more than the empty page has to know; None: nothing. `passwords`: who may come in;
    None is everybody. `names`: of this machine, by which the page may be asked for; addresses and localhost always are.
    """

    def __init__(
        self,
        store: Store,
        *,
        token: str | None = None,
        passwords: Passwords | None = None,
        names: Collection[str] = (),
    ) -> None:
        self._documents = Documents(store)
        self._token = token
        self._passwords = passwords
        self._names = frozenset(name.lower() for name in names)
        folder = resources.files(__package__).joinpath("page")
        self._files = {
            path: Reply(200, (("Content-Type", f"{kind}; charset=utf-8"),), folder.joinpath(name).read_bytes())
            for path, (name, kind) in _FILES.items()
        }

    def warm(self) -> None:
        """Read what is listed, so that the first who looks need not wait for it; of use in a thread of its own."""
        self._documents.warm()

    def __call__(self, environ: Mapping[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        reply = self._reply(environ)
        start_response(reply.line, [*reply.headers, *_COMMON, ("Content-Length", str(len(reply.body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [reply.body]

    def _reply(self, environ: Mapping[str, Any]) -> Reply:
        try:
            request = Request.of(environ)
            guard.require_host(request, self._names)
            if request.method not in ("GET", "HEAD"):
                raise Refused(405, "UNSUPPORTED", "the page only shows what there is", headers=[("Allow", "GET, HEAD")])
            require_user(request, self._passwords)
            if request.path in self._files:
                return self._files[request.path]
            guard.require_here(request)
            if self._token is not None:
                guard.require_token(request, self._token)
            return of_json(self._answer(request))
        except Refused as refusal:
            return refusal.reply
        except NotFound as error:
            return Refused(404, "UNKNOWN", error.message).reply
        except LayerstoreError as error:
            print(f"layerstore: {error}", file=environ["wsgi.errors"], flush=True)
            return Refused(500, "UNKNOWN", str(error)).reply
        except OSError:
            raise  # the connection broke: nobody waits for an answer
        except Exception:
            traceback.print_exc(file=environ.get("wsgi.errors", sys.stderr))
            return Refused(500, "UNKNOWN", "a defect of layerstore, which its log tells of").reply

    def _answer(self, request: Request) -> object:
        documents = self._documents
        match request.path.removeprefix("/api/"):
            case "version":
                return documents.version()
            case "info":
                return documents.info()
            case "space":
                return documents.space()
            case "check":
                return documents.check()
            case "image":
                return documents.image(request.parameter("id") or "")
            case "container":
                return documents.container(request.parameter("id") or "")
            case "volume":
                return documents.volume(request.parameter("name") or "")
            case name if name in _LISTS:
                return documents.rows(name, _number(request.parameter("from")))
        raise Refused(404, "UNSUPPORTED", "there is nothing at this path")


def _number(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Refused(400, "UNSUPPORTED", "`from` is the number of a row")
    return int(text)
