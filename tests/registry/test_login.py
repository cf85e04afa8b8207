"""login and logout, as a command and as functions: what is checked, what is kept, and where."""

from __future__ import annotations

import base64
import errno
import fcntl
import json
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import layerstore
from layerstore import registry
from layerstore.cli.front import front
from layerstore.errors import ConfigError, KernelError, RegistryError, Unauthorized, Unreachable
from support import images

from .conftest import CredentialFiles
from .servers import quirks as act
from .servers.certificates import Authority
from .servers.debian import DockerRegistry
from .servers.quirks import Quirks
from .servers.tokens import PASSWORD, USER, TokenService

HUB = "https://index.docker.io/v1/"
WARNING = (
    "WARNING! Your credentials are stored unencrypted in '{}'.\n"
    "Configure a credential helper to remove this warning. See\n"
    "https://docs.docker.com/go/credential-store/\n\n"
)


@pytest.fixture
def private(quirks: Quirks) -> Quirks:
    quirks.users = {USER: PASSWORD}
    return quirks


@pytest.fixture
def run() -> Callable[..., Result]:
    def run(*args: str, stdin: str = "", code: int = 0) -> Result:
        result = CliRunner().invoke(front, args, input=stdin)
        assert result.exit_code == code, result.output
        return result

    return run


def kept(files: CredentialFiles) -> Any:
    return json.loads(files.docker.read_text())


def packed(username: str = USER, password: str = PASSWORD) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


# ---- checked


def test_login_says_what_docker_says(
    private: Quirks, run: Callable[..., Result], credential_files: CredentialFiles
) -> None:
    result = run("login", "-u", USER, "--password-stdin", private.host, stdin=f"{PASSWORD}\n")

    assert result.stdout == "Login Succeeded\n"
    assert result.stderr == WARNING.format(credential_files.docker)
    assert kept(credential_files) == {"auths": {private.host: {"auth": packed()}}}


def test_a_password_on_the_command_line_is_warned_of(private: Quirks, run: Callable[..., Result]) -> None:
    result = run("login", "-u", USER, "-p", PASSWORD, private.host)

    assert result.stderr.startswith("WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n")


def test_a_wrong_password_is_not_kept(
    private: Quirks, run: Callable[..., Result], credential_files: CredentialFiles
) -> None:
    result = run("login", "-u", USER, "--password-stdin", private.host, stdin="s3cret", code=1)

    assert result.stdout == ""
    assert f"{private.host} does not know this name and password" in result.stderr
    assert "s3cret" not in result.output
    assert not credential_files.docker.exists()


def test_a_token_service_checks_them_and_gives_a_token_to_keep(
    quirks: Quirks, tokens: TokenService, run: Callable[..., Result], credential_files: CredentialFiles
) -> None:
    quirks.tokens = tokens

    result = run("login", "-u", USER, "--password-stdin", quirks.host, stdin=PASSWORD)

    assert (result.stdout, result.stderr) == ("Login Succeeded\n", "")
    entry = kept(credential_files)["auths"][quirks.host]
    assert entry == {"auth": packed(password=""), "identitytoken": next(iter(tokens.refresh_tokens))}
    assert PASSWORD not in credential_files.docker.read_text()
    assert tokens.asked()[0].first("offline_token") == "true"

    run("login", "-u", USER, "--password-stdin", quirks.host, stdin="wrong", code=1)
    assert kept(credential_files)["auths"][quirks.host] == entry


def test_a_token_service_may_give_none(
    quirks: Quirks, tokens: TokenService, run: Callable[..., Result], credential_files: CredentialFiles
) -> None:
    quirks.tokens = tokens
    usual = tokens.answer

    def without(seen: Any) -> Any:
        answer = usual(seen)
        content = json.loads(answer.body)
        content.pop("refresh_token", None)
        return type(answer)(answer.status, answer.headers, json.dumps(content).encode())

    tokens.answer = without  # type: ignore[method-assign]

    run("login", "-u", USER, "--password-stdin", quirks.host, stdin=PASSWORD)
    assert kept(credential_files) == {"auths": {quirks.host: {"auth": packed()}}}


