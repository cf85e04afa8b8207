"""Who may come in: a file of users with bcrypt hashes, and the header that says who asks."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import bcrypt
import pytest

from layerstore import ConfigError, KernelError
from layerstore.faces.serve import Passwords
from serve.client import Client

if TYPE_CHECKING:
    from layerstore.faces.serve.server import Server

pytestmark = pytest.mark.root


def line(user: str, password: str, prefix: bytes = b"2b") -> str:
    """A line of the file, with as few rounds as bcrypt allows."""
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).replace(b'$2b$', b'$%s$' % prefix).decode()}\n"


def basic(user: str, password: str) -> str:
    """The header for a user."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with three users."""
    path = tmp_path / "htpasswd"
    path.write_text("# users\n\n" + line("anna", "open sesame", b"2y") + line("ben", "ä:ö") + line("long", "x" * 72))
    return path


@pytest.mark.parametrize(
    ("user", "password", "is_right"),
    [
        ("anna", "open sesame", True),
        ("ben", "ä:ö", True),
        ("long", "x" * 72, True),
        ("long", "x" * 100, True),  # bcrypt looks at 72 bytes
        ("long", "x" * 71, False),
        ("anna", "open", False),
        ("anna", "", False),
        ("anna", "ä:ö", False),
        ("nobody", "open sesame", False),
        ("", "", False),
        ("anna\0", "open sesame", False),
        ("anna", "open sesame\0", False),
        ("# users", "", False),
    ],
)
def test_who_may_come_in(path: Path, user: str, password: str, is_right: bool) -> None:  # noqa: FBT001
    passwords = Passwords(path)
    for _ in range(2):  # what was right is remembered, and what was wrong is not
        assert passwords.admit(basic(user, password)) is is_right


@pytest.mark.parametrize(
    "header",
    ["", "Basic", "Basic ", "Basic !!!", "Basic YW5uYQ==", "Bearer x", "Digest username=anna", "Basic " + "A" * 9999],
)
def test_other_headers_are_no_key(path: Path, header: str) -> None:
    assert not Passwords(path).admit(header)


def test_the_scheme_may_be_written_in_any_way(path: Path) -> None:
    assert Passwords(path).admit(basic("anna", "open sesame").replace("Basic ", "bAsIc  "))


def test_the_file_is_read_again(path: Path) -> None:
    passwords = Passwords(path)
    assert passwords.admit(basic("anna", "open sesame"))
    path.write_text(line("carl", "new"))
    assert passwords.admit(basic("carl", "new"))
    assert not passwords.admit(basic("anna", "open sesame")), "what was remembered of it is gone, too"
    path.write_text("damaged\n")
    assert passwords.admit(basic("carl", "new")), "a file that is being written locks nobody out"
    path.unlink()
    assert passwords.admit(basic("carl", "new"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("anna:{SHA}abc=\n", "line 1"),
        (line("x", "y") + "anna:$apr1$x$y\n", "line 2"),
        ("anna\n", "line 1"),
        ("", "no user"),
        ("# nobody\n", "no user"),
    ],
    ids=["sha", "apr1", "no hash", "empty", "comments"],
)
def test_a_file_of_another_kind_is_refused(path: Path, content: str, message: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigError, match=message) as caught:
        Passwords(path)
    assert "htpasswd -B" in str(caught.value)
    assert "apr1" not in str(caught.value), "no hash gets into an error"


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="no-such"):
        Passwords(tmp_path / "no-such")


def test_no_more_than_two_passwords_are_tried_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(path)
    now, most, lock = 0, 0, threading.Lock()
    two = threading.Barrier(2)

    def checkpw(*_: object) -> bool:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        two.wait(20)
        time.sleep(0.02)
        with lock:
            now -= 1
        return False

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    threads = [threading.Thread(target=passwords.admit, args=(basic("anna", str(n)),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 2


def test_everything_needs_a_password(serve: Callable[..., Server], path: Path) -> None:
    server = serve(passwords=Passwords(path))
    host = f"127.0.0.1:{server.port}"
    with Client(host) as client:
        for method, where in (("GET", "/v2/"), ("GET", "/v2/_catalog"), ("POST", "/v2/a/blobs/uploads/"), ("GET", "/")):
            refused = client(method, where)
            assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
            assert refused.header["www-authenticate"].startswith('Basic realm="')
    with Client(host, headers={"Authorization": basic("anna", "open sesame")}) as client:
        assert client("GET", "/v2/").status == 200
        name = client.put_blob("team/app", os.urandom(100))
        assert len(client("GET", f"/v2/team/app/blobs/{name}").body) == 100
