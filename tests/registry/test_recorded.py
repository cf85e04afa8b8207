"""Docker Hub, ACR, JFrog and others, played by their replies as these are on record in public issues and manuals.

None of them can be reached from where the tests run: what is tested is that their forms are understood.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from attrs import field, frozen
from hypothesis import example, given
from hypothesis import strategies as st

from layerstore.errors import Denied, LayerstoreError, RateLimited, Unauthorized
from support.properties import by_day

from .asking import MANIFEST, PUSH, asking
from .conftest import CredentialFiles
from .servers import quirks as act
from .servers.listening import Answer, Seen
from .servers.quirks import Quirks


@frozen
class Recorded:
    """How a registry lets somebody in: its challenge (`{url}` is the server's), and what its token service answers."""

    challenge: str
    token: Mapping[str, Any] = field(factory=dict)
    refusal: bytes = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}'
    path: str = "/token"
    method: str = "GET"


REGISTRIES = {
    "Docker Hub": Recorded(
        'Bearer realm="{url}/token",service="registry.docker.io",scope="repository:team/app:pull"',
        {"token": "let-in", "access_token": "let-in", "expires_in": 300, "issued_at": "2026-11-28T10:00:00.123456789Z"},
        b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"repository",'
        b'"Class":"","Name":"team/app","Action":"pull"}]}]}\n',
    ),
    "ACR": Recorded(
        'Bearer realm="{url}/oauth2/token",service="myregistry.azurecr.io",scope="repository:team/app:pull"',
        {"access_token": "let-in"},
        path="/oauth2/token",
        method="POST",
    ),
    "JFrog without scope": Recorded(
        'Bearer realm="{url}/v2/token",service="host:443"',
        {"token": "let-in", "expires_in": 3600},
        b'{\n  "errors" : [ {\n    "status" : 401,\n    "message" : "Authentication is required"\n  } ]\n}',
        path="/v2/token",
    ),
    "JFrog with Basic": Recorded('Basic realm="Artifactory Realm"'),
    "ECR": Recorded('Basic realm="{url}/",service="ecr.amazonaws.com"', refusal=b"Not Authorized\n"),
    "GHCR": Recorded(
        'Bearer realm="{url}/token",service="ghcr.io",scope="repository:team/app:pull"', {"token": "let-in"}
    ),
    "GitLab": Recorded(
        'Bearer realm="{url}/jwt/auth",service="container_registry",scope="repository:team/app:pull",error="x"',
        {"token": "let-in"},
        path="/jwt/auth",
    ),
    "Harbor": Recorded(
        'Bearer realm="{url}/service/token",service="harbor-registry",scope="repository:team/app:pull"',
        {"token": "let-in", "access_token": "", "expires_in": 1800, "issued_at": "2026-11-28T10:00:00Z"},
        path="/service/token",
    ),
}