def test_what_login_kept_is_used_afterwards(
    private: Quirks, quirks: Quirks, tokens: TokenService, elsewhere: Quirks, run: Callable[..., Result]
) -> None:
    from .asking import PUSH, asking

    elsewhere.tokens = tokens
    for server in (private, elsewhere):
        server.put_manifest("team/app", "latest", {"schemaVersion": 2})
        run("login", "-u", USER, "--password-stdin", server.host, stdin=PASSWORD)
        with asking() as client:
            assert client.status(server.host, access=PUSH) == 200


def test_docker_registry_takes_it(
    basic_registry: DockerRegistry, token_registry: tuple[DockerRegistry, TokenService], run: Callable[..., Result]
) -> None:
    for server in (basic_registry, token_registry[0]):
        run("login", "-u", USER, "--password-stdin", server.host, stdin=PASSWORD)
        run("login", "-u", USER, "--password-stdin", server.host, stdin="wrong", code=1)


@pytest.mark.tools("skopeo")
def test_skopeo_takes_what_we_keep_and_we_take_what_it_keeps(
    basic_registry: DockerRegistry, run: Callable[..., Result], credential_files: CredentialFiles
) -> None:
    from .asking import asking

    def skopeo(*args: str) -> str:
        done = subprocess.run(["skopeo", *args], capture_output=True, text=True, timeout=30)
        return done.stderr + done.stdout

    image = f"docker://{basic_registry.host}/team/none"
    assert "unauthorized" in skopeo("list-tags", "--tls-verify=false", image)
    run("login", "-u", USER, "--password-stdin", basic_registry.host, stdin=PASSWORD)
    assert "404 (Not Found)" in skopeo("list-tags", "--tls-verify=false", image)

    credential_files.docker.unlink()
    skopeo("login", "--tls-verify=false", "-u", USER, "-p", PASSWORD, basic_registry.host)
    assert credential_files.podman.exists()
    with asking() as client:
        assert client.status(basic_registry.host, "/v2/team/none/tags/list") == 404


def test_a_registry_that_asks_nobody_says_nothing_of_the_password(quirks: Quirks, run: Callable[..., Result]) -> None:
    result = run("login", "-u", USER, "--password-stdin", quirks.host, stdin="anything")

    assert result.stdout == "Login Succeeded\n"
    assert f"{quirks.host} lets in everybody" in result.stderr


def test_a_host_that_is_no_registry_is_told(quirks: Quirks, run: Callable[..., Result]) -> None:
    quirks.spoil("GET", "", act.status(404))

    result = run("login", "-u", USER, "--password-stdin", quirks.host, stdin=PASSWORD, code=1)
    assert f"{quirks.host} is no registry" in result.stderr


def test_nobody_there_is_told(run: Callable[..., Result]) -> None:
    with pytest.raises(Unreachable):
        registry.login("registry.invalid", username=USER, password=PASSWORD)


def test_daemon_json_says_who_is_insecure(authority: Authority, tmp_path: Path, run: Callable[..., Result]) -> None:
    settings = tmp_path / "daemon.json"
    with Quirks(tls=authority.server()) as server:
        server.users = {USER: PASSWORD}
        host = f"127.1:{server.port}"
        for insecure, code in (([], 1), ([host], 0)):
            settings.write_text(json.dumps({"insecure-registries": insecure}))
            result = run(
                "--config", str(settings), "login", "-u", USER, "--password-stdin", host, stdin=PASSWORD, code=code
            )
            assert ("is not trusted" in result.stderr) is bool(code)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["-u", USER, "-p", "a", "--password-stdin"], "--password and --password-stdin are mutually exclusive"),
        (["--password-stdin"], "Must provide --username with --password-stdin"),
        (["-u", USER], "Cannot perform an interactive login from a non TTY device"),
        ([], "Cannot perform an interactive login from a non TTY device"),
        (["-u", "a:b", "-p", "c"], "that is no user name"),
        (["-u", "a\nb", "-p", "c"], "that is no user name"),
        (["-u", "a", "-p", "c\x00"], "that is no password"),
    ],
)
def test_what_is_missing_is_said(private: Quirks, run: Callable[..., Result], given: list[str], words: str) -> None:
    result = run("login", *given, private.host, code=1)

    assert words in result.stderr
    assert private.asked() == []


