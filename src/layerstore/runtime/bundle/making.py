"""config.json: an image's config, the options and the facts of the host, put together (runtime-spec config.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerstore.runtime.bundle import devices, etc, mounting, process, resources, security
from layerstore.runtime.bundle.host import HostFacts
from layerstore.runtime.bundle.values import Bind, Place
from layerstore.runtime.options import RunOptions
from layerstore.runtime.said import section

__all__ = ["make"]

_VERSION = "1.0.2"
"""Of the spec; nothing newer is used, so that runc 1.0 and crun 1.0 take it."""


def make(
    image_config: Mapping[str, Any],
    options: RunOptions,
    host: HostFacts,
    place: Place,
    binds: Sequence[Bind] = (),
) -> dict[str, Any]:
    """The config.json of a container.

    `binds` are volumes, images and paths of the host; a tmpfs is taken from the options. Nothing is written. Read are
    the tree's passwd and group, a seccomp profile that the options name, and the devices that they name.
    Raises `ConfigError` and `NotFound` for what docker refuses, in its words.
    """
    safety = security.read(options.security_opt)
    hostname = etc.hostname_of(options, host, place.id, place.network)
    program = process.make(image_config, options, host, place.tree, safety, hostname)
    names = program["capabilities"]["bounding"]
    namespaces = _namespaces(options, host, place)
    own = {entry["type"] for entry in namespaces if "path" not in entry}
    nodes = devices.nodes(options.devices, host, privileged=options.privileged)
    linux: dict[str, Any] = {
        "namespaces": namespaces,
        "cgroupsPath": place.cgroup or f"{(options.cgroup_parent or '/layerstore').rstrip('/')}/{place.id}",
        "resources": resources.limits(options, host) | {"devices": devices.rules(nodes, privileged=options.privileged)},
    }
    settings = resources.sysctls(
        options.sysctls, own_ipc="ipc" in own, own_network="network" in own, own_uts="uts" in own
    )
    if options.domainname and "uts" in own:
        settings["kernel.domainname"] = options.domainname
    if settings:
        linux["sysctl"] = settings
    if nodes:
        linux["devices"] = devices.as_config(nodes)
    if safety.system_paths and not options.privileged:
        linux["maskedPaths"], linux["readonlyPaths"] = list(security.MASKED), list(security.READ_ONLY)
    if not options.privileged or safety.seccomp:
        profile = security.profile(safety, names, host)
        if profile is not None:
            linux["seccomp"] = profile
    spread = _root_propagation(binds)
    if spread:
        linux["rootfsPropagation"] = spread
    files = etc.NAMES if place.files is not None else ()
    config: dict[str, Any] = {
        "ociVersion": _VERSION,
        "process": program,
        "root": {"path": place.root, "readonly": options.read_only},
        "mounts": mounting.listed(options, host, place, binds, files=files),
        "linux": linux,
    }
    if "uts" in own:
        config["hostname"] = hostname
    if notes := _annotations(image_config, options):
        config["annotations"] = notes
    return config


def _namespaces(options: RunOptions, host: HostFacts, place: Place) -> list[dict[str, str]]:
    """Its own, and those of others as paths. One that is the host's is not in the list."""
    found = [{"type": "mount"}]
    for kind in ("pid", "ipc", "uts"):
        shared = place.namespaces.get(kind)
        if shared:
            found.append({"type": kind, "path": shared})
        elif shared is None:
            found.append({"type": kind})
    network = place.network.namespace
    if network:
        found.append({"type": "network", "path": network})
    elif network is not None:
        found.append({"type": "network"})
    if host.cgroup == 2 and not options.privileged:
        found.append({"type": "cgroup"})  # docker's default there, and the host's with version 1
    return found


def _root_propagation(binds: Sequence[Bind]) -> str:
    """What a mount passes on or takes over, the root has to, too (moby, oci_linux.go; the schema has no `rslave`)."""
    kinds = {bind.propagation.removeprefix("r") for bind in binds}
    return "shared" if "shared" in kinds else "slave" if "slave" in kinds else ""


def _annotations(image_config: Mapping[str, Any], options: RunOptions) -> dict[str, str]:
    signal = options.stop_signal or section(image_config).get("StopSignal")
    notes = {"org.opencontainers.image.stopSignal": str(signal)} if signal else {}
    return notes | dict(options.annotations)
