"""`layerstore serve`: where it listens, what it refuses, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import bcrypt
import pytest
from click.testing import CliRunner

from layerstore import ConfigError
from layerstore.cli.front import front
from layerstore.faces.serve import listening
from registry.servers.certificates import Authority
from serve.client import Client, digest

pytestmark = pytest.mark.root

Start = Callable[..., "subprocess.Popen[str]"]

PIECE = 1 << 20
"""So many bytes are written at once."""


@pytest.fixture
def root(backing: Callable[[str], Path]) -> Path:
    """A data-root."""
    return backing("ext4") / "root"


@pytest.fixture
def start(root: Path) -> Iterator[Start]:
    """`start("--read-only")`: the command, as a process of its own."""
    running: list[subprocess.Popen[str]] = []

    def begin(*words: str | Path, address: str = "127.0.0.1:0") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "layerstore.cli", "--root", root, "serve", "--address", address, *words]
        process = subprocess.Popen(
            [str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def host_of(process: subprocess.Popen[str]) -> str:
    """Where it listens, as it says when it is ready."""
    line = cast(IO[str], process.stdout).readline()
    found = re.fullmatch(r"Listening on https?://(127\.0\.0\.1:\d+)\n", line)
    assert found, line + process.communicate()[1]
    return found[1]


def test_it_says_where_it_listens_and_ends_when_it_is_told_to(start: Start, root: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start()
        with Client(host_of(process)) as client:
            assert client("GET", "/v2/").status == 200
            process.send_signal(number)  # with an idle connection that is open
            assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0


def test_it_hears_a_signal_that_another_of_its_threads_was_given(start: Start) -> None:
    """As one that comes in the moment before its first thread waits, it is only noted."""
    process = start()
    host_of(process)
    [*others] = {int(name) for name in os.listdir(f"/proc/{process.pid}/task")} - {process.pid}
    time.sleep(0.3)  # until it waits
    os.kill(others[0], signal.SIGTERM)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_what_is_being_answered_is_answered_before_the_end(start: Start, root: Path) -> None:
    process = start()
    with Client(host_of(process)) as client:
        place = client("POST", "/v2/app/blobs/uploads/").header["location"]

        def body() -> Iterator[bytes]:
            yield b"x" * PIECE
            ended = time.monotonic() + 60
            while not any(path.stat().st_size for path in (root / "partial").iterdir()):  # it is no idle connection
                assert time.monotonic() < ended
            process.terminate()
            time.sleep(0.3)
            yield b"last"

        done = client("PUT", place, body(), query={"digest": digest(b"x" * PIECE + b"last")})
        assert done.status == 201
    assert process.wait(60) == 0


def test_read_only(start: Start, root: Path) -> None:
    with Client(host_of(start("--read-only"))) as client:
        assert client("GET", "/v2/_catalog").status == 200
        for method, path in (
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/1"),
            ("DELETE", "/v2/a/manifests/1"),
            ("DELETE", f"/v2/a/blobs/{digest(b'')}"),
            ("PATCH", "/v2/a/blobs/uploads/x"),
            ("GET", "/v2/a/blobs/uploads/x"),
        ):
            refused = client(method, path)
            assert (refused.status, refused.code) == (405, "UNSUPPORTED")
        assert client("PUT", "/v2/a/manifests/1").header["allow"] == "GET, HEAD"


def test_tls_and_passwords_by_files(start: Start, tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("server", "127.0.0.1")
    (tmp_path / "users").write_text(f"anna:{bcrypt.hashpw(b'sesame', bcrypt.gensalt(4)).decode()}\n")
    import base64
    import ssl

    host = host_of(start("--tls-cert", certificate, "--tls-key", key, "--htpasswd", tmp_path / "users"))
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    with Client(host, tls=trusted) as client:
        assert client("GET", "/v2/").status == 401
        assert client("GET", "/v2/", Authorization="Basic " + base64.b64encode(b"anna:sesame").decode()).status == 200


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--address", "0.0.0.0:0"], "whoever reaches 0.0.0.0 could read all images"),
        (["--address", "[::]:0"], "whoever reaches :: could"),
        (["--address", "127.0.0.1:x"], "is no address"),
        (["--address", "registry"], "'registry' is no address"),
        (["--address", "no such:5000"], "'no such:5000' is no address"),
        (["--address", "no-such.invalid:0", "--insecure-listen"], "cannot listen on no-such.invalid:0: "),
        (["--address", "192.0.2.1:0", "--insecure-listen"], "192.0.2.1"),
        (["--tls-cert", "/dev/null"], "a certificate needs its key"),
        (["--tls-cert", "/dev/null", "--tls-key", "/dev/null"], "are no certificate and its key"),
        (["--tls-cert", "/no-such", "--tls-key", "/dev/null"], "/no-such: No such file"),
        (["--htpasswd", "/no-such"], "/no-such: No such file"),
        (["--htpasswd", "/dev/null"], "no user"),
    ],
)
def test_what_is_refused(root: Path, words: list[str], message: str) -> None:
    done = CliRunner().invoke(front, ["--root", str(root), "serve", *words])
    assert (done.exit_code, done.stdout) == (1, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 2, "a sentence and a remedy"


def test_a_port_in_use_is_an_error(root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = CliRunner().invoke(front, ["--root", str(root), "serve", "--address", address])
    assert done.exit_code == 1
    assert "Address already in use" in done.stderr
    assert "another port" in done.stderr


def test_beyond_this_machine_if_it_is_wanted(start: Start) -> None:
    process = start("--insecure-listen", address="0.0.0.0:0")
    line = cast(IO[str], process.stdout).readline()
    found = re.fullmatch(r"Listening on http://0\.0\.0\.0:(\d+)\n", line)
    assert found
    with Client(f"127.0.0.1:{found[1]}") as client:
        assert client("GET", "/v2/").status == 200


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:5000", "127.0.0.1", 5000),
        (":80", "127.0.0.1", 80),
        ("localhost", "localhost", 5000),
        ("127.0.0.2", "127.0.0.2", 5000),
        ("[::1]:1", "::1", 1),
        ("[::1]", "::1", 5000),
        ("::1", "::1", 5000),
        ("registry.example:65535", "registry.example", 65535),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert listening.parse(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    [
        "5000",
        "foo",
        "/run/x",
        "a/b:1",
        "a b:1",
        "-x:1",
        "x-:1",
        "é:1",
        "http://x:1",
        "x:65536",
        "x:",
        "x:-1",
        "x:1:y",
        "[::1]:x",
        "x:٣",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError):
        listening.parse(text)


def test_what_is_of_this_machine_alone() -> None:
    assert all(map(listening.is_loopback, ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"]))
    assert not any(map(listening.is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.example", "127.0.0.1.example"]))


def test_without_the_package_it_says_which(tmp_path: Path) -> None:
    (tmp_path / "cheroot.py").write_text("raise ModuleNotFoundError('gone', name='cheroot')")
    command = [sys.executable, "-m", "layerstore.cli", "--root", tmp_path / "root", "serve"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'layerstore[serve]'" in done.stderr
