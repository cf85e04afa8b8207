"""Networks by slirp4netns and pasta: reached by published ports, gone with the container, refused in words."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerstore import CannotRun, ConfigError, Container, NotFound
from layerstore.runtime import Runtime
from layerstore.runtime.network import Kind, Mode, parse, usable
from layerstore.runtime.network import pasta as pasta_line
from layerstore.runtime.network import slirp4netns as slirp_line
from layerstore.runtime.network.ports import Published, notices, published
from layerstore.runtime.options import Port, RunOptions
from layerstore.runtime.streams import Streams
from runtime.life.conftest import Make
from runtime.network.test_killed_connecting import connectors

# --- what is asked for


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("host", Mode(Kind.HOST)),
        ("default", Mode(Kind.HOST)),
        ("none", Mode(Kind.NONE)),
        ("container:web", Mode(Kind.CONTAINER, "web")),
        ("pasta", Mode(Kind.PASTA)),
        ("pasta:-T,5432", Mode(Kind.PASTA, words=("-T", "5432"))),
        (
            "slirp4netns:allow_host_loopback=true,mtu=1500",
            Mode(Kind.SLIRP, words=("allow_host_loopback=true", "mtu=1500")),
        ),
    ],
)
def test_what_a_network_means(text: str, mode: Mode) -> None:
    assert parse(text) == mode


@pytest.mark.parametrize("text", ["bridge", "mynet", "", "host:x", "none:", "container:", "ns:/run/netns/x"])
def test_what_is_not_ours_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.remedy is not None
    assert "slirp4netns" in caught.value.remedy


def test_a_bridge_is_refused_before_there_is_a_container(runtime: Runtime) -> None:
    with pytest.raises(ConfigError, match="there is no bridge network"):
        runtime.create("debian", RunOptions(network="bridge"))
    with pytest.raises(NotFound):
        runtime.create("debian", RunOptions(network="container:none"))
    assert runtime.store.containers() == []


def test_ports_that_the_image_exposes_are_published_if_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(ports=(Port(80, 8080),), publish_all=True)
    found = published(Mode(Kind.SLIRP), options, ["80/tcp", "53/udp"])
    assert found[0] == Published(80, 8080)
    assert (found[1].container, found[1].protocol) == (53, "udp")
    assert 1024 <= found[1].host <= 65535
    assert published(Mode(Kind.NONE), options, ["80/tcp"]) == ()


def test_ports_that_cannot_be_are_refused_or_told() -> None:
    options = RunOptions(ports=(Port(80, 8080),))
    with pytest.raises(ConfigError, match="conflicting options: port publishing"):
        published(Mode(Kind.CONTAINER, "web"), options, [])
    with pytest.raises(ConfigError, match="80/sctp cannot be published"):
        published(Mode(Kind.SLIRP), RunOptions(ports=(Port(80, 8080, protocol="sctp"),)), [])
    with pytest.raises(ConfigError, match=r"no address 192\.0\.2\.77"):
        published(Mode(Kind.SLIRP), RunOptions(ports=(Port(80, None, "192.0.2.77"),)), [])
    assert notices(options, Mode(Kind.HOST)) == ["Published ports are discarded when using host network mode"]
    assert notices(options, Mode(Kind.SLIRP)) == []


def test_programs_are_told_what_to_connect() -> None:
    line = slirp_line.argv("s", ("enable_ipv6=true", "mtu=1500"), 7, ready=3, exit=4, api=Path("/a"))
    assert " ".join(line) == (
        "s --configure --mtu=1500 --enable-sandbox --enable-seccomp --disable-host-loopback --enable-ipv6"
        " --ready-fd=3 --exit-fd=4 --api-socket=/a 7 tap0"
    )
    with pytest.raises(ConfigError, match="slirp4netns has no option 'colour=red'"):
        slirp_line.argv("s", ("colour=red",), 7, ready=3, exit=4, api=Path("/a"))
    ports = [Published(80, 8080, "127.0.0.1"), Published(53, 5353, protocol="udp")]
    line = pasta_line.argv("p", ("-T", "5432"), 9, ports, pid_file=Path("/p"), as_root=True, answers_names=False)
    assert " ".join(line) == (
        "p --config-net --no-map-gw --pid /p --runas 0:0 --netns-only -t 127.0.0.1/8080:80 -u 5353:53 -U none"
        " -T 5432 --netns /proc/self/fd/9"
    )


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usable, "program", lambda kind: None)
    assert usable.refusal(Kind.PASTA) == ("pasta is not installed", "Install it: `apt-get install passt`.")
    assert usable.refusal(Kind.HOST) is None
    assert usable.first() is Kind.SLIRP


# --- containers

ANSWERING = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as server:
    print("ready", flush=True)
    while True:
        with server.accept()[0] as one:
            one.sendall(b"from within")
"""


OWN = """
import fcntl, socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    for _, name in socket.if_nameindex():
        try:
            found = fcntl.ioctl(asking, 0x8915, name.encode().ljust(40, b"\\0"))  # SIOCGIFADDR
        except OSError:
            continue
        if name != "lo":
            print(socket.inet_ntoa(found[20:24]))
"""


@contextmanager
def answering(pid: int, port: int) -> Iterator[None]:
    """A server in the network of a process."""
    line = ["nsenter", "--target", str(pid), "--net", sys.executable, "-c", ANSWERING, str(port)]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline() == b"ready\n"
            yield
        finally:
            server.kill()


