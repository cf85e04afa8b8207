"""The servers that a repository is read from: mirrors first, each as long as it is good, and the registry itself last.

A mirror is a help and never a condition: one that fails, or gives out what is wrong, is asked no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerstore.errors import LayerstoreError
from layerstore.registry.transport.hosts import Endpoint
from layerstore.registry.transport.http import Access, Http, Reply

__all__ = ["Endpoints"]


class Endpoints:
    """For one repository. `all`: the mirrors in their order, and the registry. Thread-safe."""

    def __init__(self, http: Http, all: Sequence[Endpoint], access: Sequence[Access]) -> None:
        *mirrors, self.own = all
        self._mirrors = tuple(mirrors)
        self._http = http
        self._access = access

    def ask(
        self, method: str, path: str, headers: Mapping[str, str], *, is_own: bool = False
    ) -> tuple[Reply, Endpoint | None]:
        """The first good reply, and the mirror that it is from; else the registry's, whatever it is.

        `is_own`: no mirror is asked.
        """
        for mirror in () if is_own else self._mirrors:
            try:
                # Once: to ask the next one is better than to ask again.
                reply = self._http.request(mirror, method, path, access=self._access, headers=headers, repeat=False)
            except LayerstoreError:
                self.drop(mirror)
                continue
            if reply.status < 400 or reply.status == 416:
                return reply, mirror
            reply.close()
            if reply.status != 404:
                self.drop(mirror)
        return self._http.request(self.own, method, path, access=self._access, headers=headers), None

    def drop(self, mirror: Endpoint) -> None:
        """Ask that one no more."""
        self._mirrors = tuple(kept for kept in self._mirrors if kept != mirror)
