"""Where a registry is and how it is reached: mirrors, certificates, plain HTTP, proxies."""

from __future__ import annotations

import shutil
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from attrs import evolve

from layerstore.access import Access
from layerstore.config import Config, Proxies
from layerstore.errors import CertificateError, ConfigError, RegistryError, Unreachable
from layerstore.registry.transport.hosts import Endpoint, Trust, certificates_of, endpoints, is_insecure
from layerstore.registry.transport.proxies import proxy_for, without_secrets
from layerstore.registry.transport.settings import Settings
from layerstore.registry.transport.urls import absolute, origin

from .asking import SETTINGS, Asking, asking
from .conftest import CredentialFiles
from .servers import quirks as act
from .servers.certificates import Authority
from .servers.listening import Answer
from .servers.quirks import Quirks
from .servers.tokens import TokenService

# ---- which servers


def test_docker_hub_is_elsewhere_than_its_name_says() -> None:
    assert endpoints(Settings(), "docker.io") == (Endpoint("docker.io", "https://registry-1.docker.io"),)
    assert endpoints(Settings(), "quay.io") == (Endpoint("quay.io", "https://quay.io"),)


def test_mirrors_are_asked_first_and_for_hub_only() -> None:
    settings = Settings.of(Config(registry_mirrors=("https://mirror.example/", "http://10.0.0.1:5000/hub/")))

    first, second, last = endpoints(settings, "docker.io")
    assert (first.base, first.is_mirror, first.verify) == ("https://mirror.example", True, True)
    assert (second.base, second.plain) == ("http://10.0.0.1:5000/hub", True)
    assert (last.base, last.is_mirror) == ("https://registry-1.docker.io", False)
    assert (first.name, last.name) == ("mirror.example", "docker.io")
    assert len(endpoints(settings, "quay.io")) == 1


@pytest.mark.parametrize(
    ("registry", "listed", "expected"),
    [
        ("localhost:5000", (), True),
        ("127.0.0.1:5000", (), True),
        ("127.3.2.1", (), True),
        ("[::1]:5000", (), True),
        ("registry.example", (), False),
        ("10.1.2.3:5000", (), False),
        ("registry.example:5000", ("registry.example:5000",), True),
        ("Registry.Example:5000", ("registry.example:5000",), True),
        ("registry.example:5000", ("http://registry.example:5000",), True),
        ("registry.example:5001", ("registry.example:5000",), False),
        ("registry.example:5000", ("registry.example",), False),
        ("10.1.2.3:5000", ("10.0.0.0/8",), True),
        ("11.1.2.3:5000", ("10.0.0.0/8",), False),
        ("10.1.2.3", ("10.1.2.9/8",), True),
        ("[fd00::1]:5000", ("fd00::/8",), True),
        ("no-such-host.invalid", ("10.0.0.0/8",), False),
    ],
)
def test_what_is_insecure_is_what_docker_takes_for_it(registry: str, listed: tuple[str, ...], expected: bool) -> None:  # noqa: FBT001
    assert is_insecure(Settings(insecure=listed), registry) is expected


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match=r"insecure-registries: '300\.0\.0\.0/8' is neither"):
        is_insecure(Settings(insecure=("300.0.0.0/8",)), "registry.example")


def test_the_flag_counts_before_the_file() -> None:
    assert is_insecure(Settings(verify=False), "registry.example")
    assert not is_insecure(Settings(verify=True, insecure=("registry.example",)), "registry.example")
    [endpoint] = endpoints(Settings(verify=True), "localhost:5000")
    assert (endpoint.verify, endpoint.plain) == (True, False)


def test_no_limit_is_a_limit_of_ours() -> None:
    settings = Settings.of(Config(max_concurrent_downloads=0, max_concurrent_uploads=0, max_download_attempts=7))

    assert settings.downloads == settings.uploads > 8
    assert settings.attempts == 7


# ---- HTTPS and HTTP


def get(client: Asking, endpoint: Endpoint) -> int:
    with client.request(endpoint, "GET", "/v2/") as reply:
        return reply.status


