"""What `inspect` tells of a container that can be run: docker's State, Mounts, HostConfig, Config, NetworkSettings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from layerstore import Container, Use
from layerstore.runtime.life.configuring import configured
from layerstore.runtime.life.places import Folder
from layerstore.runtime.life.state import RunState
from layerstore.runtime.network.addresses import addresses
from layerstore.runtime.options import RunOptions
from layerstore.runtime.said import section

if TYPE_CHECKING:
    from layerstore.runtime.life.runtime import Runtime

__all__ = ["inspect"]

_NEVER = "0001-01-01T00:00:00Z"
_NO_ADDRESS: Mapping[str, Any] = {
    "IPAddress": "",
    "IPPrefixLen": 0,
    "Gateway": "",
    "GlobalIPv6Address": "",
    "GlobalIPv6PrefixLen": 0,
    "IPv6Gateway": "",
    "MacAddress": "",
}


def inspect(runtime: Runtime, container: Container, *, size: bool = False) -> dict[str, Any]:
    """`Runtime.inspect`."""
    state, options = runtime.state(container), runtime.options(container)
    facts = container.inspect(size=size)
    image = container.image
    said: Mapping[str, Any] = {} if image is None else section(image.config)
    config = _config(container, options, said)
    words = [*(config["Entrypoint"] or ()), *(config["Cmd"] or ())]
    folder = runtime.folder(container)
    return facts | {
        "Path": words[0] if words else "",
        "Args": words[1:],
        "State": _state(state),
        "LogPath": str(folder.log) if folder.log.exists() else "",
        "HostnamePath": str(folder.files / "hostname") if state.is_running else "",
        "HostsPath": str(folder.files / "hosts") if state.is_running else "",
        "ResolvConfPath": str(folder.files / "resolv.conf") if state.is_running else "",
        "RestartCount": 0,
        "HostConfig": _host_config(options),
        "Mounts": _mounts(options, runtime.store.volumes.of(container.id)),
        "Config": config,
        "NetworkSettings": _network(options, folder, state.pid if state.is_running else 0),
    }


def _state(state: RunState) -> dict[str, Any]:
    found: dict[str, Any] = {
        "Status": state.status,
        "Running": state.is_running,
        "Paused": state.status == "paused",
        "Restarting": False,
        "OOMKilled": state.oom_killed,
        "Dead": state.status == "dead",
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": _moment(state.started),
        "FinishedAt": _moment(state.finished),
    }
    return found if state.health is None else {**found, "Health": dict(state.health)}


def _moment(moment: datetime | None) -> str:
    return _NEVER if moment is None else moment.isoformat().replace("+00:00", "Z")


def _config(container: Container, options: RunOptions, said: Mapping[str, Any]) -> dict[str, Any]:
    """docker's Config: what the image says, with the options over it."""
    now = configured(said, options)
    unnamed = [mount.target for mount in options.mounts if mount.kind == "volume" and mount.source is None]
    return {
        **now,
        "Hostname": options.hostname or container.id[:12],
        "Domainname": options.domainname or "",
        "User": now.get("User") or "",
        "AttachStdin": options.interactive,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive,
        "Env": now.get("Env") or [],
        "Cmd": now.get("Cmd"),
        "Image": container.image_name,
        "Volumes": {**(now.get("Volumes") or {}), **{target: {} for target in unnamed}} or None,
        "WorkingDir": now.get("WorkingDir") or "",
        "Entrypoint": now.get("Entrypoint"),
        "Labels": now.get("Labels") or {},
        **({"StopTimeout": options.stop_timeout} if options.stop_timeout is not None else {}),
    }


