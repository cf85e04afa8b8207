"""Addresses of a network namespace, read of the kernel's tables."""

from __future__ import annotations

import subprocess

import pytest

from layerstore.runtime.network import addresses as module
from layerstore.runtime.network.addresses import addresses

TABLES = {
    "fib_trie": """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.1.2.3
        /32 link BROADCAST
Local:
     +-- 127.0.0.0/31 1 0 0
        |-- 127.0.0.1
           /32 host LOCAL
     |-- 10.1.2.3
        /32 host LOCAL
     |-- 10.1.2.9
        /32 host LOCAL
""",
    "route": """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
tap0\t00000000\t0100010A\t0003\t0\t0\t0\t00000000\t0\t0\t0
tap0\t0000010A\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0
""",
    "if_inet6": """00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000705d0afffe0b0c0d 02 40 20 80     tap0
20010db8000000000000000000000005 02 40 00 80     tap0
""",
    "ipv6_route": f"""{"0" * 32} 00 {"0" * 32} 00 {"0" * 32} ffffffff 00000001 00000000 00200200       lo
{"0" * 32} 00 {"0" * 32} 00 fe800000000000000000000000000009 00000400 00000001 00000000 00000003     tap0
""",
}


def test_the_kernels_tables_are_dockers_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_table", lambda pid, name: TABLES[name])
    assert addresses(1) == {
        "IPAddress": "10.1.2.3",
        "IPPrefixLen": 20,
        "Gateway": "10.1.0.1",
        "GlobalIPv6Address": "2001:db8::5",
        "GlobalIPv6PrefixLen": 64,
        "IPv6Gateway": "fe80::9",
        "MacAddress": "72:5d:0a:0b:0c:0d",
    }


def test_an_address_that_is_not_made_of_the_hardwares_does_not_tell_it(monkeypatch: pytest.MonkeyPatch) -> None:
    others = TABLES | {"if_inet6": "fe800000000000000000000000000001 02 40 20 80     tap0\n"}
    monkeypatch.setattr(module, "_table", lambda pid, name: others[name])
    assert "MacAddress" not in addresses(1)


@pytest.mark.parametrize(
    "text", ["", "\n", "a b", "x\n" * 9, "tap0 zz zz 1 1 1 1 zz", "  |-- 999.1.1.1\n  /32 host LOCAL\n"]
)
def test_what_is_no_table_has_no_address(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_table", lambda pid, name: text)
    assert addresses(1) == {}


def test_a_process_that_is_gone_has_none() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert addresses(gone.pid) == {}
