"""A store that is served to other stores: only what `registry.remotes.peer` asks for, and what can go wrong with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

from layerstore.registry.remotes.answering import Answering, BadQuestion

if TYPE_CHECKING:
    from layerstore import Store

Spoil = Callable[[Iterator[bytes]], Iterator[bytes]]


class ServedStore:
    """`store` at `url`, while the `with` lasts. `spoil` alters what it gives out; `asked` notes the paths."""

    def __init__(self, store: Store, *, spoil: Spoil = iter, silence: float = 0.5) -> None:
        self.asked: list[str] = []
        self.given = 0
        answering = Answering(store.id, store.blobs, silence=silence)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                server.asked.append(self.path)
                question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._say(200, (answering.has if self.path.endswith("/has") else answering.turn)(question))

            def do_GET(self) -> None:
                server.asked.append(self.path)
                parts = urlsplit(self.path)
                size, digest = int(parse_qs(parts.query)["size"][0]), parts.path.rpartition("/")[2]
                start = int(self.headers["Range"].removeprefix("bytes=").partition("-")[0])
                try:
                    body = answering.blob(digest, start, size)
                except BadQuestion as error:
                    return self._say(400, {"message": error.message})
                if body is None:
                    return self._say(404, {})
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                self.send_header("Content-Length", str(size - start))
                self.end_headers()
                sent = 0
                try:
                    for piece in spoil(body()):
                        self.wfile.write(piece)
                        sent += len(piece)
                        server.given += len(piece)
                except OSError:
                    pass
                self.close_connection = self.close_connection or sent < size - start
                return None

            def _say(self, status: int, answer: dict[str, Any]) -> None:
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._http = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
