"""Capabilities: which a program has, by docker's rules (moby, pkg capabilities and oci/caps)."""

from __future__ import annotations

from collections.abc import Sequence

from layerstore import ConfigError
from layerstore.runtime.bundle.host import HostFacts

__all__ = ["ALL", "chosen", "for_process", "of_host"]

_KNOWN = """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
ALL = tuple(f"CAP_{name}" for name in _KNOWN.split())
"""By their numbers (linux/capability.h)."""

_DOCKERS = """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
    AUDIT_WRITE
"""
_USUAL = frozenset(f"CAP_{name}" for name in _DOCKERS.split())
"""docker's defaults."""


def of_host(host: HostFacts) -> tuple[str, ...]:
    """All that this host can give."""
    return tuple(
        name for number, name in enumerate(ALL) if number <= host.last_capability and host.bounding >> number & 1
    )


def chosen(added: Sequence[str], dropped: Sequence[str], host: HostFacts, *, privileged: bool) -> tuple[str, ...]:
    """Those that `--cap-add` and `--cap-drop` leave. Raises `ConfigError` for a name that is none."""
    add, drop = _read(added, "CapAdd"), _read(dropped, "CapDrop")
    there = of_host(host)
    for name in add - {"ALL"}:
        if name not in there and not privileged:
            raise ConfigError(
                f"invalid CapAdd: capability not supported by your kernel or not available in the current environment: "
                f'"{name}"',
                remedy="Leave it out, or run where root has it.",
            )
    if privileged:
        return there
    if "ALL" in add:
        kept = frozenset() if "ALL" in drop else frozenset(there) - drop
    elif "ALL" in drop:
        kept = add
    else:
        kept = (_USUAL - drop) | add
    return tuple(name for name in there if name in kept)


def for_process(names: Sequence[str], uid: int) -> dict[str, list[str]]:
    """The sets of a process. Who is not root has none until a program that has some is executed (CVE-2022-24769)."""
    listed = list(names)
    if uid:
        return {"bounding": listed}
    return {"bounding": listed, "effective": listed, "permitted": listed}


def _read(names: Sequence[str], where: str) -> frozenset[str]:
    read = set()
    for name in names:
        upper = name.strip().upper()
        if upper == "ALL":
            read.add(upper)
            continue
        full = upper if upper.startswith("CAP_") else f"CAP_{upper}"
        if full not in ALL:
            raise ConfigError(
                f'invalid {where}: unknown capability: "{full}"',
                remedy="capabilities(7) lists them; CAP_ may be left out.",
            )
        read.add(full)
    return frozenset(read)
