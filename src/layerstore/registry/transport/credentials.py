"""Who we are to a registry: docker's and podman's files, and the helpers that they name.

Asked in this order: docker's config.json (`credHelpers`, `credsStore`, `auths`), then podman's auth.json. Nothing that
is secret is in a message, an argument of a process, or the text form of a value.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import field

from layerstore.access import Access
from layerstore.errors import ConfigError, RegistryError, remedy_for
from layerstore.reference import HUB, registry_at
from layerstore.registry.transport.words import printable
from layerstore.values import frozen

__all__ = [
    "HUB_KEY",
    "Credentials",
    "ask_helper",
    "docker_file",
    "find",
    "find_in",
    "host_of_key",
    "is_whole",
    "key_of",
    "podman_file",
    "read_file",
]

HUB_KEY: Final = "https://index.docker.io/v1/"
"""The name that docker gives Docker Hub in its file, and that helpers know it by."""

_TOKEN_USER: Final = "<token>"
_NOT_FOUND: Final = "credentials not found"
_HELPER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PATIENCE: Final = 120.0
"""Seconds that a helper gets: it may have to ask its user."""
_LARGEST: Final = 4 << 20


@frozen
class Credentials:
    """A name and a secret. `source` says where they are from, for messages.

    `identity_token` is exchanged for access tokens (OAuth's refresh token); `registry_token` is such a token already.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    source: str = ""
    wants_identity: bool = False
    """The token service is asked for an identity token, to be kept in the password's place."""

    @property
    def basic(self) -> str | None:
        """The value of an `Authorization: Basic` header, if they can be used so."""
        if not self.username or not self.password:
            return None
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(registry: str, repository: str = "", access: Access | None = None) -> Credentials | None:
    """The credentials for `registry` (`docker.io`, `host:port`); None: it is asked anonymously.

    `access`: what the call itself says, which comes before all that is kept. Raises `ConfigError` for a file that is no
    such file, `RegistryError` for a helper that failed.
    """
    if access is not None and access.username and registry == access.host:
        return Credentials(access.username, access.password, source="the credentials that were given")
    named = None if access is None else access.auth_file
    for file in _files() if named is None else (named,):
        content = read_file(file)
        found = None if content is None else find_in(content, file, registry, repository)
        if found is not None:
            return found
    return None


def docker_file() -> Path:
    """docker's config.json: in `$DOCKER_CONFIG`, or in ~/.docker."""
    folder = os.environ.get("DOCKER_CONFIG")
    return Path(folder) / "config.json" if folder else Path.home() / ".docker" / "config.json"


def podman_file() -> Path:
    """podman's auth.json, as containers-auth.json(5) finds it."""
    named = os.environ.get("REGISTRY_AUTH_FILE")
    if named:
        return Path(named)
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime or f"/run/containers/{os.geteuid()}") / ("containers/auth.json" if runtime else "auth.json")


def key_of(registry: str) -> str:
    """The name that `registry` has in docker's file and for helpers."""
    return HUB_KEY if registry == HUB else registry


def host_of_key(key: str) -> str:
    """`docker.io`, `host:port`: what a key means, which may carry a scheme and a path."""
    host = re.sub(r"^https?://", "", key).partition("/")[0]
    return registry_at(host)


def read_file(file: Path) -> dict[str, Any] | None:
    """What such a file says; None where there is none. Raises `ConfigError` for one that cannot be read."""
    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}", remedy=remedy_for(error.errno), path=file, errno=error.errno
        ) from None
    try:
        content = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: not a JSON object", remedy="Mend it, or move it away and log in again.", path=file)
    return content