@pytest.mark.parametrize("server", ["a b", "registry.example/team", "https://", "a@b", "-", "ftp://host", "host:port"])
def test_a_server_that_is_none_is_refused(run: Callable[..., Result], server: str) -> None:
    result = run("login", "-u", USER, "-p", "x", "--", server, code=1)
    assert "is not a registry" in result.stderr

    assert "is not a registry" in run("logout", "--", server, code=1).stderr


def test_at_a_terminal_it_asks(private: Quirks, credential_files: CredentialFiles) -> None:
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "layerstore.cli", "login", private.host],
        stdin=child,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(child)
    os.write(parent, f"{USER}\n".encode())
    shown = b""
    while b"Password: " not in shown:
        shown += os.read(parent, 1000)
    os.write(parent, f"{PASSWORD}\n".encode())
    output, _ = process.communicate(timeout=20)
    os.close(parent)

    assert process.returncode == 0
    assert output == b"Username: Login Succeeded\n"
    assert PASSWORD.encode() not in shown
    assert kept(credential_files)["auths"][private.host]["auth"] == packed()


def test_what_is_kept_already_is_tried_first(
    private: Quirks, run: Callable[..., Result], credential_files: CredentialFiles
) -> None:
    credential_files.know(private.host, USER, PASSWORD)
    assert run("login", private.host).stdout == "Authenticating with existing credentials...\nLogin Succeeded\n"

    credential_files.know(private.host, USER, "old")
    result = run("login", private.host, code=1)
    assert "Login did not succeed, error: " in result.stderr
    assert "non TTY device" in result.stderr


# ---- kept


def test_the_file_is_for_its_owner_alone(private: Quirks, credential_files: CredentialFiles) -> None:
    credential_files.docker.parent.rmdir()
    for _ in range(2):
        registry.login(private.host, username=USER, password=PASSWORD)
        assert credential_files.docker.stat().st_mode & 0o7777 == 0o600
        credential_files.docker.chmod(0o644)  # as somebody may have made it
    assert credential_files.docker.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in credential_files.docker.parent.iterdir()] == ["config.json"]


def test_what_others_keep_there_is_left_alone(private: Quirks, credential_files: CredentialFiles) -> None:
    content = {
        "HttpHeaders": {"X": "\u00e4"},
        "auths": {"other.example": {"auth": packed()}, f"https://{private.host}/v1/": {"auth": "b2xkOm9sZA=="}},
        "psFormat": "table",
    }
    credential_files.write(content)

    registry.login(private.host, username=USER, password=PASSWORD)

    after = kept(credential_files)
    assert list(after) == ["HttpHeaders", "auths", "psFormat"]
    assert after["HttpHeaders"] == content["HttpHeaders"]
    assert after["auths"] == {"other.example": {"auth": packed()}, private.host: {"auth": packed()}}