def asked(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as talk:
        return talk.makefile("rb").read()


def own_addresses(pid: int) -> list[str]:
    """What the interfaces of a process's network have, but for loopback, as the kernel says by another way."""
    return of_network(pid, sys.executable, "-c", OWN).split()


def of_network(pid: int, *line: str) -> str:
    """What a program says that is run in a process's network."""
    words = ["nsenter", "--target", str(pid), "--net", *line]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def connector(runtime: Runtime, box: Container) -> int:
    return int(json.loads(runtime.folder(box).network.read_text())["pid"])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(pid: int) -> None:
    deadline = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process {pid} goes on"
        time.sleep(0.01)


real = pytest.mark.parametrize("network", ["slirp4netns", "pasta"])
needs = pytest.mark.tools("crun", "conmon", "slirp4netns", "pasta", "nsenter", "ip")


@pytest.mark.root
@needs
@real
def test_a_published_port_reaches_the_container_and_ends_with_it(make: Make, runtime: Runtime, network: str) -> None:
    box = make("sleep", "60", network=network, ports=(Port(8000, None, "127.0.0.1"),))
    runtime.start(box)
    state = runtime.state(box)
    (binding,) = runtime.inspect(box)["NetworkSettings"]["Ports"]["8000/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    assert os.readlink(f"/proc/{state.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    helper = connector(runtime, box)
    assert connectors(runtime.store.config) == [helper]
    told = runtime.inspect(box)["NetworkSettings"]["Networks"][network]
    assert [told["IPAddress"]] == (own_addresses(state.pid) or [""])
    if network == "slirp4netns":
        assert (told["IPAddress"], told["IPPrefixLen"], told["Gateway"]) == ("10.0.2.100", 24, "10.0.2.2")
    seen = json.loads(of_network(state.pid, "ip", "-j", "link"))
    assert told["MacAddress"] in ("", *(link["address"] for link in seen if link["ifname"] != "lo"))
    assert bool(told["MacAddress"]) == ("fffe" in Path(f"/proc/{state.pid}/net/if_inet6").read_text())
    with answering(state.pid, 8000):
        assert asked(int(binding["HostPort"])) == b"from within"
    runtime.stop(box, timeout=0)
    ends(helper)
    with pytest.raises(OSError, match="refused"):
        asked(int(binding["HostPort"]))
    assert runtime.places.all() == []


@pytest.mark.root
@needs
@real
def test_a_port_that_is_taken_is_told_and_nothing_is_left(make: Make, runtime: Runtime, network: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        box = make("sleep", "60", network=network, ports=(Port(80, port, "127.0.0.1"),))
        with pytest.raises(CannotRun, match=f"port 127.0.0.1:{port} cannot be published") as caught:
            runtime.start(box)
    assert caught.value.code == 125
    assert runtime.state(box).status == "created"
    assert [box.processes(), runtime.places.all()] == [[], []]


@pytest.mark.root
@needs
def test_a_container_in_the_foreground_has_its_own_network_and_names(make: Make, runtime: Runtime) -> None:
    box = make("sh", "-c", "cat /etc/resolv.conf /etc/hosts; cat /proc/net/route", network="slirp4netns", remove=True)
    fd = os.memfd_create("written")
    assert runtime.run(box, Streams(stdin=None, stdout=fd, stderr=fd)) == 0
    with os.fdopen(fd) as file:
        file.seek(0)
        text = file.read()
    assert "nameserver 10.0.2.3" in text
    assert f"10.0.2.100\t{box.short_id}" in text
    assert "tap0\t00000000\t0202000A" in text  # by the gateway 10.0.2.2
    assert runtime.store.containers() == []


@pytest.mark.root
@needs
def test_what_listens_on_the_host_is_reached_only_if_asked_for(make: Make, runtime: Runtime) -> None:
    script = "import socket, sys; socket.create_connection(('10.0.2.2', int(sys.argv[1])), 20).close()"
    with socket.create_server(("127.0.0.1", 0)) as host:
        for network, is_reached in (("slirp4netns", False), ("slirp4netns:allow_host_loopback=true", True)):
            box = make("sleep", "60", network=network)
            runtime.start(box)
            line = ["nsenter", "--target", str(runtime.state(box).pid), "--net", sys.executable, "-c", script]
            done = subprocess.run([*line, str(host.getsockname()[1])], capture_output=True, check=False)
            assert (done.returncode == 0) == is_reached
            runtime.stop(box, timeout=0)


@pytest.mark.root
@needs
def test_a_container_has_the_network_of_another(make: Make, runtime: Runtime) -> None:
    first = make("sleep", "60", name="first", network="none")
    runtime.start(first)
    second = make("sleep", "60", network="container:first")
    runtime.start(second)
    networks = [os.readlink(f"/proc/{runtime.state(box).pid}/ns/net") for box in (first, second)]
    assert networks[0] == networks[1] != os.readlink("/proc/self/ns/net")


@pytest.mark.root
@needs
@real
def test_its_program_goes_when_all_else_was_killed(make: Make, runtime: Runtime, network: str) -> None:
    box = make("sleep", "60", network=network)
    runtime.start(box)
    helper = connector(runtime, box)
    for process in box.processes():  # conmon first
        process.kill()
    deadline = time.monotonic() + 30
    while Runtime(runtime.store).state(box).is_running:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ends(helper)
    assert runtime.places.all() == []
