"""seccomp: which system calls a container may make (runtime-spec config-linux.md, "Seccomp").

The default is moby's. A profile of the user's is in docker's form, whose rules can depend on capabilities, machine and
kernel (docs.docker.com, "Seccomp security profiles for Docker"), or in the spec's own.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, Final

from layerstore import ConfigError
from layerstore.runtime.bundle import calls
from layerstore.runtime.bundle.host import HostFacts

__all__ = ["default", "read"]

_ARCHITECTURES: Final = {
    "x86_64": ("amd64", ("X86_64", "X86", "X32")),
    "i686": ("x86", ("X86",)),
    "aarch64": ("arm64", ("AARCH64", "ARM")),
    "armv7l": ("arm", ("ARM",)),
    "ppc64le": ("ppc64le", ("PPC64LE",)),
    "s390x": ("s390x", ("S390X", "S390")),
    "riscv64": ("riscv64", ("RISCV64",)),
    "loongarch64": ("loongarch64", ("LOONGARCH64",)),
}
"""By uname's name: Go's, and those of the calls that the kernel takes there."""

_NEW_NAMESPACES: Final = 0x7E020000
"""The flags of clone(2) that make namespaces."""

_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""Linux, with or without a 32-bit machine's name, and the question which it is."""

_AF_ALG, _AF_VSOCK = 38, 40

_ALLOW: Final = "SCMP_ACT_ALLOW"


def default(capabilities: Collection[str], host: HostFacts) -> dict[str, Any]:
    """The usual profile, as wide as the capabilities are. Most containers have the same, which is not to be altered."""
    return _default(frozenset(capabilities), host.architecture)


@lru_cache(maxsize=8)
def _default(capabilities: frozenset[str], architecture: str) -> dict[str, Any]:
    names = set(calls.ALWAYS.split())
    names.update(calls.BY_ARCHITECTURE.get(architecture, "").split())
    for capability, brought in calls.BY_CAPABILITY.items():
        if capability in capabilities:
            names.update(brought.split())
    rules: list[dict[str, Any]] = [
        {"names": sorted(names), "action": _ALLOW},
        # Two families that reach past the container: the kernel's ciphers, and the hypervisor.
        _when("socket", 0, _AF_ALG, "SCMP_CMP_LT"),
        _when("socket", 0, _AF_ALG + 1, "SCMP_CMP_EQ"),
        _when("socket", 0, _AF_VSOCK, "SCMP_CMP_GT"),
        *(_when("personality", 0, value, "SCMP_CMP_EQ") for value in _PERSONALITIES),
    ]
    if "CAP_SYS_ADMIN" not in capabilities:
        flags = 1 if architecture == "s390x" else 0
        rules.append(_when("clone", flags, _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"))
        # Its flags lie in memory, where no filter sees them: as if there were none, so that clone is taken.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    _, machines = _ARCHITECTURES.get(architecture, ("", ()))
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": [f"SCMP_ARCH_{name}" for name in machines],
        "syscalls": rules,
    }


def _when(name: str, index: int, value: int, comparison: str) -> dict[str, Any]:
    argument = {"index": index, "value": value, "op": comparison}
    return {"names": [name], "action": _ALLOW, "args": [argument]}


def read(text: str, where: str, capabilities: Collection[str], host: HostFacts) -> dict[str, Any]:
    """A profile of the user's, of which `text` is the JSON. Raises `ConfigError` if it is none."""
    try:
        profile = json.loads(text)
        return _read(profile, capabilities, host)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"decoding seccomp profile failed: {where}: {error!r}",
            remedy="It is JSON, in docker's form or the runtime spec's, with a defaultAction.",
            path=where,
        ) from None


def _read(profile: Mapping[str, Any], capabilities: Collection[str], host: HostFacts) -> dict[str, Any]:
    machine, machines = _ARCHITECTURES.get(host.architecture, ("", ()))
    read: dict[str, Any] = {"defaultAction": profile["defaultAction"]}
    for key in ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata"):
        if profile.get(key) is not None:
            read[key] = profile[key]
    architectures = list(profile.get("architectures") or ())
    mapped = profile.get("archMap") or ()
    if architectures and mapped:
        raise ValueError("'architectures' and 'archMap' exclude each other")
    for entry in mapped:
        if machines and entry["architecture"] == f"SCMP_ARCH_{machines[0]}":
            architectures = [entry["architecture"], *(entry.get("subArchitectures") or ())]
    if architectures:
        read["architectures"] = architectures
    rules = []
    for rule in profile.get("syscalls") or ():
        if rule.get("name") and rule.get("names"):
            raise ValueError("'name' and 'names' exclude each other")
        if not _applies(rule, machine, capabilities, host):
            continue
        kept = {"names": list(rule.get("names") or [rule["name"]]), "action": rule["action"]}
        kept |= {key: rule[key] for key in ("errnoRet", "args") if rule.get(key) is not None}
        rules.append(kept)
    if rules:
        read["syscalls"] = rules
    return read


def _applies(rule: Mapping[str, Any], machine: str, capabilities: Collection[str], host: HostFacts) -> bool:
    """Do `includes` and `excludes` of a rule let it stand here?"""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    if includes.get("arches") and machine not in includes["arches"]:
        return False
    if any(name not in capabilities for name in includes.get("caps") or ()):
        return False
    if includes.get("minKernel") and host.kernel < _version(includes["minKernel"]):
        return False
    if machine in (excludes.get("arches") or ()):
        return False
    if any(name in capabilities for name in excludes.get("caps") or ()):
        return False
    return not (excludes.get("minKernel") and host.kernel >= _version(excludes["minKernel"]))


def _version(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\.(\d+)(\..*)?", text)
    if found is None:
        raise ValueError(f"{text!r} is no version of a kernel")
    return int(found[1]), int(found[2])