def test_a_registry_on_loopback_speaks_what_it_speaks(quirks: Quirks, secure_quirks: Quirks) -> None:
    with asking() as client:
        assert client.status(quirks.host, "/v2/") == 200
        assert client.status(secure_quirks.host, "/v2/") == 200
        for _ in range(3):
            client.get(secure_quirks.host, "/v2/").close()

    assert quirks.connections == 1, "who is known to speak HTTP is asked nothing else"
    assert len(secure_quirks.asked()) == 4


def test_elsewhere_https_is_tried_first(quirks: Quirks, secure_quirks: Quirks) -> None:
    with asking() as client:
        for server in (quirks, secure_quirks):
            host = f"127.1:{server.port}"  # reached as loopback is, but not known to be it
            assert get(client, Endpoint(host, f"https://{host}", verify=False, plain=True)) == 200

    assert secure_quirks.connections == 1
    assert quirks.connections == 2


def test_a_bad_moment_of_https_is_not_taken_for_http(authority: Authority) -> None:
    """A server of HTTPS answers 400 to HTTP, where it answers at all."""
    with Quirks() as server:
        server.spoil("GET", "", act.status(400))
        host = f"127.1:{server.port}"
        endpoint = Endpoint(host, f"https://{host}", verify=False, plain=True)
        with asking(attempts=1) as client:
            for _ in range(2):
                with pytest.raises(Unreachable, match="does not speak TLS"):
                    get(client, endpoint)


def test_http_is_spoken_to_nobody_who_is_not_insecure(quirks: Quirks) -> None:
    host = f"127.1:{quirks.port}"
    with asking(verify=True) as client, pytest.raises(Unreachable, match="does not speak TLS") as caught:
        get(client, Endpoint(host, f"https://{host}"))

    assert "insecure-registries" in str(caught.value)
    assert quirks.asked() == []