def test_a_link_to_the_file_stays_one(private: Quirks, credential_files: CredentialFiles, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "config.json"
    real.parent.mkdir()
    real.write_text("{}")
    credential_files.docker.symlink_to(real)

    registry.login(private.host, username=USER, password=PASSWORD)

    assert credential_files.docker.is_symlink()
    assert json.loads(real.read_text())["auths"][private.host]


def test_a_file_that_cannot_be_written_is_named(private: Quirks, credential_files: CredentialFiles) -> None:
    credential_files.docker.parent.rmdir()
    credential_files.docker.parent.write_text("a file")

    with pytest.raises(KernelError, match=str(credential_files.docker)):
        registry.login(private.host, username=USER, password=PASSWORD)


def test_a_broken_file_is_not_written_over(private: Quirks, credential_files: CredentialFiles) -> None:
    credential_files.write("{")

    with pytest.raises(ConfigError, match="not a JSON object"):
        registry.login(private.host, username=USER, password=PASSWORD)
    assert credential_files.docker.read_text() == "{"
    assert private.asked() == []


def test_a_disk_that_is_full_leaves_the_file_as_it_was(
    private: Quirks, credential_files: CredentialFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    credential_files.know("r.example", "old", "word")
    before = credential_files.docker.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(KernelError, match="No space left"):
        registry.login(private.host, username=USER, password=PASSWORD)

    assert credential_files.docker.read_bytes() == before
    assert [path.name for path in credential_files.docker.parent.iterdir()] == ["config.json"]


def test_what_a_killed_login_has_left_goes_with_the_next(private: Quirks, credential_files: CredentialFiles) -> None:
    left = credential_files.docker.with_name(".config.json.new")
    left.write_text("half of a secret")
    left.chmod(0o644)

    registry.login(private.host, username=USER, password=PASSWORD)

    assert [path.name for path in credential_files.docker.parent.iterdir()] == ["config.json"]
    assert credential_files.docker.stat().st_mode & 0o7777 == 0o600


def test_logins_at_the_same_time_take_turns(private: Quirks, credential_files: CredentialFiles) -> None:
    credential_files.write({})
    folder = os.open(credential_files.docker.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    login = threading.Thread(
        target=registry.login, args=(private.host,), kwargs={"username": USER, "password": PASSWORD}
    )
    login.start()
    login.join(0.3)
    assert login.is_alive(), "it waits for who holds the lock"
    credential_files.know("other.example", "bert", "word")  # meanwhile

    os.close(folder)
    login.join()
    assert set(kept(credential_files)["auths"]) == {"other.example", private.host}


def _vault(files: CredentialFiles, folder: Path) -> Path:
    """A helper that keeps one secret in a file."""
    files.helper(
        "vault",
        f"""case $1 in
store) cat > {folder}/secret ;;
get) cat >/dev/null; [ -e {folder}/secret ] && cat {folder}/secret && exit
     echo 'credentials not found in native keychain'; exit 1 ;;
erase) cat > {folder}/erased; rm -f {folder}/secret ;;
esac""",
    )
    return folder / "secret"


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_helper_keeps_it(
    private: Quirks, run: Callable[..., Result], credential_files: CredentialFiles, tmp_path: Path, key: str
) -> None:
    secret = _vault(credential_files, tmp_path)
    credential_files.write({key: "vault" if key == "credsStore" else {private.host: "vault"}})

    result = run("login", "-u", USER, "--password-stdin", private.host, stdin=PASSWORD)

    assert (result.stdout, result.stderr) == ("Login Succeeded\n", "")
    assert json.loads(secret.read_text()) == {"ServerURL": private.host, "Username": USER, "Secret": PASSWORD}
    assert kept(credential_files)["auths"] == {private.host: {}}
    assert "Login Succeeded" in run("login", private.host).stdout

    assert run("logout", private.host).stdout == f"Removing login credentials for {private.host}\n"
    assert not secret.exists()
    assert (tmp_path / "erased").read_text() == private.host
    assert kept(credential_files)["auths"] == {}


def test_a_token_is_kept_by_a_helper_as_docker_does(
    quirks: Quirks, tokens: TokenService, credential_files: CredentialFiles, tmp_path: Path
) -> None:
    quirks.tokens = tokens
    secret = _vault(credential_files, tmp_path)
    credential_files.write({"credsStore": "vault"})

    done = registry.login(quirks.host, username=USER, password=PASSWORD)

    assert done.helper == "vault"
    [token] = tokens.refresh_tokens
    assert json.loads(secret.read_text()) == {"ServerURL": quirks.host, "Username": "<token>", "Secret": token}


def test_a_helper_that_cannot_keep_it_is_an_error(private: Quirks, credential_files: CredentialFiles) -> None:
    credential_files.helper("vault", "cat >/dev/null; echo the vault is full; exit 1")
    credential_files.write({"credsStore": "vault"})

    with pytest.raises(RegistryError, match="docker-credential-vault failed: the vault is full"):
        registry.login(private.host, username=USER, password=PASSWORD)
    assert "auths" not in kept(credential_files)


# ---- forgotten


def test_logout_forgets_each_form_of_the_name(run: Callable[..., Result], credential_files: CredentialFiles) -> None:
    names = ("r.example", "https://r.example", "http://r.example/", "https://r.example/v1/", "r.example:5000")
    credential_files.write({"auths": {name: {"auth": packed()} for name in names}})

    assert run("logout", "https://r.example").stdout == "Removing login credentials for r.example\n"
    assert list(kept(credential_files)["auths"]) == ["r.example:5000"]
    assert run("logout", "r.example").stdout == "Not logged in to r.example\n"


def test_hub_is_the_default(run: Callable[..., Result], credential_files: CredentialFiles) -> None:
    assert run("logout").stdout == f"Not logged in to {HUB}\n"
    assert not credential_files.docker.exists()

    for key in (HUB, "docker.io", "index.docker.io"):
        credential_files.write({"auths": {key: {"auth": packed()}}})
        assert run("logout").stdout == f"Removing login credentials for {HUB}\n"
        assert kept(credential_files) == {"auths": {}}


def test_what_podman_keeps_is_podmans(run: Callable[..., Result], credential_files: CredentialFiles) -> None:
    credential_files.write({"auths": {"r.example": {"auth": packed()}}}, credential_files.podman)

    result = run("logout", "r.example")
    assert str(credential_files.podman) in result.stderr


def test_the_names_are_public() -> None:
    assert {"login", "logout"} <= set(dir(layerstore.registry))
    assert registry.login.__doc__
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        registry.nothing  # noqa: B018


def test_without_urllib3_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "urllib3.py").write_text("raise ModuleNotFoundError(\"No module named 'urllib3'\", name='urllib3')")
    program = "from layerstore import registry; registry.login('r.invalid', username='a', password='b')"

    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert "pip install 'layerstore[registry]'" in done.stderr


def test_importing_registries_imports_no_http() -> None:
    program = (
        "import sys, layerstore, layerstore.registry; print(*{'urllib3', 'http', 'ssl', 'json'} & set(sys.modules))"
    )

    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "\n"


def test_a_name_that_is_not_known_is_unauthorized(private: Quirks) -> None:
    with pytest.raises(Unauthorized):
        layerstore.registry.login(private.host, username="bert", password=PASSWORD)


# ---- podman's words


def test_a_file_of_one_s_own_is_kept_to(
    private: Quirks, run: Callable[..., Result], credential_files: CredentialFiles, tmp_path: Path
) -> None:
    own = str(tmp_path / "auth.json")
    told = run("login", "--authfile", own, "-v", "-u", USER, "--password-stdin", private.host, stdin=PASSWORD).stdout
    assert told == f"Used: {own}\nLogin Succeeded\n"
    assert json.loads(Path(own).read_text()) == {"auths": {private.host: {"auth": packed()}}}
    assert not credential_files.docker.exists()
    assert run("login", "--get-login", "--authfile", own, private.host).stdout == f"{USER}\n"
    assert f"not logged in to {private.host}" in run("login", "--get-login", private.host, code=1).stderr

    digest = private.put_image("app", "1", [b""])
    assert "401" in run("manifest", "inspect", f"{private.host}/app:1", code=1).output
    account = ("--creds", f"{USER}:{PASSWORD.strip()}")
    assert json.loads(run("manifest", "inspect", *account, f"{private.host}/app:1").stdout)["schemaVersion"] == 2
    run("manifest", "exists", *account, f"{private.host}/app@{digest}")
    assert run("tags", *account, f"{private.host}/app").stdout == "1\n"
    shown = run("manifest", "inspect", "--authfile", own, f"{private.host}/app:1").stdout
    assert json.loads(shown)["schemaVersion"] == 2
    run("manifest", "exists", "--authfile", own, f"{private.host}/app:1")
    assert run("manifest", "exists", "--authfile", own, f"{private.host}/app:none", code=1).output == ""
    assert run("search", "--list-tags", "--authfile", own, f"{private.host}/app").stdout == "1\n"
    assert run("search", "--list-tags", *account, f"{private.host}/app").stdout == "1\n"
    assert "401" in run("search", f"{private.host}/A word", code=1).output
    assert "app" in run("search", *account, f"{private.host}/ap").stdout

    assert run("logout", "-a", "--authfile", own).stdout == f"Removing login credentials for {private.host}\n"
    assert json.loads(Path(own).read_text()) == {"auths": {}}


def test_certificates_are_checked_as_one_call_says(
    secure_quirks: Quirks, authority: Authority, run: Callable[..., Result], tmp_path: Path
) -> None:
    secure_quirks.put_image("app", "1", [b""])
    name = f"{secure_quirks.host}/app:1"
    assert "certificate" in run("manifest", "inspect", "--tls-verify", name, code=1).stderr
    run("manifest", "inspect", "--tls-verify=false", name)
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs" / "ca.crt").write_bytes(authority.certificate.read_bytes())
    words = ("login", "--tls-verify", "-u", USER, "--password-stdin", secure_quirks.host)
    assert "certificate" in run(*words, stdin=PASSWORD, code=1).stderr
    run(words[0], "--cert-dir", str(tmp_path / "certs"), *words[1:], stdin=PASSWORD)


def test_credentials_that_are_given_are_for_the_registry_that_is_named(
    private: Quirks,
    elsewhere: Quirks,
    conf: Callable[[str], Path],
    run: Callable[..., Result],
    data_root: Path,
    tmp_path: Path,
) -> None:
    elsewhere.users = {USER: PASSWORD}
    conf(f'[[registry]]\nprefix = "docker.io"\nlocation = "{elsewhere.host}"\ninsecure = true\n')
    elsewhere.put_image("app", "1", [b""])
    settings = tmp_path / "daemon.json"
    remotes = [f"http://{elsewhere.host}"]
    settings.write_text(json.dumps({"data-root": str(data_root), "exec-root": str(tmp_path / "e"), "remotes": remotes}))
    layers = [images.layer(images.file("hosts", "localhost\n"))]
    digest = private.put_image("app", "1", layers)
    words = ("--config", str(settings), "pull", "-q")
    assert run(*words, f"{private.host}/app:1", code=1).stdout == ""
    name, account = f"{private.host}/app:1", ("--creds", f"{USER}:{PASSWORD}")
    assert "401" in run(*words[:2], "create", name, code=1).stderr
    run(*words[:2], "create", "-q", *account, "--name", "box", name)
    run(*words[:2], "create", *account, name.partition("/")[0], code=1)  # an image of Docker Hub, called as the host
    assert any("/library/127.0.0.1/manifests/" in request.path for request in elsewhere.requests)
    run(*words[:2], "create", *account, "--lazy", name, code=2)
    run(*words[:2], "rm", "box")
    run(*words[:2], "rmi", name)
    refused = run(*words, "--creds", "secret-word", f"{private.host}/app:1", code=2)
    assert "secret-word" not in refused.output
    run(*words, "--creds", f"{USER}:{PASSWORD}", "--lazy", f"{private.host}/app:1", code=2)
    run(*words, "--creds", f"{USER}:{PASSWORD}", f"{private.host}/app:1")
    sent = [request.headers.get("Authorization") for request in elsewhere.requests]
    assert not any(sent)
    file = tmp_path / "digest"
    run(
        words[0],
        words[1],
        "push",
        "-q",
        "--creds",
        f"{USER}:{PASSWORD}",
        "--digestfile",
        str(file),
        f"{private.host}/app:1",
    )
    assert file.read_text() == digest
    wrong = run(words[0], words[1], "pull", "--disable-content-trust=false", f"{private.host}/app:1", code=2)
    assert "signatures of images are not verified here" in wrong.stderr
