"""From the values of a command line to `RunOptions`: what belongs together, and what does not go together. Pure, but
for the files that are named: of variables, of labels, of a seccomp profile."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from layerstore.cli.run_options import mounts, pairs
from layerstore.errors import ConfigError
from layerstore.runtime.options import HealthCheck, Isolation, RunOptions

_LEAST_MEMORY: Final = 6 << 20
_SAME: Final = (
    "add_hosts annotations cap_add cap_drop cgroup_parent cpu_shares cpus cpuset_cpus cpuset_mems devices dns "
    "dns_search dns_options domainname group_add hostname init interactive ipc isolation memory memory_reservation "
    "memory_swap oom_score_adj pid privileged publish_all read_only remove runtime security_opt shm_size stop_signal "
    "stop_timeout sysctls tty ulimits user uts volumes_from"
)
"""The options whose value is a field of `RunOptions` as it is, but for lists that become tuples or mappings."""

_BY_NAME: Final = ("annotations", "sysctls")


def run_options_of(given: Mapping[str, Any], args: Sequence[str], own: Mapping[str, str] | None = None) -> RunOptions:
    """What `run` was told, from the values that click has. `own`: our own environment.

    Raises `ValueError` for what does not go together, `ConfigError` for a file that cannot be read.
    """
    _require_harmony(given)
    own = os.environ if own is None else own
    variables = pairs.environment(
        [
            *([f"{name}={value}" for name, value in own.items()] if given["env_host"] else ()),
            *(line for path in given["env_files"] for line in pairs.read(path, "env file")),
        ],
        given["env"],
        own,
    )
    said = {variable.partition("=")[0] for variable in variables}
    # A name without a value takes the image's away; what is set besides stays.
    variables = (*variables, *(name for name in given["unsetenv"] if name not in said))
    labels = pairs.labels(
        [line for path in given["label_files"] for line in pairs.read(path, "label file")], given["labels"]
    )
    named = {
        "add_hosts": given["add_host"],
        "annotations": given["annotation"],
        "security_opt": tuple(_profile(option) for option in given["security_opt"]),
    }
    same: dict[str, Any] = {name: named.get(name, given.get(name)) for name in _SAME.split()}
    same |= {name: dict(same[name]) for name in _BY_NAME}
    # Unless something is said of the network, the runtime chooses; a port that is published needs one of its own.
    network: dict[str, Any] = {} if given["network"] is None else {"network": given["network"]}
    if given["network"] is None and (given["publish"] or given["publish_all"]):
        network["network"] = "private"
    entrypoint = given["entrypoint"]
    return RunOptions(
        args=tuple(args),
        entrypoint=None if entrypoint is None else (entrypoint,) if entrypoint else (),
        env=variables,
        working_dir=given["working_dir"] or None,
        labels=labels,
        mounts=mounts.together(given["volumes"], given["mounts"], given["tmpfs"]),
        ports=tuple(port for ports in given["publish"] for port in ports),
        pids_limit=given["pids_limit"] or None,
        log_driver=given["log_driver"] or "json-file",
        health=_health(given),
        **network,
        **same,
    )


def _profile(option: str) -> str:
    """A `--security-opt`; one that names a file of seccomp has that file's text, as docker's client sends it."""
    import json

    name, _, value = option.partition("=")
    if name != "seccomp" or value in ("", "unconfined", "builtin") or value.lstrip().startswith("{"):
        return option
    try:
        return f"seccomp={json.dumps(json.loads(Path(value).read_text()))}"
    except OSError as problem:
        reason = (problem.strerror or "cannot be read").lower()
        raise ConfigError(
            f"opening seccomp profile ({value}) failed: open {value}: {reason}",
            remedy="Name a file with a profile, or say seccomp=unconfined.",
        ) from None
    except ValueError as wrong:
        raise ConfigError(
            f"the seccomp profile {value} is not JSON: {wrong}", remedy="Name a profile as docker has them."
        ) from None


def _require_harmony(given: Mapping[str, Any]) -> None:
    """Raise `ValueError` where values that are right by themselves do not go together, or out of their range."""
    memory, swap, score = given["memory"], given["memory_swap"], given["oom_score_adj"]
    if memory and memory < _LEAST_MEMORY:
        raise ValueError("Minimum memory limit allowed is 6MB")
    if swap and swap > 0 and not memory:
        raise ValueError("You should always set the Memory limit when using Memoryswap limit, see usage")
    if swap and memory and 0 < swap < memory:
        raise ValueError("Minimum memoryswap limit should be larger than memory limit, see usage")
    if memory and given["memory_reservation"] and given["memory_reservation"] > memory:
        raise ValueError("Minimum memory limit can not be less than memory reservation limit, see usage")
    if score is not None and not -1000 <= score <= 1000:
        raise ValueError(f"Invalid value {score}, range for oom score adj is [-1000, 1000]")
    count = os.cpu_count() or 1
    if given["cpus"] is not None and given["cpus"] != 0 and not 0.01 <= given["cpus"] <= count:
        raise ValueError(f"Range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    if given["replace"] and not given["name"]:
        raise ValueError("--replace needs --name: it removes the container that has it")
    if given.get("detach") and given["attach"]:
        raise ValueError("conflicting options: cannot specify both --attach and --detach")
    if (given["network"] or "").startswith("container:") and given["hostname"]:
        raise ValueError("conflicting options: hostname and the network mode")
    if given["isolation"] is not Isolation.FULL:
        _require_lean(given)


def _require_lean(given: Mapping[str, Any]) -> None:
    """Less than a sandbox has no cgroup, no capabilities taken away, and no network of its own."""
    full = (
        "cap_add cap_drop security_opt devices memory memory_swap memory_reservation cpus cpu_shares cpuset_cpus "
        "cpuset_mems pids_limit sysctls publish privileged cgroup_parent"
    )
    for name in full.split():
        if given[name]:
            option = {"devices": "device", "sysctls": "sysctl"}.get(name, name).replace("_", "-")
            raise ValueError(f"conflicting options: --{option} needs --isolation full")


def _health(given: Mapping[str, Any]) -> HealthCheck | None:
    """What `--health-…` and `--no-healthcheck` say; None if nothing."""
    names = ("interval", "timeout", "start_period", "start_interval", "retries")
    found: dict[str, Any] = {name: given[f"health_{name}"] for name in names}
    command = given["health_cmd"]
    if given["no_healthcheck"]:
        if command or any(value for value in found.values()):
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return HealthCheck(disabled=True)
    for name, value in found.items():
        if value is not None and value < 0:
            raise ValueError(f"--health-{name.replace('_', '-')} cannot be negative")
    if not command and not any(found.values()):
        return None
    said: dict[str, Any] = {name: value or None for name, value in found.items()}
    return HealthCheck(test=("CMD-SHELL", command) if command else (), **said)
