"""The servers that a repository is read from: mirrors first, each as long as it is good, and the registry itself last.

A mirror is a help and never a condition: one that fails, or gives out what is wrong, is asked no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import quote

from layerstore.errors import LayerstoreError
from layerstore.registry.transport.hosts import Source
from layerstore.registry.transport.http import Http, Reply, Rights

__all__ = ["Endpoints"]


class Endpoints:
    """For one repository, and what `actions` say. `all`: the mirrors in their order, and the registry. Thread-safe."""

    def __init__(self, http: Http, all: Sequence[Source], actions: Sequence[str]) -> None:
        *mirrors, self.own = all
        self._mirrors = tuple(mirrors)
        self._http = http
        self._actions = tuple(actions)

    def ask(
        self, method: str, target: str, headers: Mapping[str, str], *, is_own: bool = False
    ) -> tuple[Reply, Source | None]:
        """The first good reply, and the mirror that it is from; else the registry's, whatever it is.

        `target`: what is asked for within the repository. `is_own`: no mirror is asked.
        """
        for mirror in () if is_own else self._mirrors:
            try:
                # Once: to ask the next one is better than to ask again.
                reply = self._of(mirror, method, target, headers, repeat=False)
            except LayerstoreError:
                self.drop(mirror)
                continue
            if reply.status < 400 or reply.status == 416:
                return reply, mirror
            reply.close()
            if reply.status != 404:
                self.drop(mirror)
        return self._of(self.own, method, target, headers), None

    def _of(
        self, source: Source, method: str, target: str, headers: Mapping[str, str], *, repeat: bool | None = None
    ) -> Reply:
        path = f"/v2/{quote(source.path)}/{target}"
        access = (Rights(source.path, self._actions),)
        return self._http.request(source.endpoint, method, path, access=access, headers=headers, repeat=repeat)

    def drop(self, mirror: Source) -> None:
        """Ask that one no more."""
        self._mirrors = tuple(kept for kept in self._mirrors if kept != mirror)
