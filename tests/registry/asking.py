"""What the tests of `Http` share: settings with patience, and a client that notes what it was told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from attrs import evolve

from layerstore.registry.transport.hosts import Endpoint, endpoints
from layerstore.registry.transport.http import Http, Reply, Rights
from layerstore.registry.transport.settings import Settings

from .servers.memory import INDEX
from .servers.memory import MANIFEST as MANIFEST_TYPE

# A server of the tests answers when its machine lets it: only a test of silence waits for less than this.
SETTINGS = Settings(connect_timeout=20.0, read_timeout=20.0, pause=0.01, longest_pause=3.0, unrelated_timeout=20.0)

PULL = (Rights("team/app", ("pull",)),)
PUSH = (Rights("team/app", ("pull", "push")),)
MANIFEST = "/v2/team/app/manifests/latest"


class Asking(Http):
    """A client, and what it told its user."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.heard: list[str] = []
        super().__init__(settings, told=self.heard.append)

    def get(self, host: str, target: str = MANIFEST, access: Sequence[Rights] = PULL, method: str = "GET") -> Reply:
        """Ask the registry called `host`."""
        return self.request(
            self.endpoint(host), method, target, access=access, headers={"Accept": f"{INDEX}, {MANIFEST_TYPE}"}
        )

    def status(self, host: str, target: str = MANIFEST, access: Sequence[Rights] = PULL) -> int:
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


def hasty(**changes: object) -> AbstractContextManager[Asking]:
    """A client for a server that falls silent: what comes at all comes sooner than its patience ends."""
    return asking(read_timeout=2.0, unrelated_timeout=2.0, **changes)
