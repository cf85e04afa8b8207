"""docker's and podman's files, and the helpers that they name: whose credentials a registry is shown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.errors import ConfigError, LayerstoreError, RegistryError
from layerstore.registry.transport.credentials import Credentials, find
from support.properties import by_day

from .conftest import CredentialFiles

HUB = "https://index.docker.io/v1/"


def auth(username: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def names(found: Credentials | None) -> tuple[str, str] | None:
    return None if found is None else (found.username, found.password)


def test_without_files_everybody_is_nobody() -> None:
    assert find("registry.example", "team/app") is None


@pytest.mark.parametrize(
    ("key", "registry"),
    [
        ("registry.example", "registry.example"),
        ("registry.example:5000", "registry.example:5000"),
        ("https://registry.example", "registry.example"),
        ("http://registry.example/", "registry.example"),
        ("https://registry.example/v1/", "registry.example"),
        ("https://registry.example/v2/", "registry.example"),
        ("registry.example/v2", "registry.example"),
        (HUB, "docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io"),
    ],
)
def test_a_key_may_have_a_scheme_and_a_path(credential_files: CredentialFiles, key: str, registry: str) -> None:
    credential_files.write({"auths": {key: auth("anna", "word")}})

    assert names(find(registry, "team/app")) == ("anna", "word")
    assert find("other.example") is None


def test_a_port_makes_another_registry(credential_files: CredentialFiles) -> None:
    credential_files.write({"auths": {"registry.example:5000": auth("anna", "word")}})

    assert find("registry.example") is None
    assert find("registry.example:5001") is None


def test_the_exact_key_goes_before_those_that_mean_the_same(credential_files: CredentialFiles) -> None:
    either = {"https://r.example/v1/": auth("old", "w"), "r.example": auth("new", "w")}
    credential_files.write({"auths": either})

    assert names(find("r.example")) == ("new", "w")


@pytest.mark.parametrize("entry", [{}, None, [], "x", {"auth": ""}, {"auth": base64.b64encode(b":").decode()}])
def test_an_entry_may_be_empty(credential_files: CredentialFiles, entry: Any) -> None:
    """`{}` is docker's sign that a helper has it."""
    credential_files.write({"auths": {"r.example": entry}})

    assert find("r.example") is None


@pytest.mark.parametrize("content", ["", "{}", '{"auths": null}', '{"auths": {}}', '{"HttpHeaders": {"a": "b"}}'])
def test_a_file_may_say_nothing(credential_files: CredentialFiles, content: str) -> None:
    credential_files.write(content)

    assert find("r.example") is None


def test_a_password_may_have_anything_in_it(credential_files: CredentialFiles) -> None:
    credential_files.write({"auths": {"r.example": auth("anna", "a:b c\u00e9\0\0")}})

    found = find("r.example")
    assert found is not None
    assert (found.username, found.password) == ("anna", "a:b c\u00e9")
    assert found.basic == "Basic " + base64.b64encode("anna:a:b c\u00e9".encode()).decode()


def test_names_may_be_written_out(credential_files: CredentialFiles) -> None:
    credential_files.write({"auths": {"r.example": {"username": "anna", "password": "word"}}})

    assert names(find("r.example")) == ("anna", "word")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ("\xff", "not a JSON object"),
        ("[" * 100_000, "not a JSON object"),
        ('{"auths": []}', "auths is not an object"),
        ('{"credHelpers": "x"}', "credHelpers is not an object"),
        ('{"auths": {"r.example": {"auth": "s3cret!"}}}', "not Base64 of name:password"),
    ],
    ids=lambda value: value[:20],
)
def test_a_file_that_cannot_be_read_is_named(credential_files: CredentialFiles, content: str, words: str) -> None:
    credential_files.docker.write_bytes(content.encode("latin-1"))

    with pytest.raises(ConfigError, match=words) as caught:
        find("r.example")
    assert str(credential_files.docker) in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_docker_config_names_another_folder(
    credential_files: CredentialFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential_files.know("r.example", "home", "word")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert find("r.example") is None

    credential_files.write({"auths": {"r.example": auth("there", "word")}}, tmp_path / "config.json")
    assert names(find("r.example")) == ("there", "word")


# ---- podman's


def test_podmans_file_knows_parts_of_a_registry(credential_files: CredentialFiles) -> None:
    content = {
        "r.example": auth("all", "w"),
        "r.example/team": auth("team", "w"),
        "r.example/team/app": auth("app", "w"),
        "docker.io/library": auth("official", "w"),
    }
    credential_files.write({"auths": content}, credential_files.podman)

    def who(registry: str, repository: str) -> str | None:
        found = find(registry, repository)
        return None if found is None else found.username

    assert who("r.example", "team/app") == "app"
    assert who("r.example", "team/app/part") == "app"
    assert who("r.example", "team/application") == "team"
    assert who("r.example", "teams/app") == "all"
    assert who("docker.io", "library/debian") == "official"
    assert who("docker.io", "anna/debian") is None


def test_the_files_are_asked_in_order(
    credential_files: CredentialFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = credential_files.folder / ".config" / "containers" / "auth.json"
    last.parent.mkdir(parents=True)
    credential_files.write({"auths": {"r.example": auth("config", "w")}}, last)
    assert names(find("r.example")) == ("config", "w")

    credential_files.write({"auths": {"r.example": auth("runtime", "w")}}, credential_files.podman)
    assert names(find("r.example")) == ("runtime", "w")

    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "named.json"))
    credential_files.write({"auths": {"r.example": auth("named", "w")}}, tmp_path / "named.json")
    assert names(find("r.example")) == ("named", "w")

    credential_files.know("r.example", "docker", "w")
    assert names(find("r.example")) == ("docker", "w")