@pytest.mark.parametrize("name", REGISTRIES)
def test_each_of_them_lets_us_in(quirks: Quirks, credential_files: CredentialFiles, name: str) -> None:
    recorded = REGISTRIES[name]
    wanted = f"Basic {base64.b64encode(b'anna:word').decode()}" if "Basic" in recorded.challenge else "Bearer let-in"
    entry = {"auth": base64.b64encode(b"anna:word").decode()}
    if recorded.method == "POST":
        entry = {"auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(), "identitytoken": "id"}
    credential_files.write({"auths": {quirks.host: entry}})
    quirks.put_manifest("team/app", "latest", {"schemaVersion": 2})

    def guard(seen: Seen, answer: Answer) -> Answer:
        if seen.path == recorded.path:
            assert seen.method == recorded.method
            return Answer(200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(recorded.token).encode())
        if seen.authorization == wanted:
            return answer
        headers = {"Www-Authenticate": recorded.challenge.format(url=quirks.url), "Content-Type": "application/json"}
        return Answer(401, headers, recorded.refusal)

    quirks.spoil(None, "", guard)
    with asking() as client:
        assert client.status(quirks.host) == 200
        assert client.status(quirks.host) == 200

    assert [seen.status for seen in quirks.asked(path=MANIFEST)] == [401, 200, 200]
    assert len(quirks.asked(path=f"^{recorded.path}$")) == (1 if recorded.token else 0)


# ---- how they refuse

DENIED = b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}'
LIMIT = (
    b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. '
    b'https://www.docker.com/increase-rate-limit"}]}'
)
REFUSALS = {
    "Hub's limit": (429, LIMIT, RateLimited, "answers no more requests for now"),
    "Hub's wrong password": (401, b'{"details":"incorrect username or password"}', Unauthorized, "incorrect username"),
    "GHCR's denial": (403, DENIED, Denied, "DENIED: requested access to the resource is denied"),
    "JFrog's own form": (
        403,
        b'{"errors":[{"status":403,"message":"Forbidden"}]}',
        Denied,
        "403 Forbidden (Forb",
    ),
    "Artifactory's page": (403, b"<!doctype html><html>", Denied, "with a web page"),
    "ECR's line": (401, b"Not Authorized\n", Unauthorized, "401 Unauthorized"),
    "a denial with 400": (400, DENIED, Denied, "DENIED"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_how_they_refuse(quirks: Quirks, name: str) -> None:
    status, body, kind, words = REFUSALS[name]
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(status, {}, body))

    with asking(attempts=1) as client, client.get(quirks.host) as reply:
        failure = reply.failure("reading app")
    assert type(failure) is kind
    assert words in failure.message
    assert failure.remedy


def test_a_repository_that_is_not_there_is_no_access_for_hub(quirks: Quirks, credential_files: CredentialFiles) -> None:
    """Hub gives a token that allows nothing, then says 401 insufficient_scope: it does not tell which it is."""
    challenge = f'Bearer realm="{quirks.url}/token",service="s",error="insufficient_scope"'

    def hub(seen: Seen, answer: Answer) -> Answer:
        if seen.path == "/token":
            return Answer(200, {}, b'{"token": "for-nothing", "expires_in": 300}')
        return Answer(401, {"WWW-Authenticate": challenge}, DENIED)

    quirks.spoil(None, "", hub)
    credential_files.know(quirks.host, "anna", "word")
    with asking() as client, client.get(quirks.host, access=PUSH) as reply:
        failure = reply.failure("reading app")

    assert isinstance(failure, Denied)
    assert "Look whether the name is right" in str(failure)
    assert len(quirks.asked(path="^/token$")) == 1


def test_a_signed_url_of_a_cloud_gets_no_authorization(
    quirks: Quirks, elsewhere: Quirks, credential_files: CredentialFiles
) -> None:
    """Azure and S3 refuse a request with two signatures."""
    digest = elsewhere.put_blob("team/app", b"layer")
    signed = f"{elsewhere.url}/v2/team/app/blobs/{digest}?sv=2021&sig=a%2Fb%3D&se=2026-11-28T11%3A00%3A00Z"
    quirks.users = {"anna": "word"}
    credential_files.know(quirks.host, "anna", "word")
    quirks.put_blob("team/app", b"layer")

    def redirecting(seen: Seen, answer: Answer) -> Answer:
        return Answer(307, {"Location": signed}) if seen.authorization else answer

    quirks.spoil("GET", "blobs", redirecting)
    with asking() as client, client.get(quirks.host, f"/v2/team/app/blobs/{digest}") as reply:
        assert reply.document(100) == b"layer"

    [seen] = elsewhere.asked()
    assert seen.authorization is None
    assert seen.target.endswith("?sv=2021&sig=a%2Fb%3D&se=2026-11-28T11%3A00%3A00Z"), (
        "the signature is over these bytes"
    )


# ---- any reply at all

heads = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 401 No\r\n",
        b"HTTP/1.1 429 Later\r\n",
        b"HTTP/1.1 503 Later\r\n",
        b"HTTP/1.1 307 There\r\n",
        b"HTTP/1.0 999 What\r\n",
        b"HTTP/1.1 100 Go on\r\n\r\n",
        b"HTTP/0.9\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Retry-After: 0\r\n",
        b"Location: /v2/\r\n",
        b'WWW-Authenticate: Bearer realm="\xff"\r\n',
        b"WWW-Authenticate: Basic\r\n",
        b'Warning: 299 - "\x1b[31m\xe4"\r\n',
        b"Connection: close\r\n",
        b"Content-Encoding: gzip\r\n",
        b"\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
    ]
)


@given(st.lists(heads | st.binary(max_size=12), max_size=8))
@example([b"HTTP/1.1 200 OK\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n", b"ffffffffffffffffff\r\n"])
@by_day(60)
def test_any_reply_is_one_or_an_error_in_words(scribbler: Quirks, pieces: list[bytes]) -> None:
    scribbler.behave()
    scribbler.spoil(None, "", act.raw(b"".join(pieces)))

    told: list[str] = []
    said = ""
    with asking(attempts=2, read_timeout=0.1, pause=0.001) as client:
        told = client.heard
        try:
            with client.get(scribbler.host) as reply:
                said = reply.failure("reading").message
            with client.get(scribbler.host) as reply:
                reply.document(1000)
        except LayerstoreError as error:
            said = error.message
            told.append(error.remedy or "no\nremedy")
    assert all(line.isprintable() for line in (said, *told))


@pytest.fixture(scope="module")
def scribbler() -> Any:
    """A server for all examples."""
    with Quirks() as server:
        yield server
