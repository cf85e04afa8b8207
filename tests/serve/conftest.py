"""A store that is served, on 127.0.0.1 and a free port, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from layerstore.faces.serve import Registry
from layerstore.faces.serve.server import Server, Timing
from serve.client import Client

if TYPE_CHECKING:
    from layerstore import Store

QUICK = Timing(tick=0.02)
"""As the server's own, but that it ends sooner."""


@pytest.fixture
def serve(store: Store) -> Iterator[Callable[..., Server]]:
    """`serve(read_only=True, timing=...)`: the store as a registry. Ended with the test."""
    with ExitStack() as running:

        def start(
            *, of: Store | None = None, tls: Any = None, timing: Timing = QUICK, threads: int = 6, **settings: Any
        ) -> Server:
            registry = Registry(store if of is None else of, **settings)
            running.callback(registry.close)
            return running.enter_context(Server("127.0.0.1", 0, registry, tls=tls, timing=timing, threads=threads))

        yield start


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    """The store as a registry."""
    return serve()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of it."""
    with Client(f"127.0.0.1:{server.port}") as one:
        yield one
