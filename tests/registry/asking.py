"""What the tests of `Http` share: settings that lose patience soon, and a client that notes what it was told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from attrs import evolve

from layerstore.registry.transport.hosts import Endpoint, endpoints
from layerstore.registry.transport.http import Access, Http, Reply
from layerstore.registry.transport.settings import Settings

from .servers.memory import INDEX
from .servers.memory import MANIFEST as MANIFEST_TYPE

SETTINGS = Settings(connect_timeout=2.0, read_timeout=0.4, pause=0.01, longest_pause=3.0, unrelated_timeout=0.3)

PULL = (Access("team/app", ("pull",)),)
PUSH = (Access("team/app", ("pull", "push")),)
MANIFEST = "/v2/team/app/manifests/latest"


class Asking(Http):
    """A client, and what it told its user."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.heard: list[str] = []
        super().__init__(settings, told=self.heard.append)

    def get(self, host: str, target: str = MANIFEST, access: Sequence[Access] = PULL, method: str = "GET") -> Reply:
        """Ask the registry called `host`."""
        return self.request(
            self.endpoint(host), method, target, access=access, headers={"Accept": f"{INDEX}, {MANIFEST_TYPE}"}
        )

    def status(self, host: str, target: str = MANIFEST, access: Sequence[Access] = PULL) -> int:
        """How it answers."""
        with self.get(host, target, access) as reply:
            return reply.status

    def endpoint(self, host: str) -> Endpoint:
        """Where that registry is."""
        return endpoints(self.settings, host)[-1]


@contextmanager
def asking(**changes: object) -> Iterator[Asking]:
    """A client whose settings are `SETTINGS` with these changes."""
    with Asking(evolve(SETTINGS, **changes)) as client:
        yield client
