"""What registries are asked without a store: the tags of a repository, a manifest as it is, images by a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from layerstore import config as configuration
from layerstore import reference
from layerstore.config import Config
from layerstore.errors import InvalidArchive, NotFound, RegistryError
from layerstore.manifests import DOCUMENT_LIMIT, Manifest, as_list, as_object, parse_object
from layerstore.reference import DEFAULT_TAG, Reference
from layerstore.registry.client.repository import Repository
from layerstore.registry.client.repository import catalog as catalog_of
from layerstore.registry.transport.hosts import HUB, Endpoint, endpoints
from layerstore.registry.transport.http import Http
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = ["Hit", "manifest", "search", "settings_of", "tags"]

_INDEX: Final = "https://index.docker.io"
"""Where Docker Hub answers searches: not where its images are."""

_MOST: Final = 100
"""The most that a search gives, as Docker Hub's."""


@frozen
class Hit:
    """A repository that a search has found. A registry that only lists names says nothing else of them."""

    name: str
    """As it can be pulled: `debian`, `registry.example/team/app`."""
    description: str = ""
    stars: int = 0
    is_official: bool = False
    is_automated: bool = False


def settings_of(config: Config | str | Path | None) -> Settings:
    """How registries are reached by a daemon.json, or by the usual one."""
    return Settings.of(configuration.given(config))


@contextmanager
def _opened(name: str, config: Config | str | Path | None) -> Iterator[tuple[Repository, Reference]]:
    settings, parsed = settings_of(config), reference.parse(name.removeprefix("docker://"))
    with Http(settings) as http:
        yield Repository(http, settings, parsed), parsed


def tags(name: str, *, config: Config | str | Path | None = None) -> Iterator[str]:
    """The tags that a repository has, in the registry's order, as they come.

    `name` is that of a repository: `debian`, `host:5000/team/app`. `config` is a daemon.json. Raises `NotFound`,
    `RegistryError`.
    """
    with _opened(name, config) as (repository, _):
        yield from repository.tags()


def manifest(name: str, *, config: Config | str | Path | None = None) -> Manifest:
    """The manifest, or the index, that a name in a registry leads to: digest, media type, and the bytes as they are."""
    with _opened(name, config) as (repository, parsed):
        return repository.manifest(parsed.digest or parsed.tag or DEFAULT_TAG)


def search(term: str, *, limit: int = 25, config: Config | str | Path | None = None) -> list[Hit]:
    """Repositories that have to do with a word, at most `limit` (100 at the most).

    `term`: a word for Docker Hub; with a host before it, `registry.example/word`, for that registry. One without a
    search is asked for the list of its repositories, and those whose names hold the word are taken. Raises
    `RegistryError` where a registry has neither.
    """
    settings = settings_of(config)
    registry, word = reference.split_host(term)
    limit = max(1, min(limit, _MOST))
    with Http(settings) as http:
        found = _search(http, _endpoint(settings, registry), word, limit)
        if found is None:
            found = _listed(http, settings, registry, word, limit)
    prefix = "" if registry == HUB else f"{registry}/"
    return [hit if hit.name.startswith(prefix) else _renamed(hit, prefix + hit.name) for hit in found][:limit]


def _endpoint(settings: Settings, registry: str) -> Endpoint:
    return Endpoint(HUB, _INDEX) if registry == HUB else endpoints(settings, registry)[-1]


def _search(http: Http, endpoint: Endpoint, word: str, limit: int) -> list[Hit] | None:
    """By the search of docker's first protocol (moby, registry/search_session.go); None where there is none."""
    query = urlencode({"q": word, "n": limit})
    with http.request(endpoint, "GET", f"/v1/search?{query}") as reply:
        if reply.status in (404, 405, 501) or (reply.status == 200 and "json" not in _type_of(reply.headers)):
            return None
        if reply.status != 200:
            raise reply.failure(f"searching for {word!r}")
        data = reply.document(DOCUMENT_LIMIT)
    what = f"the list of {printable(endpoint.registry)}"
    try:
        results = as_list(parse_object(data, what).get("results"), what)
        return [_hit(as_object(result, what)) for result in results]
    except InvalidArchive as error:
        raise RegistryError(error.message, remedy="It does not answer as Docker Hub does: tell who runs it.") from error


def _hit(result: dict[str, Any]) -> Hit:
    stars = result.get("star_count")
    return Hit(
        name=str(result.get("name") or ""),
        description=str(result.get("description") or ""),
        stars=stars if isinstance(stars, int) else 0,
        is_official=result.get("is_official") is True,
        is_automated=result.get("is_automated") is True,
    )


def _listed(http: Http, settings: Settings, registry: str, word: str, limit: int) -> list[Hit]:
    """By the list of all repositories."""
    found = []
    try:
        for name in catalog_of(http, settings, registry):
            if word in name:
                found.append(Hit(name))
                if len(found) == limit:
                    break
    except NotFound as error:
        raise RegistryError(
            f"{printable(registry)} has no search, and no list of its repositories",
            remedy="Look at its own pages; `layerstore tags NAME` lists the tags of a repository.",
        ) from error
    return found


def _renamed(hit: Hit, name: str) -> Hit:
    return Hit(name, hit.description, hit.stars, hit.is_official, hit.is_automated)


def _type_of(headers: Any) -> str:
    return str(headers.get("Content-Type", "")).lower()
