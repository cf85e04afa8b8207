"""What a container may use: the cgroup's limits, rlimits, sysctls; docker's rules for each (moby, daemon_unix.go)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerstore import ConfigError
from layerstore.runtime.bundle.host import HostFacts
from layerstore.runtime.options import RunOptions, Ulimit

__all__ = ["limits", "rlimits", "sysctls"]

_LARGEST = 2**63 - 1
"""What the kernel and the spec count with."""

_LEAST_MEMORY = 6 << 20
_LEAST = {"memory": 0, "memory_swap": -1, "memory_reservation": 0, "cpu_shares": 0, "pids_limit": -1}
"""By the names of the options; -1 is no limit, and 0 as if nothing was said."""

_PERIOD = 100_000
"""Microseconds in which a share of the CPUs is given out."""

_ULIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack"
_RLIMITS = frozenset(_ULIMITS.split())
_UNLIMITED = 2**64 - 1
"""RLIM_INFINITY."""

_MESSAGES = """
    kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni
    kernel.shm_rmid_forced
"""
_IPC_SYSCTLS = frozenset(_MESSAGES.split())
"""Those that each ipc namespace has of its own, and fs.mqueue.* (docker, opts.ValidateSysctl)."""


def limits(options: RunOptions, host: HostFacts) -> dict[str, Any]:
    """The limits of the cgroup, without devices. Raises `ConfigError` for what contradicts itself."""
    found: dict[str, Any] = {}
    for name, least in _LEAST.items():
        value = getattr(options, name) or 0
        if not least <= value <= _LARGEST:
            raise ConfigError(
                f"invalid --{name.replace('_', '-')}: {value}", remedy=f"It is a number from {least} to {_LARGEST}."
            )
    if memory := _memory(options, host):
        found["memory"] = memory
    if cpu := _cpu(options, host):
        found["cpu"] = cpu
    if options.pids_limit is not None:
        # 0 and -1 are docker's words for no limit; the spec's is -1 (or 0, which crun takes for none at all).
        found["pids"] = {"limit": options.pids_limit if options.pids_limit > 0 else -1}
    return found


def _memory(options: RunOptions, host: HostFacts) -> dict[str, int]:
    memory, swap, reservation = options.memory or 0, options.memory_swap or 0, options.memory_reservation or 0
    if memory and memory < _LEAST_MEMORY:
        raise ConfigError("Minimum memory limit allowed is 6MB", remedy="Give more with --memory.")
    if swap > 0 and not memory:
        raise ConfigError(
            "You should always set the Memory limit when using Memoryswap limit", remedy="Give --memory, too."
        )
    if 0 < swap < memory:
        raise ConfigError(
            "Minimum memoryswap limit should be larger than memory limit",
            remedy="--memory-swap is memory and swap together.",
        )
    if 0 < memory < reservation:
        raise ConfigError(
            "Minimum memory limit can not be less than memory reservation limit",
            remedy="Give less with --memory-reservation.",
        )
    if 0 < reservation < _LEAST_MEMORY:
        raise ConfigError("Minimum memory reservation allowed is 6MB", remedy="Give more with --memory-reservation.")
    found = {}
    if memory:
        found["limit"] = memory
    if reservation:
        found["reservation"] = reservation
    if host.swap_limits:
        if swap:
            found["swap"] = swap
        elif memory:
            found["swap"] = min(2 * memory, _LARGEST)  # docker's default: as much swap as memory
    return found


def _cpu(options: RunOptions, host: HostFacts) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if options.cpus:
        if not 0.01 <= options.cpus <= host.cpus:
            raise ConfigError(
                f"range of CPUs is from 0.01 to {host.cpus}.00, as there are only {host.cpus} CPUs available",
                remedy="Give --cpus within that.",
            )
        found["period"], found["quota"] = _PERIOD, round(options.cpus * _PERIOD)
    if options.cpu_shares:
        found["shares"] = max(2, options.cpu_shares)  # the kernel's least
    for key, text, kind in (("cpus", options.cpuset_cpus, "cpus"), ("mems", options.cpuset_mems, "mems")):
        if text:
            if not _is_list(text):
                raise ConfigError(f"invalid value {text} for cpuset {kind}", remedy="It is a list such as 0-2,5.")
            found[key] = text
    return found


def _is_list(text: str) -> bool:
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = [first, last] if dash else [first]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            return False
        if dash and int(first) > int(last):
            return False
    return True


def rlimits(asked: Sequence[Ulimit]) -> list[dict[str, Any]]:
    """The limits of each process. Of one that is named twice, the last counts."""
    found = {}
    for limit in asked:
        name = limit.name.lower()
        if name not in _RLIMITS:
            raise ConfigError(f"invalid ulimit type: {limit.name}", remedy=f"These are: {', '.join(sorted(_RLIMITS))}.")
        soft, hard = (_UNLIMITED if value == -1 else value for value in (limit.soft, limit.hard))
        if not 0 <= soft <= hard <= _UNLIMITED:
            raise ConfigError(
                f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}",
                remedy=f"Give --ulimit {name}=SOFT:HARD; -1 is no limit.",
            )
        found[name] = {"type": f"RLIMIT_{name.upper()}", "soft": soft, "hard": hard}
    return list(found.values())


def sysctls(asked: Mapping[str, str], *, own_ipc: bool, own_network: bool, own_uts: bool) -> dict[str, str]:
    """Those that a namespace has of its own, and this container has that namespace. Raises `ConfigError`."""
    for name in asked:
        if name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            own, kind = own_ipc, "IPC"
        elif name.startswith("net."):
            own, kind = own_network, "network"
        elif name == "kernel.domainname":
            own, kind = own_uts, "UTS"
        else:
            raise ConfigError(
                f"sysctl '{name}' is not allowed",
                remedy="Those of net., fs.mqueue. and System V IPC are: the others are the host's.",
            )
        if not own:
            raise ConfigError(
                f"sysctl '{name}' not allowed in host {kind} namespace",
                remedy=f"Give the container a namespace of its own, or set it on the host (sysctl {name}).",
            )
    return dict(asked)