# ---- helpers


def recording(folder: Path, answer: str) -> str:
    """A helper that notes what it is asked."""
    return f"cat > {folder}/asked; echo $1 >> {folder}/asked; echo '{answer}'"


def test_a_helper_is_asked_by_name(credential_files: CredentialFiles, tmp_path: Path) -> None:
    answer = json.dumps({"ServerURL": "r.example", "Username": "anna", "Secret": "word"})
    credential_files.helper("vault", recording(tmp_path, answer))
    credential_files.write({"credHelpers": {"r.example": "vault"}})

    found = find("r.example", "team/app")

    assert names(found) == ("anna", "word")
    assert found is not None
    assert found.source == "docker-credential-vault"
    assert (tmp_path / "asked").read_text() == "r.exampleget\n"


def test_hub_has_a_long_name_for_helpers(credential_files: CredentialFiles, tmp_path: Path) -> None:
    credential_files.helper("vault", recording(tmp_path, '{"Username": "anna", "Secret": "word"}'))
    credential_files.write({"credsStore": "vault"})

    assert names(find("docker.io", "library/debian")) == ("anna", "word")
    assert (tmp_path / "asked").read_text() == f"{HUB}get\n"


def test_a_registrys_own_helper_goes_before_that_of_all_and_both_before_the_file(
    credential_files: CredentialFiles,
) -> None:
    for name in ("one", "all"):
        credential_files.helper(name, f"""echo '{{"Username": "{name}", "Secret": "w"}}'""")
    content = {"credHelpers": {"r.example": "one"}, "credsStore": "all", "auths": {"o.example": auth("file", "w")}}
    credential_files.write(content)

    assert names(find("r.example")) == ("one", "w")
    assert names(find("o.example")) == ("all", "w")


@pytest.mark.parametrize("out", ["1", "2"])
def test_a_helper_that_knows_nothing_makes_us_nobody(credential_files: CredentialFiles, out: str) -> None:
    credential_files.helper("vault", f"echo 'credentials not found in native keychain' >&{out}; exit 1")
    credential_files.write({"credsStore": "vault"})
    assert find("r.example") is None

    credential_files.write({"credsStore": "vault", "auths": {"r.example": auth("file", "w")}})
    assert names(find("r.example")) == ("file", "w")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            "echo 'the vault is \033[31mlocked'; exit 1",
            r"vault failed: the vault is \\x1b\[31mlocked",
        ),
        ("echo 'no bus' >&2; exit 3", "docker-credential-vault failed: no bus"),
        ("exit 7", "docker-credential-vault failed with exit code 7"),
        ("echo s3cret", "does not answer in JSON"),
        ("echo '[\"s3cret\"]'", "does not answer in JSON"),
    ],
)
def test_a_helper_that_fails_is_told_in_words(credential_files: CredentialFiles, script: str, words: str) -> None:
    credential_files.helper("vault", script)
    credential_files.write({"credsStore": "vault"})

    with pytest.raises(RegistryError, match=words) as caught:
        find("r.example")
    assert f"credsStore of {credential_files.docker}" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["none-such", "../vault", "a b", "-x", ""])
def test_a_helper_that_is_not_there_is_named(credential_files: CredentialFiles, name: str) -> None:
    credential_files.write({"credHelpers": {"r.example": name}})

    if not name:
        assert find("r.example") is None
        return
    with pytest.raises(LayerstoreError, match=r"is not installed|is not the name"):
        find("r.example")


def test_a_helper_that_does_not_end_is_ended(
    credential_files: CredentialFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layerstore.registry.transport.credentials._PATIENCE", 0.2)
    credential_files.helper("vault", "exec sleep 60")
    credential_files.write({"credsStore": "vault"})

    with pytest.raises(RegistryError, match="has not answered for"):
        find("r.example")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner, max_size=2),
    max_leaves=5,
)
keys = st.sampled_from(["auths", "credHelpers", "r.example", "auth", "identitytoken", "username", "password"])


@by_day(40)
@given(st.dictionaries(keys, st.dictionaries(keys, st.dictionaries(keys, json_values) | json_values) | json_values))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    from layerstore.registry.transport.credentials import find_in, read_file

    path = tmp_path_factory.getbasetemp() / "config.json"
    path.write_text(json.dumps(content))
    read = read_file(path)
    assert read is not None
    read.pop("credHelpers", None)  # names of programs

    try:
        found = find_in(read, path, "r.example", "team/app")
    except ConfigError:
        return
    assert found is None or isinstance(found, Credentials)
