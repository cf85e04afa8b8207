"""Who we are to a registry: what a challenge asks for, what is sent to whom, and what never is."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from layerstore.errors import Denied, RegistryError, Unauthorized
from layerstore.registry.transport.http import Body, Rights

from .asking import MANIFEST, PUSH, Asking, asking
from .conftest import CredentialFiles
from .servers import quirks as act
from .servers.listening import Answer, Seen
from .servers.quirks import Quirks
from .servers.tokens import PASSWORD, USER, TokenService


@pytest.fixture
def client() -> Iterator[Asking]:
    with asking() as http:
        yield http


@pytest.fixture
def guarded(quirks: Quirks, tokens: TokenService) -> Quirks:
    """A registry that wants tokens of `tokens`, and has an image."""
    quirks.tokens = tokens
    quirks.put_manifest("team/app", "latest", {"schemaVersion": 2})
    return quirks


@pytest.fixture
def private(quirks: Quirks) -> Quirks:
    """A registry that wants a name and password, and has an image."""
    quirks.users = {USER: PASSWORD}
    quirks.put_manifest("team/app", "latest", {"schemaVersion": 2})
    return quirks


def scopes(seen: Seen) -> list[str]:
    return seen.query.get("scope", [])


# ---- tokens


def test_a_public_image_is_pulled_with_an_anonymous_token(
    guarded: Quirks, tokens: TokenService, client: Asking
) -> None:
    assert client.status(guarded.host) == 200

    [asked] = tokens.asked()
    assert (asked.method, asked.authorization, scopes(asked)) == ("GET", None, ["repository:team/app:pull"])
    assert asked.first("service") == tokens.service
    assert [seen.status for seen in guarded.asked()] == [401, 200]


def test_the_registry_is_never_pinged(guarded: Quirks, client: Asking) -> None:
    client.get(guarded.host, method="HEAD").close()

    assert [(seen.method, seen.path) for seen in guarded.asked()] == [("HEAD", MANIFEST)] * 2


def test_a_token_is_asked_for_once(guarded: Quirks, tokens: TokenService, client: Asking) -> None:
    client.get(guarded.host).close()

    together = [threading.Thread(target=lambda: client.get(guarded.host).close()) for _ in range(8)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()

    assert len(tokens.asked()) == 1
    assert len(guarded.asked()) == 10


def test_many_threads_that_begin_together_share_one_token(
    guarded: Quirks, tokens: TokenService, client: Asking
) -> None:
    tokens.latency = 0.05
    gate = threading.Barrier(6)

    def get() -> None:
        gate.wait()
        client.get(guarded.host).close()

    together = [threading.Thread(target=get) for _ in range(6)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()

    assert len(tokens.asked()) == 1


def test_credentials_go_to_the_token_service_and_nowhere_else(
    guarded: Quirks, tokens: TokenService, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(guarded.host, USER, PASSWORD)

    assert client.status(guarded.host, access=PUSH) == 200

    [asked] = tokens.asked()
    assert asked.authorization == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    assert (asked.first("account"), scopes(asked)) == (USER, ["repository:team/app:pull,push"])
    assert all("Basic" not in (seen.authorization or "") for seen in guarded.asked())


def test_a_challenge_without_a_scope_gets_ours(guarded: Quirks, tokens: TokenService, client: Asking) -> None:
    """As Artifactory's, and that of `GET /v2/`."""
    guarded.scope_in_challenge = False

    assert client.status(guarded.host) == 200
    assert [scopes(seen) for seen in tokens.asked()] == [["repository:team/app:pull"]]


