"""A store that is served to other stores as `layerstore serve` does it, counted, and spoilt where a test wants it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server, Timing

if TYPE_CHECKING:
    from layerstore import Store

Spoil = Callable[[], Callable[[bytes], Iterable[bytes]]]
"""Makes, for each request, what alters each piece of the body that it is given."""


def honest() -> Callable[[bytes], Iterable[bytes]]:
    """Nothing is altered."""
    return lambda data: [data]


class ServedStore:
    """`store` at `url`, while the `with` lasts. `asked` has the paths, `given` counts the bytes of blobs.

    `settings` are those of `Registry`.
    """

    def __init__(self, store: Store, *, spoil: Spoil = honest, **settings: Any) -> None:
        self.asked: list[str] = []
        self.given = 0
        self._registry = Registry(store, **settings)
        self._spoil = spoil
        self._running = ExitStack()

    def __enter__(self) -> Self:
        self._running.callback(self._registry.close)
        self._server = self._running.enter_context(
            Server("127.0.0.1", 0, self._answer, threads=24, timing=Timing(tick=0.02, shutdown=0.2))
        )
        self.url = self._server.url
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def _answer(self, environ: Any, start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.asked.append(environ["PATH_INFO"])
        alter = self._spoil()

        def start(status: str, headers: list[tuple[str, str]]) -> Callable[[bytes], None]:
            write = start_response(status, headers)

            def counted(data: bytes) -> None:
                for piece in alter(data):
                    write(piece)
                    self.given += len(piece)

            return counted

        return self._registry(environ, start)