def ask_helper(helper: str, verb: str, text: str, *, why: str) -> bytes | None:
    """Run `docker-credential-HELPER VERB` with `text` as its input; its output, or None for "not found".

    The protocol is that of docker-credential-helpers. `why`: where it is configured, for messages.
    """
    import subprocess

    program = f"docker-credential-{helper}"
    remedy = f"It is named in {why}: install it, or take it out there."
    if not _HELPER.fullmatch(helper):
        raise ConfigError(f"{printable(helper)!r} is not the name of a credential helper", remedy=remedy)
    try:
        done = subprocess.run([program, verb], input=text.encode(), capture_output=True, timeout=_PATIENCE, check=False)
    except FileNotFoundError:
        raise RegistryError(f"the credential helper {program} is not installed", remedy=remedy) from None
    except OSError as error:
        raise RegistryError(f"the credential helper {program} cannot be run: {error.strerror}", remedy=remedy) from None
    except subprocess.TimeoutExpired:
        raise RegistryError(
            f"the credential helper {program} has not answered for {_PATIENCE:.0f} s",
            remedy=f"Run it by hand ({program} {verb}), and see what it waits for. {remedy}",
        ) from None
    if done.returncode == 0:
        return done.stdout
    said = (done.stdout if done.stdout.strip() else done.stderr).decode(errors="replace")
    if verb in ("get", "erase") and _NOT_FOUND in said:
        return None
    # What is said on success has the secret in it, what is said on failure has not.
    words = f": {printable(said)}" if said.strip() else f" with exit code {done.returncode}"
    raise RegistryError(f"the credential helper {program} failed{words}", remedy=remedy)


# ---- in a file


def _files() -> Iterator[Path]:
    yield docker_file()
    yield podman_file()
    yield Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "containers" / "auth.json"


def find_in(content: Mapping[str, Any], file: Path, registry: str, repository: str) -> Credentials | None:
    """What `file`, whose content that is, and the helpers that it names have for `registry`."""
    helpers = _object(content, "credHelpers", file)
    for key in (key_of(registry), *_names(registry, repository)):
        if isinstance(helpers.get(key), str) and helpers[key]:
            found = _from_helper(helpers[key], key, f"credHelpers of {file}")
            if found is not None:
                return found
    store = content.get("credsStore")
    if isinstance(store, str) and store:
        found = _from_helper(store, key_of(registry), f"credsStore of {file}")
        if found is not None:
            return found
    return _from_auths(_object(content, "auths", file), file, registry, repository)


def _names(registry: str, repository: str) -> Iterator[str]:
    """What an entry for this repository may be called, the most precise first: `host/team/app`, `host/team`, `host`."""
    parts = [registry, *repository.split("/")] if repository else [registry]
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[:count])


def _from_auths(auths: Mapping[str, Any], file: Path, registry: str, repository: str) -> Credentials | None:
    by_host = (key for key in auths if host_of_key(key) == registry and is_whole(key))
    for key in (*_names(registry, repository), key_of(registry), *by_host):
        found = _of_entry(auths.get(key), f"{file}")
        if found is not None:
            return found
    return None


def is_whole(key: str) -> bool:
    """Whether a key means a whole registry: `https://host/v1/` does, `host/team` is podman's for a part of it."""
    path = re.sub(r"^https?://", "", key).partition("/")[2].strip("/")
    return key.startswith(("http://", "https://")) or path in ("", "v1", "v2")


def _of_entry(entry: object, source: str) -> Credentials | None:
    if not isinstance(entry, dict):
        return None
    username, password = _text(entry, "username"), _text(entry, "password")
    packed = _text(entry, "auth")
    if packed:
        try:
            text = base64.b64decode(packed, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise ConfigError(
                f"{source}: an entry of auths has an auth that is not Base64 of name:password",
                remedy="Log in again: `layerstore login`, with the registry's name.",
                path=source,
            ) from None
        username, _, password = text.partition(":")
        password = password.strip("\0")
    token, ready = _text(entry, "identitytoken"), _text(entry, "registrytoken")
    if not (username and password) and not token and not ready:
        return None  # {}: docker's sign that a helper has it
    return Credentials(username, password, token, ready, source)


def _from_helper(helper: str, key: str, why: str) -> Credentials | None:
    output = ask_helper(helper, "get", key, why=why)
    if output is None:
        return None
    try:
        answer = json.loads(output)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise RegistryError(
            f"the credential helper docker-credential-{helper} does not answer in JSON",
            remedy=f"It is named in {why}: mend it, or take it out there.",
        )
    username, secret = _text(answer, "Username"), _text(answer, "Secret")
    source = f"docker-credential-{helper}"
    if not secret:
        return None
    if username == _TOKEN_USER:
        return Credentials(identity_token=secret, source=source)
    return Credentials(username, secret, source=source)


def _object(content: Mapping[str, Any], key: str, file: Path) -> Mapping[str, Any]:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{file}: {key} is not an object", remedy="Mend it, or move it away and log in again.", path=file
        )
    return value


def _text(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""
