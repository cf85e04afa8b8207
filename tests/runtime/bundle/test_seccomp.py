"""Profiles: the usual one, and those of users in docker's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from layerstore import ConfigError
from layerstore.runtime.bundle import calls, seccomp

from .conftest import HOST

PODMANS = Path("/usr/share/containers/seccomp.json")


def names(profile: dict[str, Any]) -> set[str]:
    return {name for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" for name in rule["names"]}


def test_capabilities_widen_the_usual_profile() -> None:
    usual = seccomp.default((), HOST)
    assert usual["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert not {"mount", "bpf", "reboot", "kexec_load", "keyctl", "clone3", "io_uring_setup"} & names(usual)
    assert {"arch_prctl", "clone", "ptrace", "read"} <= names(usual)
    wide = seccomp.default(("CAP_SYS_ADMIN", "CAP_SYS_BOOT"), HOST)
    assert names(wide) - names(usual) >= {"mount", "bpf", "clone3", "reboot"}
    assert not any(rule["names"] in (["clone"], ["clone3"]) for rule in wide["syscalls"])


def test_each_capability_and_machine_brings_what_it_is_there_for() -> None:
    for capability, brought in calls.BY_CAPABILITY.items():
        assert set(brought.split()) <= names(seccomp.default((capability,), HOST)), capability
    for machine, brought in calls.BY_ARCHITECTURE.items():
        assert set(brought.split()) <= names(seccomp.default((), evolve(HOST, architecture=machine))), machine


def test_no_name_is_there_twice() -> None:
    listed = calls.ALWAYS.split()
    assert len(listed) == len(set(listed)) == 364


def test_clone_s_flags_are_its_second_argument_on_s390() -> None:
    rules = seccomp.default((), evolve(HOST, architecture="s390x"))["syscalls"]
    assert [rule["args"][0]["index"] for rule in rules if rule["names"] == ["clone"]] == [1]


def test_a_profile_s_rules_depend_on_capabilities_machine_and_kernel() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"name": "a", "action": "SCMP_ACT_ALLOW", "args": [], "comment": "", "includes": {}, "excludes": {}},
            {"names": ["b"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
            {"names": ["c"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm64"]}},
            {"names": ["d"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
            {"names": ["e"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "excludes": {"caps": ["CAP_BPF"]}},
            {"names": ["f"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
            {"names": ["g"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "6.0"}},
        ],
    }

    def kept(*capabilities: str, **facts: Any) -> str:
        read = seccomp.read(json.dumps(profile), "x", capabilities, evolve(HOST, **facts))
        return "".join(name for rule in read["syscalls"] for name in rule["names"])

    assert kept() == "ae"
    assert kept("CAP_BPF") == "ab"
    assert kept(architecture="aarch64") == "acef"
    assert kept(kernel=(6, 2)) == "ade"
    assert kept(kernel=(5, 15)) == "aeg"
    read = seccomp.read(json.dumps(profile), "x", (), HOST)
    assert read["defaultErrnoRet"] == 38
    assert read["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"defaultAction": "x", "syscalls": [{}]}',
        '{"defaultAction": "x", "syscalls": 3}',
        '{"defaultAction": "x", "syscalls": [{"names": ["a"], "action": "y", "includes": {"minKernel": "new"}}]}',
        "[" * 100_000,
    ],
)
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="decoding seccomp profile failed: here"):
        seccomp.read(text, "here", (), HOST)


def test_podman_s_profile_is_read() -> None:
    if not PODMANS.exists():
        pytest.skip("podman's profile is not installed")
    read = seccomp.read(PODMANS.read_text(), str(PODMANS), ("CAP_SYS_CHROOT",), HOST)
    assert {"read", "chroot", "clone"} <= names(read)
    assert "acct" not in names(read)