def test_who_waits_for_another_hello_is_given_up_in_time() -> None:
    """A server of HTTP may read the beginning of TLS as a line that has not ended."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.1:{silent.getsockname()[1]}"
        with asking(connect_timeout=0.2) as client, pytest.raises(Unreachable, match=r"no TLS within 0\.2 s"):
            get(client, Endpoint(host, f"https://{host}"))


def test_nothing_goes_from_https_to_http(secure_quirks: Quirks, quirks: Quirks) -> None:
    secure_quirks.spoil("GET", "", act.moved(quirks.url))
    host = secure_quirks.host
    with asking() as client, pytest.raises(RegistryError, match="which is not encrypted"):
        get(client, Endpoint(host, f"https://{host}", verify=False))

    assert quirks.asked() == []


def test_the_token_service_of_a_secure_registry_has_to_be_secure(secure_quirks: Quirks, quirks: Quirks) -> None:
    header = f'Bearer realm="{quirks.url}/token"'
    secure_quirks.spoil("GET", "", lambda seen, answer: Answer(401, {"WWW-Authenticate": header}))
    host = secure_quirks.host
    with asking() as client, pytest.raises(RegistryError, match="which is not encrypted"):
        get(client, Endpoint(host, f"https://{host}", verify=False))

    assert quirks.asked() == []


def test_a_location_of_a_registry_that_does_not_know_its_own_scheme() -> None:
    """Behind a proxy that ends TLS: the registry thinks that it is asked by HTTP."""
    base = "https://registry.example"
    assert absolute(base, "http://registry.example/v2/uploads/1?_state=x") == f"{base}/v2/uploads/1?_state=x"
    assert absolute(base, "http://registry.example:80/v2/") == f"{base}/v2/"
    assert absolute(f"{base}:5000", "http://registry.example:5000/v2/") == f"{base}:5000/v2/"
    for elsewhere in ("http://other.example/v2/", "http://registry.example:8080/v2/"):
        with pytest.raises(RegistryError, match="not encrypted"):
            absolute(base, elsewhere)


def test_a_url_is_of_a_server_by_scheme_host_and_port() -> None:
    assert origin("https://Host/a") == origin("https://host:443/b") == origin("https://anna@host")
    assert len({origin(f"{scheme}://{host}") for scheme in ("http", "https") for host in ("a", "b", "a:1")}) == 6


# ---- certificates


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """A certs.d."""
    folder = tmp_path / "certs.d"
    folder.mkdir()
    return folder


def checking(certs: Path) -> Settings:
    return evolve(SETTINGS, certificate_folders=(certs,), verify=True)


def reach(settings: Settings, server: Quirks) -> int:
    with Asking(settings) as client:
        return get(client, client.endpoint(server.host))


def test_a_certificate_of_nobody_known_says_where_its_authority_goes(secure_quirks: Quirks, certs: Path) -> None:
    with pytest.raises(CertificateError, match=r"is not trusted: (self-signed|unable to get)") as caught:
        reach(checking(certs), secure_quirks)

    assert f"{certs}/{secure_quirks.host}/ca.crt" in str(caught.value)
    assert "insecure-registries" in str(caught.value)
    assert secure_quirks.asked() == []


def test_certs_d_names_an_authority(secure_quirks: Quirks, authority: Authority, certs: Path) -> None:
    (certs / secure_quirks.host).mkdir()
    shutil.copy(authority.certificate, certs / secure_quirks.host / "ca.crt")

    assert reach(checking(certs), secure_quirks) == 200


def test_a_certificate_for_another_host_or_of_yesterday_is_not_taken(authority: Authority, certs: Path) -> None:
    for tls, words in (
        (authority.server("other.example"), "127.0.0.1(.|\n)*Use the name that its certificate is for"),
        (authority.server("127.0.0.1", days=-1), "expired(.|\n)*Look at the clock"),
    ):
        with Quirks(tls=tls) as server:
            (certs / server.host).mkdir()
            shutil.copy(authority.certificate, certs / server.host / "ca.crt")
            with pytest.raises(CertificateError, match=words):
                reach(checking(certs), server)


def test_certs_d_has_our_own_certificate(authority: Authority, certs: Path) -> None:
    with Quirks(tls=authority.server(clients=True)) as server:
        folder = certs / server.host
        folder.mkdir()
        shutil.copy(authority.certificate, folder / "ca.crt")
        with pytest.raises(CertificateError, match="refuses our certificate, or wants one") as caught:
            reach(checking(certs), server)
        assert f"Put client.cert and client.key into {folder}" in str(caught.value)

        cert, key = authority.issue("client")
        shutil.copy(cert, folder / "client.cert")
        shutil.copy(key, folder / "client.key")
        assert reach(checking(certs), server) == 200


def test_what_is_no_certificate_is_named(secure_quirks: Quirks, authority: Authority, certs: Path) -> None:
    folder = certs / secure_quirks.host
    folder.mkdir()
    cert, key = authority.issue("client")
    for name, content, words in (
        ("ca.crt", b"nonsense", "ca.crt: "),
        ("client.cert", cert.read_bytes(), "no key to this certificate"),
        ("client.key", key.read_bytes(), "no certificate to this key"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(ConfigError, match=words):
            reach(checking(certs), secure_quirks)
        (folder / name).unlink()


def test_a_key_with_a_password_asks_nobody(secure_quirks: Quirks, authority: Authority, certs: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    folder = certs / secure_quirks.host
    folder.mkdir()
    cert, key = authority.issue("client")
    shutil.copy(cert, folder / "client.cert")
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    kind = serialization.PrivateFormat.PKCS8
    (folder / "client.key").write_bytes(loaded.private_bytes(serialization.Encoding.PEM, kind, encryption))

    with pytest.raises(ConfigError, match=r"client\.cert: the key is encrypted"):
        reach(checking(certs), secure_quirks)


def test_the_authority_of_a_registry_holds_for_its_token_service_and_redirects(
    authority: Authority, certs: Path
) -> None:
    with (
        TokenService(tls=authority.server()) as tokens,
        Quirks(tls=authority.server()) as server,
        Quirks(tls=authority.server()) as cloud,
    ):
        server.tokens = tokens
        (certs / server.host).mkdir()
        shutil.copy(authority.certificate, certs / server.host / "ca.crt")
        server.put_manifest("team/app", "latest", {"schemaVersion": 2})
        server.spoil("GET", "blobs", act.moved(cloud.url))
        digest = cloud.put_blob("team/app", b"layer")
        with Asking(checking(certs)) as client:
            assert client.status(server.host) == 200
            assert client.status(server.host, f"/v2/team/app/blobs/{digest}") == 200
            contexts = client._connections._contexts
            assert len(contexts) == 2, "the two others share one"
            # It does not hold where they are asked for themselves.
            with pytest.raises(CertificateError):
                client.status(cloud.host)


def test_whom_an_insecure_registry_names_need_not_be_secure_either(authority: Authority) -> None:
    with Quirks(tls=authority.server()) as server, Quirks(tls=authority.server("cloud.example")) as cloud:
        server.spoil("GET", "", act.moved(cloud.url))
        endpoint = Endpoint(server.host, server.url, verify=False)
        with asking(verify=True) as client:
            assert get(client, endpoint) == 200


def test_an_insecure_registry_is_not_checked(secure_quirks: Quirks) -> None:
    assert reach(SETTINGS, secure_quirks) == 200
    assert reach(evolve(SETTINGS, verify=False), secure_quirks) == 200


@pytest.mark.parametrize("host", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_certificates_of_one_call_are_for_docker_hub_by_each_of_its_names(host: str, tmp_path: Path) -> None:
    settings = Settings(access=Access(host="docker.io", certificates=tmp_path))
    assert certificates_of(settings, host) == tmp_path
    assert Trust.of(settings, "auth.docker.io", host, verify=True).registry == tmp_path
    assert certificates_of(settings, "docker.io.example") is None


def test_the_folders_are_dockers_and_those_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/anna")

    folders = Settings.of(Config()).certificate_folders
    assert folders == tuple(
        map(Path, ("/home/anna/.config/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d"))
    )


# ---- proxies


@pytest.mark.parametrize(
    ("url", "exempt", "expected"),
    [
        ("https://registry.example/v2/", "", "http://secure:3128"),
        ("http://registry.example/v2/", "", "http://plain:3128"),
        ("https://registry.example/v2/", "registry.example", None),
        ("https://eu.registry.example/v2/", "registry.example", None),
        ("https://myregistry.example/v2/", "registry.example", "http://secure:3128"),
        ("https://registry.example/v2/", ".registry.example", "http://secure:3128"),
        ("https://eu.registry.example/v2/", ".registry.example", None),
        ("https://eu.registry.example/v2/", "*.registry.example", None),
        ("https://registry.example/v2/", "other, registry.example", None),
        ("https://registry.example/v2/", "other registry.example", None),
        ("https://Registry.Example/v2/", "REGISTRY.example", None),
        ("https://registry.example:5000/v2/", "registry.example:5000", None),
        ("https://registry.example:5001/v2/", "registry.example:5000", "http://secure:3128"),
        ("https://registry.example/v2/", "registry.example:443", None),
        ("https://registry.example/v2/", "*", None),
        ("https://10.1.2.3/v2/", "10.0.0.0/8", None),
        ("https://11.1.2.3/v2/", "10.0.0.0/8", "http://secure:3128"),
        ("https://[fd00::1]/v2/", "fd00::/8", None),
        ("https://[fd00::1]:5000/v2/", "[fd00::1]:5000", None),
        ("https://127.0.0.1:5000/v2/", "", None),
        ("https://localhost:5000/v2/", "", None),
        ("https://[::1]:5000/v2/", "", None),
    ],
)
def test_the_proxy_of_the_environment(
    url: str, exempt: str, expected: str | None, monkeypatch: pytest.MonkeyPatch, credential_files: CredentialFiles
) -> None:
    monkeypatch.setenv("http_proxy", "plain:3128")
    monkeypatch.setenv("HTTPS_PROXY", "http://secure:3128")
    monkeypatch.setenv("NO_PROXY", exempt)

    assert proxy_for(Proxies(), url) == expected


def test_daemon_json_counts_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://environment:3128")
    monkeypatch.setenv("no_proxy", "registry.example")

    assert proxy_for(Proxies(none_for=""), "https://registry.example") == "http://environment:3128"
    assert proxy_for(Proxies(https="http://file:3128"), "https://other.example") == "http://file:3128"
    assert proxy_for(Proxies(none_for="other.example"), "https://other.example") is None


def test_who_calls_a_program_for_the_web_chooses_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://evil:3128")
    monkeypatch.setenv("REQUEST_METHOD", "GET")

    assert proxy_for(Proxies(), "http://registry.example") is None


def test_a_proxy_is_shown_without_its_password() -> None:
    assert without_secrets("http://anna:secret@proxy:3128/") == "http://proxy:3128"
    assert without_secrets("http://anna:sec/ret@[") == "http://["


def test_plain_http_goes_through_the_proxy(quirks: Quirks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://anna:open%20sesame@{quirks.host}")
    with asking() as client:
        assert get(client, Endpoint("registry.test", "http://registry.test")) == 200

    [seen] = quirks.asked()
    assert seen.target == "http://registry.test/v2/"
    assert seen.headers["Proxy-Authorization"] == "Basic YW5uYTpvcGVuIHNlc2FtZQ=="


class _Tunnels(socketserver.ThreadingTCPServer):
    """A proxy that connects everybody to one server, or refuses."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, port: int, answer: bytes) -> None:
        self.to, self.answer_line, self.heads = port, answer, list[bytes]()
        super().__init__(("127.0.0.1", 0), _Tunnel)


