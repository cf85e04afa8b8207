"""Logging in and out: a name and password are checked by the registry, then kept where docker keeps them.

That is a credential helper, where docker's config.json names one, else that file: nobody else may read it, it is
written beside and renamed, and what it has of others is left as it is.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from layerstore import config as configuration
from layerstore.config import Config
from layerstore.errors import InvalidReference, KernelError, RegistryError, Unauthorized, remedy_for
from layerstore.reference import parse
from layerstore.registry.transport.credentials import (
    Credentials,
    ask_helper,
    docker_file,
    find_in,
    host_of_key,
    is_whole,
    key_of,
    podman_file,
    read_file,
)
from layerstore.registry.transport.hosts import HUB, endpoints
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = ["LoggedIn", "check", "known", "logged_in", "login", "logout", "registry_of", "still_known"]


@frozen
class LoggedIn:
    """Where credentials are now. `helper`: the program that has them; None: they are in `file`, unencrypted.

    `is_open`: the registry asked for none, so nothing is known of whether they are right.
    """

    registry: str
    username: str
    file: Path
    helper: str | None
    is_open: bool
    is_token: bool
    """What is kept is a token that the registry gave, and not the password."""


def login(
    server: str = HUB,
    *,
    username: str,
    password: str,
    config: Config | str | Path | None = None,
    verify: bool | None = None,
    file: Path | None = None,
    told: Callable[[str], None] | None = None,
) -> LoggedIn:
    """Have `server` (`registry.example:5000`, by default Docker Hub) check the credentials, and keep them.

    `config` is a daemon.json, or one that was read: it says which registries are insecure. `file`: keep them there, and
    not in docker's config.json. Raises `Unauthorized` for a wrong name or password, `Unreachable`, and `ConfigError`
    for a config.json that cannot be read.
    """
    registry = registry_of(server)
    if not username or not password or ":" in username or not (username + password).isprintable():
        what = "user name" if not username or ":" in username or not username.isprintable() else "password"
        raise Unauthorized(f"that is no {what}", remedy="Neither may be empty, nor the name have a colon in it.")
    given = Credentials(username, password, source="the name and password that were given", wants_identity=True)
    kept = docker_file() if file is None else file
    # Before the registry is asked: what cannot be kept need not be checked.
    content = read_file(kept) or {}
    identity, is_open = _checked(_settings(config, verify=verify), registry, given, told)
    if identity:
        given = Credentials(username, identity_token=identity)
    helper = _helper_of(content, registry)
    if helper is not None:
        _give(helper, registry, given, kept)
    _keep(registry, {} if helper is not None else _entry(given), kept)
    return LoggedIn(registry, username, kept, helper, is_open, bool(identity))


def logged_in(file: Path | None = None) -> list[str]:
    """The registries for which `login` has kept credentials, there or in docker's config.json."""
    kept = docker_file() if file is None else file
    content = read_file(kept) or {}
    helpers = content.get("credHelpers")
    keys = [*_auths(content), *(helpers if isinstance(helpers, dict) else ())]
    return sorted({host_of_key(key) for key in keys if is_whole(key)})


def logout(server: str = HUB, *, file: Path | None = None) -> bool:
    """Forget the credentials for `server`, as `login` keeps them. False: there were none."""
    registry = registry_of(server)
    kept = docker_file() if file is None else file
    content = read_file(kept)
    if content is None:
        return False
    helper = _helper_of(content, registry)
    had_any = False
    if helper is not None:
        had_any = ask_helper(helper, "get", key_of(registry), why=f"{kept}") is not None
        if had_any:
            ask_helper(helper, "erase", key_of(registry), why=f"{kept}")
    if any(_is_of(key, registry) for key in _auths(content)):
        _keep(registry, None, kept)
        had_any = True
    return had_any


def known(server: str = HUB, *, file: Path | None = None) -> Credentials | None:
    """What docker's file, or `file`, and the helpers that it names have for `server`."""
    kept = docker_file() if file is None else file
    content = read_file(kept)
    return None if content is None else find_in(content, kept, registry_of(server), "")


def check(server: str, given: Credentials, *, config: Config | str | Path | None = None) -> None:
    """Have `server` check credentials, and keep nothing. Raises as `login` does."""
    _checked(_settings(config, verify=None), registry_of(server), given, None)


