"""What a container finds in /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from attrs import evolve

from layerstore import ConfigError
from layerstore.runtime import bundle
from layerstore.runtime.options import RunOptions

from .conftest import HOST

ID = "ab" * 32
PRIVATE = bundle.Network(namespace="")
USER_MODE = bundle.Network(
    namespace="/proc/7/ns/net", address="10.0.2.100", gateway="10.0.2.2", nameservers=("10.0.2.3",)
)


def test_the_host_s_network_has_the_host_s_files() -> None:
    assert bundle.texts(RunOptions(), HOST, ID, bundle.Network()) == {
        "hosts": HOST.hosts,
        "hostname": "there\n",
        "resolv.conf": "nameserver 127.0.0.53\nsearch lan\noptions edns0\n",
    }


def test_a_network_of_its_own_has_a_name_of_its_own_and_servers_that_can_be_reached() -> None:
    files = bundle.texts(RunOptions(), HOST, ID, PRIVATE)
    assert files["hostname"] == "abababababab\n"
    assert "10.0.0.7" not in files["hosts"]
    assert files["hosts"].splitlines()[0] == "127.0.0.1\tlocalhost"
    assert files["hosts"].splitlines()[-1] == "127.0.1.1\tabababababab"
    assert files["resolv.conf"] == "nameserver 10.0.0.1\n"
    without = evolve(HOST, stub_resolv_conf="")
    assert bundle.texts(RunOptions(), without, ID, PRIVATE)["resolv.conf"] == "search lan\noptions edns0\n"


def test_a_network_says_what_reaches_the_host() -> None:
    options = RunOptions(hostname="web", domainname="lan", add_hosts=("host.docker.internal:host-gateway", "v6=[::2]"))
    files = bundle.texts(options, HOST, ID, USER_MODE)
    assert files["hosts"].splitlines()[-3:] == [
        "10.0.2.2\thost.docker.internal",
        "::2\tv6",
        "10.0.2.100\tweb.lan web",
    ]
    assert files["resolv.conf"].splitlines()[0] == "nameserver 10.0.2.3"


def test_options_stand_instead_of_the_host_s() -> None:
    options = RunOptions(dns=("9.9.9.9", "::1"), dns_search=("a", "b"), dns_options=("ndots:2",))
    assert bundle.texts(options, HOST, ID, PRIVATE)["resolv.conf"] == (
        "nameserver 9.9.9.9\nnameserver ::1\nsearch a b\noptions ndots:2\n"
    )
    assert "search" not in bundle.texts(RunOptions(dns_search=(".",)), HOST, ID, PRIVATE)["resolv.conf"]


@pytest.mark.parametrize(
    ("options", "network", "words"),
    [
        (RunOptions(add_hosts=("x:y",)), PRIVATE, "invalid IP address in add-host: 'y'"),
        (RunOptions(add_hosts=(":10.0.0.1",)), PRIVATE, "add-host"),
        (RunOptions(add_hosts=("x:host-gateway",)), PRIVATE, "unable to derive the IP value for host-gateway"),
        (RunOptions(dns=("localhost",)), PRIVATE, "'localhost' is not an ip address"),
    ],
)
def test_what_is_no_address_is_refused(options: RunOptions, network: bundle.Network, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        bundle.texts(options, HOST, ID, network)


def test_who_joins_a_network_has_the_other_s_name_and_files() -> None:
    files = {"hosts": "10.9.9.9\tother\n", "hostname": "other\n", "resolv.conf": "nameserver 10.9.9.1\n"}
    network = bundle.Network(namespace="/proc/7/ns/net", joined=True, files=files)
    assert bundle.texts(RunOptions(), HOST, ID, network) == files
    without = bundle.texts(RunOptions(), HOST, ID, evolve(network, files={}))
    assert (without["hostname"], without["resolv.conf"]) == ("abababababab\n", "")
    for options, words in (
        (RunOptions(hostname="mine"), "hostname and the network mode"),
        (RunOptions(dns_search=(".",)), "dns and the network mode"),
        (RunOptions(add_hosts=("x:10.0.0.1",)), "custom host-to-IP mapping and the network mode"),
    ):
        with pytest.raises(ConfigError, match=f"conflicting options: {words}"):
            bundle.texts(options, HOST, ID, network)


def test_files_can_be_read_by_all_whatever_the_umask_is(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o077)
    try:
        bundle.write(folder, {"hosts": "longer\n"})
        bundle.write(folder, {"hosts": "x\n"})
    finally:
        os.umask(mask)
        os.close(folder)
    assert (tmp_path / "hosts").read_text() == "x\n"
    assert (tmp_path / "hosts").stat().st_mode & 0o777 == 0o644
