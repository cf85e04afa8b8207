"""The fields that objects have in docker, by the types of its API: `{{.Variant}}` is empty, and no error, without one.

From moby's api/types (28 and 29) and the formatters of docker's command line. What the JSON of an object has is not
decided here: it stays what the object itself says. Fields of our own are in no table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from layerstore.cli.template import NIL, NIL_LIST, NIL_MAP, Duration, Shape, Struct


def _all(zero: object, names: str) -> dict[str, object]:
    return dict.fromkeys(names.split(), zero)


_HEALTHCHECK: Final = Shape(
    "container.HealthConfig",
    {"Test": NIL_LIST, **_all(Duration(0), "Interval Timeout StartPeriod StartInterval"), "Retries": 0},
    pointer=True,
)
_CONFIG: Final = Shape(
    "container.Config",
    {
        **_all("", "Hostname Domainname User Image WorkingDir StopSignal"),
        **_all(False, "AttachStdin AttachStdout AttachStderr Tty OpenStdin StdinOnce ArgsEscaped NetworkDisabled"),
        **_all(NIL_LIST, "Env Cmd Entrypoint OnBuild Shell"),
        **_all(NIL_MAP, "ExposedPorts Volumes Labels"),
        "MacAddress": "",
        "Healthcheck": _HEALTHCHECK,
        "StopTimeout": NIL,
    },
)
_GRAPH_DRIVER: Final = Shape("storage.DriverData", {"Name": "", "Data": NIL_MAP})
_ROOT_FS: Final = Shape("image.RootFS", {"Type": "", "Layers": NIL_LIST})
_NEVER: Final = "0001-01-01T00:00:00Z"

IMAGE: Final = Shape(
    "image.InspectResponse",
    {
        **_all("", "ID Id Parent Comment Created Container DockerVersion Author Architecture Variant Os OsVersion"),
        **_all(NIL_LIST, "RepoTags RepoDigests Manifests"),
        **_all(0, "Size VirtualSize"),
        "Config": _CONFIG,
        "GraphDriver": _GRAPH_DRIVER,
        "RootFS": _ROOT_FS,
        "Metadata": Shape("image.Metadata", {"LastTagTime": _NEVER}),
        **_all(NIL, "ContainerConfig Descriptor Identity Lazy"),
    },
)

_HEALTH: Final = Shape(
    "container.Health",
    {
        "Status": "",
        "FailingStreak": 0,
        "Log": [
            Shape("container.HealthcheckResult", {**_all(_NEVER, "Start End"), "ExitCode": 0, "Output": ""}),
        ],
    },
    pointer=True,
)
_STATE: Final = Shape(
    "container.State",
    {
        "Status": "",
        **_all(False, "Running Paused Restarting OOMKilled Dead"),
        **_all(0, "Pid ExitCode"),
        "Error": "",
        **_all(_NEVER, "StartedAt FinishedAt"),
        "Health": _HEALTH,
    },
)
_RESTART_POLICY: Final = Shape("container.RestartPolicy", {"Name": "", "MaximumRetryCount": 0})
_HOST_CONFIG: Final = Shape(
    "container.HostConfig",
    {
        **_all(
            "",
            "ContainerIDFile NetworkMode VolumeDriver CgroupnsMode IpcMode Cgroup PidMode UTSMode UsernsMode Runtime "
            "Isolation CgroupParent CpusetCpus CpusetMems",
        ),
        **_all(False, "AutoRemove Privileged PublishAllPorts ReadonlyRootfs"),
        **_all(
            0,
            "OomScoreAdj ShmSize CPUShares CpuShares Memory NanoCPUs NanoCpus BlkioWeight CPUPeriod CpuPeriod CPUQuota "
            "CpuQuota CPURealtimePeriod CpuRealtimePeriod CPURealtimeRuntime CpuRealtimeRuntime MemoryReservation "
            "MemorySwap CPUCount CpuCount CPUPercent CpuPercent IOMaximumIOps IOMaximumBandwidth",
        ),
        **_all(
            NIL_LIST,
            "Binds VolumesFrom CapAdd CapDrop DNS Dns DNSOptions DnsOptions DNSSearch DnsSearch ExtraHosts GroupAdd "
            "Links SecurityOpt Mounts MaskedPaths ReadonlyPaths BlkioWeightDevice BlkioDeviceReadBps "
            "BlkioDeviceWriteBps BlkioDeviceReadIOps BlkioDeviceWriteIOps Devices DeviceCgroupRules DeviceRequests "
            "Ulimits",
        ),
        **_all(NIL_MAP, "PortBindings Annotations StorageOpt Tmpfs Sysctls"),
        **_all(NIL, "Init MemorySwappiness OomKillDisable PidsLimit"),
        "ConsoleSize": [0, 0],
        "LogConfig": Shape("container.LogConfig", {"Type": "", "Config": NIL_MAP}),
        "RestartPolicy": _RESTART_POLICY,
    },
)
_NETWORK_SETTINGS: Final = Shape(
    "container.NetworkSettings",
    {
        **_all(
            "",
            "Bridge SandboxID SandboxKey LinkLocalIPv6Address EndpointID Gateway GlobalIPv6Address IPAddress "
            "IPv6Gateway MacAddress",
        ),
        **_all(0, "LinkLocalIPv6PrefixLen GlobalIPv6PrefixLen IPPrefixLen"),
        "HairpinMode": False,
        **_all(NIL_MAP, "Ports Networks"),
        **_all(NIL_LIST, "SecondaryIPAddresses SecondaryIPv6Addresses"),
    },
)
_MOUNT_POINT: Final = Shape(
    "container.MountPoint",
    {**_all("", "Type Name Source Destination Driver Mode Propagation"), "RW": False},
)

CONTAINER: Final = Shape(
    "container.InspectResponse",
    {
        **_all(
            "",
            "ID Id Created Path Image ResolvConfPath HostnamePath HostsPath LogPath Name Driver Platform MountLabel "
            "ProcessLabel AppArmorProfile",
        ),
        **_all(NIL_LIST, "Args ExecIDs"),
        "RestartCount": 0,
        "State": _STATE,
        "HostConfig": _HOST_CONFIG,
        "GraphDriver": _GRAPH_DRIVER,
        "Mounts": [_MOUNT_POINT],
        "Config": _CONFIG,
        "NetworkSettings": _NETWORK_SETTINGS,
        **_all(NIL, "SizeRw SizeRootFs ImageManifestDescriptor"),
    },
)

_COMMIT: Final = Shape("system.Commit", {"ID": "", "Expected": ""})
_CLIENT: Final = {
    **_all("", "Version APIVersion DefaultAPIVersion GitCommit GoVersion Os Arch BuildTime Context"),
    "Platform": Shape("system.PlatformInfo", {"Name": ""}),
}

INFO: Final = Shape(
    "system.dockerInfo",
    {
        **_all(
            "",
            "ID Driver SystemTime LoggingDriver CgroupDriver CgroupVersion KernelVersion OperatingSystem OSVersion "
            "OSType Architecture IndexServerAddress DockerRootDir HTTPProxy HttpProxy HTTPSProxy HttpsProxy NoProxy "
            "Name ServerVersion DefaultRuntime Isolation InitBinary ProductLicense UserName",
        ),
        **_all(
            0,
            "Containers ContainersRunning ContainersPaused ContainersStopped Images NFd NGoroutines NEventsListener "
            "NCPU MemTotal",
        ),
        **_all(
            False,
            "MemoryLimit SwapLimit CPUCfsPeriod CpuCfsPeriod CPUCfsQuota CpuCfsQuota CPUShares CPUSet PidsLimit "
            "IPv4Forwarding Debug OomKillDisable ExperimentalBuild LiveRestoreEnabled",
        ),
        **_all(
            NIL_LIST,
            "DriverStatus SystemStatus GenericResources Labels SecurityOptions DefaultAddressPools CDISpecDirs "
            "DiscoveredDevices Warnings ServerErrors ClientErrors",
        ),
        "Runtimes": NIL_MAP,
        "Plugins": Shape("system.PluginsInfo", _all(NIL_LIST, "Volume Network Authorization Log")),
        "Swarm": Shape(
            "swarm.Info",
            {
                **_all("", "NodeID NodeAddr LocalNodeState Error"),
                "ControlAvailable": False,
                **_all(NIL_LIST, "RemoteManagers Warnings"),
                **_all(0, "Nodes Managers"),
                "Cluster": NIL,
            },
        ),
        **_all(_COMMIT, "ContainerdCommit RuncCommit InitCommit"),
        **_all(NIL, "RegistryConfig FirewallBackend Containerd NRI"),
        "ClientInfo": Shape("system.clientInfo", {**_CLIENT, "Debug": False, **_all(NIL_LIST, "Plugins Warnings")}),
    },
)

VERSION: Final = Shape(
    "system.versionInfo",
    {
        "Client": Shape("system.clientVersion", _CLIENT),
        "Server": Shape(
            "system.VersionResponse",
            {**_CLIENT, **_all("", "MinAPIVersion KernelVersion"), "Components": NIL_LIST, "Experimental": False},
        ),
    },
)


VOLUME: Final = Shape(
    "volume.Volume",
    {
        **_all("", "CreatedAt Driver Mountpoint Name Scope"),
        **_all(NIL_MAP, "Labels Options Status"),
        **_all(NIL, "ClusterVolume UsageData"),
    },
)


def inspected(value: Mapping[str, object]) -> Struct:
    """What `inspect` shows of an image, container or volume, as templates see it."""
    if "Scope" in value:
        return Struct(VOLUME, value)
    if "State" in value:
        return Struct(CONTAINER, value, also={"ID": value.get("Id"), "ImageID": value.get("Image")})
    return Struct(IMAGE, value, also={"ID": value.get("Id"), **_podmans(value)})


def _podmans(value: Mapping[str, object]) -> dict[str, object]:
    """What podman tells of an image beside its config, of which it is a part to docker."""
    config = value.get("Config")
    said: Mapping[str, object] = config if isinstance(config, Mapping) else {}
    digests = value.get("RepoDigests")
    first = str(digests[0]).partition("@")[2] if isinstance(digests, list | tuple) and digests else ""
    return {"Labels": said.get("Labels") or {}, "User": said.get("User") or "", "Digest": first}


def information(value: Mapping[str, object]) -> Struct:
    """What `info` shows; podman's groups of facts, too, whose names are not docker's."""
    host = {
        "Arch": value.get("Architecture"),
        "CPUs": value.get("NCPU"),
        "CgroupManager": value.get("CgroupDriver"),
        "CgroupVersion": value.get("CgroupVersion"),
        "Hostname": value.get("Name"),
        "Kernel": value.get("KernelVersion"),
        "LogDriver": value.get("LoggingDriver"),
        "MemTotal": value.get("MemTotal"),
        "OS": value.get("OSType"),
        "OCIRuntime": {"Name": value.get("DefaultRuntime")},
    }
    names = {"Number": "Containers", "Running": "ContainersRunning", "Paused": "ContainersPaused"}
    names["Stopped"] = "ContainersStopped"
    kept = {
        "GraphDriverName": value.get("Driver"),
        "GraphRoot": value.get("DockerRootDir"),
        "RunRoot": value.get("ExecRoot"),
        "VolumePath": f"{value.get('DockerRootDir')}/volumes",
        "GraphStatus": dict(_pairs(value.get("DriverStatus"))),
        "ConfigFile": value.get("ConfigFile"),
        "ContainerStore": {name: value.get(ours) for name, ours in names.items()},
        "ImageStore": {"Number": value.get("Images")},
    }
    version = {"Version": value.get("ServerVersion"), "OsArch": f"{value.get('OSType')}/{value.get('Architecture')}"}
    return Struct(INFO, value, also={"Host": host, "Store": kept, "Version": version})


def _pairs(value: object) -> list[tuple[str, object]]:
    return [(str(pair[0]), pair[1]) for pair in value if len(pair) == 2] if isinstance(value, list) else []


def versions(value: Mapping[str, object]) -> Struct:
    """What `version` shows. There is no daemon: the command is its own server."""
    return Struct(VERSION, value, also={"Client": value, "Server": value})
