"""The tests' own servers do what the tests rely on, and a foreign client agrees that they are registries."""

from __future__ import annotations

import http.client
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from support import images

from .servers import debian, tokens
from .servers.debian import DockerRegistry
from .servers.quirks import Quirks, cut, moved, reset, stall, unsatisfiable
from .servers.tokens import TokenService

LAYERS = [images.layer(images.file("a", "one")), images.layer(images.file("b", b"two" * 1000))]


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An image of two layers."""
    return images.oci_layout(tmp_path / "layout", LAYERS)


@pytest.fixture
def there_and_back(layout: Path, tmp_path: Path) -> Callable[..., None]:
    """Has skopeo push the image to a registry, and pull it again."""

    def copy(target: str, *options: str) -> None:
        for source, goal, flag in (
            (f"oci:{layout}:latest", f"docker://{target}", "dest"),
            (f"docker://{target}", f"oci:{tmp_path}/back:latest", "src"),
        ):
            creds = [f"--{flag}-{option}" for option in ("tls-verify=false", *options)]
            done = subprocess.run(
                ["skopeo", "copy", "-q", *creds, source, goal], capture_output=True, text=True, timeout=30
            )
            assert done.returncode == 0, done.stderr
        back = {path.name for path in (tmp_path / "back/blobs/sha256").iterdir()}
        assert back == {path.name for path in (layout / "blobs/sha256").iterdir()}

    return copy


CREDENTIALS = f"creds={debian.USER}:{debian.PASSWORD}"
assert (debian.USER, debian.PASSWORD) == (tokens.USER, tokens.PASSWORD)


@pytest.mark.tools("skopeo")
def test_skopeo_takes_each_of_them_for_a_registry(
    docker_registry: DockerRegistry,
    basic_registry: DockerRegistry,
    token_registry: tuple[DockerRegistry, TokenService],
    quirks: Quirks,
    there_and_back: Callable[..., None],
    repository: str,
) -> None:
    there_and_back(f"{docker_registry.host}/{repository}:1")
    there_and_back(f"{basic_registry.host}/{repository}:1", CREDENTIALS)
    there_and_back(f"{token_registry[0].host}/{repository}:1", CREDENTIALS)
    there_and_back(f"{quirks.host}/{repository}:1")
    assert len(quirks.asked("PUT", f"/v2/{repository}/manifests/1")) == 1


@pytest.mark.tools("skopeo")
def test_quirks_ask_for_a_token(quirks: Quirks, tokens: TokenService, there_and_back: Callable[..., None]) -> None:
    quirks.tokens = tokens
    there_and_back(f"{quirks.host}/a/b:1", CREDENTIALS)
    assert tokens.asked("GET", "/token")
    tokens.revoke()
    assert "401" in _status(quirks, "GET", "/v2/a/b/manifests/1")


def test_requests_are_remembered(quirks: Quirks) -> None:
    blob = quirks.put_blob("a/b", b"0123456789")
    client = http.client.HTTPConnection(quirks.host)
    for _ in range(2):
        client.request("GET", f"/v2/a/b/blobs/{blob}", headers={"Range": "bytes=2-4"})
        assert client.getresponse().read() == b"234"
    client.close()
    first, second = quirks.asked("GET", "/blobs/")
    assert (first.status, first.sent, first.headers["Range"], first.connection) == (206, 3, "bytes=2-4", 1)
    assert second.connection == 1
    assert (quirks.sent("/blobs/"), quirks.connections) == (6, 1)


def test_what_is_spoilt_is_spoilt_as_often_as_was_said(quirks: Quirks, elsewhere: Quirks) -> None:
    blob = quirks.put_blob("a/b", bytes(100_000))
    path = f"/v2/a/b/blobs/{blob}"
    quirks.spoil("GET", "/blobs/", cut(70_000), after=1, times=1)
    assert [_length(quirks, path) for _ in range(3)] == [100_000, 70_000, 100_000]
    quirks.spoil("GET", "/blobs/", reset(), times=1)
    with pytest.raises(ConnectionError):
        _length(quirks, path)
    quirks.spoil("GET", "/blobs/", moved(elsewhere.url))
    assert _status(quirks, "GET", path) == f"307 {elsewhere.url}{path}"
    quirks.behave()
    quirks.spoil("GET", "/blobs/", unsatisfiable(100_000))
    assert _status(quirks, "GET", path) == "416 None"
    quirks.behave()
    quirks.spoil("GET", "/blobs/", stall(10))
    with pytest.raises(TimeoutError):
        _length(quirks, path, timeout=0.1)


def _length(server: Quirks, path: str, timeout: float = 30) -> int:
    client = http.client.HTTPConnection(server.host, timeout=timeout)
    try:
        client.request("GET", path)
        return len(client.getresponse().read())
    except http.client.IncompleteRead as error:
        return len(error.partial)
    finally:
        client.close()


def _status(server: Quirks, method: str, path: str) -> str:
    client = http.client.HTTPConnection(server.host, timeout=30)
    try:
        client.request(method, path)
        reply = client.getresponse()
        return f"{reply.status} {reply.headers['Location']}"
    finally:
        client.close()