class _Tunnel(socketserver.StreamRequestHandler):
    server: _Tunnels

    def handle(self) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.rfile.read(1)
        self.server.heads.append(head)
        self.wfile.write(self.server.answer_line + b"\r\n\r\n")
        if b" 200 " not in self.server.answer_line:
            return
        with socket.create_connection(("127.0.0.1", self.server.to)) as other:
            threading.Thread(target=_pump, args=(self.connection, other), daemon=True).start()
            _pump(other, self.connection)


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass


@contextmanager
def tunnels(port: int, answer: bytes = b"HTTP/1.1 200 Connected") -> Iterator[_Tunnels]:
    with _Tunnels(port, answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def test_https_goes_through_a_tunnel(authority: Authority, certs: Path) -> None:
    (certs / "registry.test").mkdir()
    shutil.copy(authority.certificate, certs / "registry.test" / "ca.crt")
    with Quirks(tls=authority.server("registry.test")) as server, tunnels(server.port) as proxy:
        url = f"http://anna:secret@127.0.0.1:{proxy.server_address[1]}"
        settings = evolve(checking(certs), proxies=Proxies(https=url))
        with Asking(settings) as client:
            assert get(client, client.endpoint("registry.test")) == 200

    [head] = proxy.heads
    assert head.startswith(b"CONNECT registry.test:443 HTTP/1.")
    assert b"proxy-authorization: basic" in head.lower()
    assert server.asked()[0].headers["Proxy-Authorization"] is None


def test_a_proxy_that_refuses_is_said_to_be_one() -> None:
    with tunnels(1, b"HTTP/1.1 407 Proxy Authentication Required") as proxy:
        url = f"http://anna:s3cret@127.0.0.1:{proxy.server_address[1]}"
        with (
            asking(proxies=Proxies(https=url)) as client,
            pytest.raises(Unreachable, match="the proxy on") as caught,
        ):
            client.get("registry.test")

    assert "407" in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["ftp://proxy:21", "socks5://127.0.0.1:1", "http://[", "http://proxy:port"])
def test_a_proxy_that_cannot_be_used_is_an_error_in_words(proxy: str) -> None:
    with asking(proxies=Proxies(https=proxy)) as client, pytest.raises(RegistryError, match="proxy"):
        client.get("registry.test")