def _host_config(options: RunOptions) -> dict[str, Any]:
    return {
        "Binds": [_bind(mount) for mount in options.mounts if mount.kind == "bind"] or None,
        "NetworkMode": options.network,
        "PortBindings": _bindings(options),
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": options.remove,
        "VolumesFrom": list(options.volumes_from) or None,
        "ConsoleSize": list(options.console_size or (0, 0)),
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "Dns": list(options.dns),
        "DnsOptions": list(options.dns_options),
        "DnsSearch": list(options.dns_search),
        "ExtraHosts": list(options.add_hosts) or None,
        "GroupAdd": list(options.group_add) or None,
        "IpcMode": options.ipc or "private",
        "LogConfig": {"Type": options.log_driver, "Config": {}},
        "OomScoreAdj": options.oom_score_adj or 0,
        "PidMode": options.pid,
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": list(options.security_opt) or None,
        "Tmpfs": {mount.target: ",".join(mount.options) for mount in options.mounts if mount.kind == "tmpfs"} or None,
        "UTSMode": options.uts,
        "ShmSize": options.shm_size or 64 << 20,
        "Sysctls": dict(options.sysctls) or None,
        "Runtime": options.runtime or "",
        "CpuShares": options.cpu_shares or 0,
        "Memory": options.memory or 0,
        "NanoCpus": round((options.cpus or 0) * 1e9),
        "CgroupParent": options.cgroup_parent,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "Devices": [
            {"PathOnHost": one.host, "PathInContainer": one.container, "CgroupPermissions": one.permissions}
            for one in options.devices
        ],
        "MemoryReservation": options.memory_reservation or 0,
        "MemorySwap": options.memory_swap or 0,
        "PidsLimit": options.pids_limit,
        "Ulimits": [{"Name": one.name, "Soft": one.soft, "Hard": one.hard} for one in options.ulimits] or None,
        "Init": options.init,
        "Isolation": options.isolation.value,
    }


def _bind(mount: Any) -> str:
    return f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}"


def _bindings(options: RunOptions) -> dict[str, Any]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in options.ports:
        host = "" if port.host is None else str(port.host)
        found.setdefault(f"{port.container}/{port.protocol}", []).append({"HostIp": port.address, "HostPort": host})
    return found


def _mounts(options: RunOptions, volumes: list[Use]) -> list[dict[str, Any]]:
    found = [
        {
            "Type": mount.kind,
            "Source": mount.source or "",
            "Destination": mount.target,
            "Mode": "ro" if mount.read_only else "",
            "RW": not mount.read_only,
            "Propagation": (mount.propagation or "rprivate") if mount.kind == "bind" else "",
        }
        for mount in options.mounts
        if mount.kind != "volume"
    ]
    found += [
        {
            "Type": "volume",
            "Name": use.volume.name,
            "Source": str(use.volume.mountpoint),
            "Destination": use.target,
            "Driver": use.volume.driver,
            "Mode": "ro" if use.read_only else "",
            "RW": not use.read_only,
            "Propagation": "",
        }
        for use in volumes
    ]
    return sorted(found, key=lambda mount: str(mount["Destination"]))


def _network(options: RunOptions, folder: Folder, pid: int) -> dict[str, Any]:
    """`pid`: its first process, 0 if there is none. A network has no ID here, for it is the container's own."""
    found = None
    if folder.network.exists():
        from layerstore.runtime.life.connecting import connected

        found = connected(folder)
    if found is None:  # the fields are there without an address, as docker has them: scripts ask for them
        return {"Ports": {}, "Networks": {options.network: dict(_NO_ADDRESS)}}
    ports: dict[str, list[dict[str, str]]] = {}
    for port in found.ports:
        place = {"HostIp": port.address or "0.0.0.0", "HostPort": str(port.host)}
        ports.setdefault(f"{port.container}/{port.protocol}", []).append(place)
    address = {"IPAddress": found.address, "Gateway": found.gateway, "IPPrefixLen": 24 if found.address else 0}
    address = {**_NO_ADDRESS, **address, **(addresses(pid) if pid else {})}
    return {"Ports": ports, **address, "Networks": {found.kind: address}}