def still_known(server: str) -> Path | None:
    """podman's file, if that still has credentials for `server`: `logout` leaves it alone."""
    content = read_file(podman_file())
    auths = {} if content is None else _auths(content)
    return podman_file() if any(_is_of(key, registry_of(server)) for key in auths) else None


def registry_of(server: str) -> str:
    """The registry that a person means: `https://host/v1/` is `host`. Raises `RegistryError` for what is no host."""
    bare = server.removeprefix("https://").removeprefix("http://").rstrip("/")
    host = host_of_key(bare)
    try:
        reference = parse(f"{host}/name")
    except InvalidReference:
        reference = None
    is_host = reference is not None and (reference.domain == host or host == HUB)
    if not is_host or not is_whole(server):
        raise RegistryError(
            f"{printable(server)!r} is not a registry",
            remedy="A registry is a host, such as registry.example or registry.example:5000; none is Docker Hub.",
        )
    return host


# ---- asking


def _settings(config: Config | str | Path | None, *, verify: bool | None) -> Settings:
    return Settings.of(configuration.given(config), verify=verify)


def _checked(
    settings: Settings, registry: str, given: Credentials, told: Callable[[str], None] | None
) -> tuple[str | None, bool]:
    """The identity token that the registry gave for them, if it did, and whether it asked for none at all."""
    from layerstore.registry.transport.http import Http

    name = printable(registry)
    with Http(settings, told=told) as http:
        try:
            with http.request(endpoints(settings, registry)[-1], "GET", "/v2/", credentials=given) as reply:
                if reply.status == 404:
                    words = f"{name} is no registry: it answered 404 to /v2/"
                    raise RegistryError(words, remedy="Look whether the name is right.", status=404)
                if reply.status != 200:
                    raise reply.failure(f"logging in to {name}")
                return http.identity_of(given), reply.account is None
        except Unauthorized as refused:
            raise Unauthorized(
                f"{name} does not know this name and password", remedy="Look whether both are right.", status=401
            ) from refused


# ---- keeping


def _entry(given: Credentials) -> dict[str, str]:
    packed = base64.b64encode(f"{given.username}:{given.password}".encode()).decode()
    return {"auth": packed, "identitytoken": given.identity_token} if given.identity_token else {"auth": packed}


def _give(helper: str, registry: str, given: Credentials, kept: Path) -> None:
    username, secret = given.username, given.password
    if given.identity_token:
        username, secret = "<token>", given.identity_token
    text = json.dumps({"ServerURL": key_of(registry), "Username": username, "Secret": secret})
    ask_helper(helper, "store", text, why=f"{kept}")


def _helper_of(content: dict[str, Any], registry: str) -> str | None:
    helpers = content.get("credHelpers")
    for key in (key_of(registry), registry):
        if isinstance(helpers, dict) and isinstance(helpers.get(key), str) and helpers[key]:
            return str(helpers[key])
    store = content.get("credsStore")
    return store if isinstance(store, str) and store else None


def _auths(content: dict[str, Any]) -> dict[str, Any]:
    auths = content.get("auths")
    return auths if isinstance(auths, dict) else {}


def _is_of(key: str, registry: str) -> bool:
    return host_of_key(key) == registry and is_whole(key)


def _keep(registry: str, entry: dict[str, str] | None, kept: Path) -> None:
    """Alter the entry of one registry in a file as docker's; None takes it out."""
    file = Path(os.path.realpath(kept))  # it may be a link to where somebody keeps such files
    with _writing(file):
        content = read_file(file) or {}
        auths = {key: value for key, value in _auths(content).items() if not _is_of(key, registry)}
        if entry is not None:
            auths[key_of(registry)] = entry
        _replace(file, json.dumps({**content, "auths": auths}, indent="\t", ensure_ascii=False))


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """While inside, nobody else of ours writes it; an error of the system says which file it was about."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    except OSError as error:
        number = error.errno or 0
        raise KernelError("write", number, path=file, remedy=remedy_for(number, elsewhere=True)) from error


def _replace(file: Path, text: str) -> None:
    # One name for all, who take turns: what a killed one has left, with its secrets, goes with the next.
    beside = file.with_name(f".{file.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