def test_a_mount_asks_for_both_repositories(
    guarded: Quirks, tokens: TokenService, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(guarded.host, USER, PASSWORD)
    access = (*PUSH, Rights("base/os", ("pull",)))

    endpoint = client.endpoint(guarded.host)
    target = "/v2/team/app/blobs/uploads/?mount=sha256:0&from=base/os"
    assert client.request(endpoint, "POST", target, access=access).status in (201, 202)

    assert scopes(tokens.asked()[-1]) == ["repository:base/os:pull", "repository:team/app:pull,push"]


def test_a_scope_that_only_the_registry_knows_of_is_added(
    guarded: Quirks, tokens: TokenService, client: Asking
) -> None:
    wanted = f'Bearer realm="{tokens.url}/token",service="s",scope="repository:team/app:pull repository:other:pull"'
    guarded.spoil("GET", "manifests", lambda seen, answer: Answer(401, {"WWW-Authenticate": wanted}), times=1)

    client.get(guarded.host).close()

    assert scopes(tokens.asked()[0]) == ["repository:other:pull", "repository:team/app:pull"]


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_token_has_either_name(guarded: Quirks, tokens: TokenService, client: Asking, name: str) -> None:
    tokens.field = name

    assert client.status(guarded.host) == 200


def test_a_token_is_renewed_before_it_ends(
    guarded: Quirks, tokens: TokenService, client: Asking, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens.lifetime = 100
    client.get(guarded.host).close()
    later = time.monotonic() + 95
    monkeypatch.setattr("layerstore.registry.transport.tokens.time", SimpleNamespace(monotonic=lambda: later))
    client.get(guarded.host).close()

    assert len(tokens.asked()) == 2
    assert [seen.status for seen in guarded.asked()] == [401, 200, 200], "it was never sent when it was too old"


def test_a_token_that_ends_earlier_than_was_said_is_renewed(
    guarded: Quirks, tokens: TokenService, client: Asking
) -> None:
    client.get(guarded.host).close()
    tokens.revoke()

    assert client.status(guarded.host) == 200
    assert len(tokens.asked()) == 2


def test_a_token_that_ends_in_the_middle_of_a_push_is_renewed(
    guarded: Quirks, tokens: TokenService, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(guarded.host, USER, PASSWORD)
    endpoint = client.endpoint(guarded.host)
    location = client.request(endpoint, "POST", "/v2/team/app/blobs/uploads/", access=PUSH).headers["Location"]
    for part in (b"a" * 1000, b"b" * 1000):
        tokens.revoke()
        with client.request(endpoint, "PATCH", location, access=PUSH, body=Body.of(part)) as reply:
            assert reply.status == 202
            location = reply.headers["Location"]

    assert b"".join(seen.body for seen in guarded.asked("PATCH") if seen.status == 202) == b"a" * 1000 + b"b" * 1000


def test_a_token_that_is_never_taken_is_asked_for_twice(guarded: Quirks, tokens: TokenService, client: Asking) -> None:
    client.get(guarded.host).close()
    guarded.spoil(
        "GET", "manifests", act.status(401, "UNAUTHORIZED", WWW_Authenticate=f'Bearer realm="{tokens.url}/token"')
    )

    with client.get(guarded.host) as reply:
        assert reply.status == 401
    assert len(tokens.asked()) == 2


@pytest.mark.parametrize("lasts", [None, 0, -1, "300", True, 1e308, [1]])
def test_a_lifetime_that_is_none_is_a_minute(client: Asking, quirks: Quirks, tokens: TokenService, lasts: Any) -> None:
    from layerstore.registry.transport.challenges import Challenge
    from layerstore.registry.transport.tokens import Tokens

    content = {"token": "t"} | ({} if lasts is None else {"expires_in": lasts})
    quirks.spoil("GET", "token", lambda seen, answer: Answer(200, {}, json.dumps(content).encode()))
    kept = Tokens()

    def send(method: str, url: str, headers: Any, body: Any) -> Any:
        return client.request(client.endpoint(quirks.host), method, url)

    challenge = Challenge("bearer", {"realm": f"{quirks.url}/token"})
    began = time.monotonic()
    assert kept.get(challenge, (), None, send, registry="r") == "t"
    [token] = kept._tokens.values()
    assert began + 54 <= token.until <= time.monotonic() + 54


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "does not answer in JSON"),
        (b"<html>", "does not answer in JSON"),
        (b"[]", "does not answer in JSON"),
        (b"[" * 100_000, "does not answer in JSON"),
        (b"{}", "sends no token"),
        (b'{"token": 1}', "sends no token"),
        (b'{"token": ""}', "sends no token"),
        (b'{"token": "a\\r\\nX-Header: b"}', "sends no token"),
        (b'{"token": "\\u00e9"}', "sends no token"),
        (b'{"token": "' + b"x" * 2_000_000 + b'"}', "sends a document of more than"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_a_token_service_that_sends_none_is_told_in_words(
    guarded: Quirks, tokens: TokenService, client: Asking, data: bytes, words: str
) -> None:
    tokens.answer = lambda seen: Answer(200, {"Content-Type": "application/json"}, data)  # type: ignore[method-assign]

    with pytest.raises(RegistryError, match=words):
        client.get(guarded.host)


def test_a_token_service_that_is_tired_is_asked_again(guarded: Quirks, tokens: TokenService, client: Asking) -> None:
    usual, asked = tokens.answer, []

    def tired(seen: Seen) -> Answer:
        asked.append(seen)
        return Answer(503) if len(asked) < 3 else usual(seen)

    tokens.answer = tired  # type: ignore[method-assign]

    assert client.status(guarded.host) == 200


def test_a_wrong_password_is_said_to_be_one(
    guarded: Quirks, tokens: TokenService, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(guarded.host, USER, "s3cret")

    with pytest.raises(Unauthorized, match="incorrect username or password") as caught:
        client.get(guarded.host)
    assert str(credential_files.docker) in str(caught.value)
    assert f"`layerstore login {guarded.host}`" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(tokens.asked()) == 1


def test_no_access_without_a_login_and_with_one_are_told_apart(
    guarded: Quirks, tokens: TokenService, credential_files: CredentialFiles
) -> None:
    tokens.anonymous = ()
    with asking() as client, client.get(guarded.host) as reply:
        failure = reply.failure("reading app")
    assert isinstance(failure, Unauthorized)
    assert "or log in" in str(failure)

    credential_files.know(guarded.host, USER, PASSWORD)
    guarded.spoil("GET", "manifests", act.status(403, "DENIED", "requested access is denied"), after=1)
    with asking() as client, client.get(guarded.host) as reply:
        failure = reply.failure("reading app")
    assert isinstance(failure, Denied)
    assert f"The account from {credential_files.docker} may not do that" in str(failure)


# ---- identity tokens


@pytest.fixture
def identity(guarded: Quirks, tokens: TokenService, credential_files: CredentialFiles) -> str:
    """docker's file has an identity token, as after a login at ACR."""
    tokens.refresh_tokens["r3fresh"] = USER
    name = base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode()
    credential_files.write({"auths": {guarded.host: {"auth": name, "identitytoken": "r3fresh"}}})
    return "r3fresh"


def test_an_identity_token_is_posted(guarded: Quirks, tokens: TokenService, client: Asking, identity: str) -> None:
    assert client.status(guarded.host, access=PUSH) == 200

    [asked] = tokens.asked()
    assert asked.method == "POST"
    assert asked.headers["Content-Type"] == "application/x-www-form-urlencoded"
    body = asked.body.decode()
    for part in (
        "grant_type=refresh_token",
        f"refresh_token={identity}",
        "client_id=layerstore",
        "scope=repository%3A",
    ):
        assert part in body
    assert identity not in asked.target


@pytest.mark.parametrize("status", [404, 405])
def test_where_there_is_no_post_it_is_the_password(
    guarded: Quirks, tokens: TokenService, client: Asking, identity: str, status: int
) -> None:
    tokens.oauth = False
    tokens.users["00000000-0000-0000-0000-000000000000"] = identity
    if status == 404:
        usual = tokens.answer
        tokens.answer = lambda seen: Answer(404) if seen.method == "POST" else usual(seen)  # type: ignore[method-assign]

    assert client.status(guarded.host, access=PUSH) == 200
    assert [seen.method for seen in tokens.asked()] == ["POST", "GET"]


def test_a_renewed_identity_token_is_used_from_then_on(
    guarded: Quirks, tokens: TokenService, client: Asking, identity: str
) -> None:
    usual = tokens.answer

    def renewing(seen: Seen) -> Answer:
        answer = usual(seen)
        tokens.refresh_tokens["newer"] = USER
        content = json.loads(answer.body) | {"refresh_token": "newer"}
        return Answer(200, {}, json.dumps(content).encode())

    tokens.answer = renewing  # type: ignore[method-assign]
    client.get(guarded.host).close()
    tokens.revoke()
    client.get(guarded.host).close()

    assert "refresh_token=newer" in tokens.asked()[-1].body.decode()


def test_an_identity_token_follows_no_redirect(
    guarded: Quirks, tokens: TokenService, elsewhere: Quirks, client: Asking, identity: str
) -> None:
    tokens.answer = lambda seen: Answer(307, {"Location": f"{elsewhere.url}/token"})  # type: ignore[method-assign]

    with pytest.raises(RegistryError, match="sends us with our credentials to another host"):
        client.get(guarded.host)
    assert elsewhere.asked() == []


def test_a_token_of_a_helper_is_an_identity_token(
    guarded: Quirks, tokens: TokenService, client: Asking, credential_files: CredentialFiles
) -> None:
    tokens.refresh_tokens["r3fresh"] = USER
    credential_files.helper("acr", """echo '{"Username": "<token>", "Secret": "r3fresh"}'""")
    credential_files.write({"credHelpers": {guarded.host: "acr"}})

    assert client.status(guarded.host, access=PUSH) == 200
    assert "refresh_token=r3fresh" in tokens.asked()[0].body.decode()


def test_a_registry_token_is_used_as_it_is(
    guarded: Quirks, tokens: TokenService, client: Asking, credential_files: CredentialFiles
) -> None:
    tokens.issued["ready"] = (time.time() + 60, [{"name": "team/app", "actions": ["pull"]}])
    credential_files.write({"auths": {guarded.host: {"registrytoken": "ready"}}})

    assert client.status(guarded.host) == 200
    assert tokens.asked() == []


# ---- Basic


def test_a_password_goes_with_every_request(private: Quirks, client: Asking, credential_files: CredentialFiles) -> None:
    credential_files.know(private.host, USER, PASSWORD)

    for _ in range(3):
        assert client.status(private.host) == 200
    assert [seen.status for seen in private.asked()] == [401, 200, 200, 200]


def test_without_a_password_nothing_is_sent(private: Quirks, client: Asking) -> None:
    with client.get(private.host) as reply:
        assert isinstance(reply.failure("reading app"), Unauthorized)
    assert [seen.authorization for seen in private.asked()] == [None]


def test_a_wrong_password_is_sent_once(private: Quirks, client: Asking, credential_files: CredentialFiles) -> None:
    credential_files.know(private.host, USER, "wrong")

    with client.get(private.host) as reply:
        failure = reply.failure("reading app")
    assert isinstance(failure, Unauthorized)
    assert str(credential_files.docker) in str(failure)
    assert len(private.asked()) == 2


def test_a_token_is_no_password(private: Quirks, client: Asking, credential_files: CredentialFiles) -> None:
    credential_files.write({"auths": {private.host: {"identitytoken": "t"}}})

    assert client.status(private.host) == 401
    assert [seen.authorization for seen in private.asked()] == [None]


def test_tokens_go_before_passwords(guarded: Quirks, tokens: TokenService, client: Asking) -> None:
    both = f'Basic realm="a, Bearer b", Bearer realm="{tokens.url}/token",service="x"'
    guarded.spoil("GET", "manifests", lambda seen, answer: Answer(401, {"WWW-Authenticate": both}), times=1)

    assert client.status(guarded.host) == 200
    assert len(tokens.asked()) == 1


# ---- to nobody else


def test_credentials_follow_no_redirect(
    private: Quirks, elsewhere: Quirks, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(private.host, USER, PASSWORD)
    client.get(private.host).close()
    private.spoil("GET", "manifests", act.moved(elsewhere.url))

    client.get(private.host).close()

    assert [seen.authorization for seen in elsewhere.asked()] == [None]
    assert all(USER not in str(seen.headers) for seen in elsewhere.asked())


def test_nor_do_they_come_along_on_the_way_back(
    private: Quirks, elsewhere: Quirks, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(private.host, USER, PASSWORD)
    client.get(private.host).close()
    private.spoil("GET", MANIFEST, act.moved(elsewhere.url), times=1)
    elsewhere.spoil("GET", MANIFEST, act.moved(private.url))

    client.get(private.host).close()

    # That it asks again, from the beginning, is the registry's 401; what came from elsewhere had nothing with it.
    came_back = private.asked()[3:4]
    assert [seen.authorization for seen in came_back] == [None]


def test_a_redirect_on_the_same_host_is_no_other_host(
    private: Quirks, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(private.host, USER, PASSWORD)
    private.put_manifest("team/app", "other", {"schemaVersion": 2})
    private.spoil("GET", "latest", act.moved("/v2/team/app/manifests/other"))

    assert client.status(private.host) == 200


def test_tokens_follow_no_redirect(
    guarded: Quirks, elsewhere: Quirks, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(guarded.host, USER, PASSWORD)
    client.get(guarded.host).close()
    guarded.spoil("GET", "manifests", act.moved(elsewhere.url))

    client.get(guarded.host).close()

    assert [seen.authorization for seen in elsewhere.asked()] == [None]


def test_nobody_elsewhere_is_answered_who_we_are(
    private: Quirks, elsewhere: Quirks, client: Asking, credential_files: CredentialFiles
) -> None:
    elsewhere.users = {USER: PASSWORD}
    credential_files.know(private.host, USER, PASSWORD)
    private.spoil("GET", "manifests", act.moved(elsewhere.url))

    with client.get(private.host) as reply:
        assert reply.status == 401
    assert [seen.authorization for seen in elsewhere.asked()] == [None]


def test_the_location_of_an_upload_elsewhere_gets_no_credentials(
    private: Quirks, elsewhere: Quirks, client: Asking, credential_files: CredentialFiles
) -> None:
    credential_files.know(private.host, USER, PASSWORD)
    client.get(private.host).close()

    target = f"{elsewhere.url}/v2/team/app/blobs/uploads/1"
    client.request(client.endpoint(private.host), "PUT", target, access=PUSH, body=Body.of(b"x")).close()

    assert [(seen.method, seen.authorization) for seen in elsewhere.asked()] == [("PUT", None)]


@pytest.mark.parametrize("realm", ["", "file:///etc/passwd", "ftp://host/token", "/token", "https://["])
def test_a_token_service_has_to_be_a_url(quirks: Quirks, client: Asking, realm: str) -> None:
    header = f'Bearer realm="{realm}",service="s"'
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(401, {"WWW-Authenticate": header}))

    with pytest.raises(RegistryError, match="names as its token service"):
        client.get(quirks.host)


@pytest.mark.parametrize("header", ["", "Negotiate", "Digest realm=x", '"', ",,,", "Basic " * 9000, 'Basic realm="'])
def test_a_challenge_that_nobody_can_meet_is_the_answer(quirks: Quirks, client: Asking, header: str) -> None:
    quirks.spoil("GET", "manifests", lambda seen, answer: Answer(401, {"WWW-Authenticate": header}))

    with client.get(quirks.host) as reply:
        assert isinstance(reply.failure("reading app"), Unauthorized)
    assert len(quirks.asked()) == 1


def test_secrets_are_in_no_text_form() -> None:
    from layerstore.registry.transport.credentials import Credentials

    secret = Credentials("anna", "s3cret", "s3cret", "s3cret", "file")
    assert "s3cret" not in f"{secret!r}{secret}"
