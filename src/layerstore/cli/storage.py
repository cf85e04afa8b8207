"""Commands that tell of the store and of this program: info, version. `check` is in `checking`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import click
from attrs import evolve

from layerstore.cli import output, units
from layerstore.cli.front import Arguments, Command
from layerstore.cli.listing import Form, format_option, show_object

if TYPE_CHECKING:
    from layerstore.info import Info
    from layerstore.runtime.engine.probing import Means


_LOGS: Final = ["json-file", "k8s-file", "none"]


@click.command(cls=Command)
@format_option("-f", "--format", rows=False)
def version_command(*, form: Form) -> None:
    """Show the version."""
    from layerstore.cli.facts import version, version_text
    from layerstore.cli.shapes import versions

    if form.template is None:
        output.lines([version_text()])
    else:
        show_object(versions(version()), form)


@click.command(cls=Command)
@format_option("-f", "--format", rows=False)
@click.pass_obj
def info_command(arguments: Arguments, *, form: Form) -> None:
    """Show facts about the store, its driver, and what runs its containers."""
    from layerstore.runtime import Runtime
    from layerstore.runtime.engine.probing import probe

    with arguments.open() as store:
        info, means = store.info(), probe(store.config)
        does = Counter(state.status for state in Runtime(store).states().values())
        if info.containers:  # what other programs keep here is no container to people
            info = evolve(info, containers=info.containers - len(store.claims()))
    if form.template is None:
        output.lines([*_info_lines(info, does), *_means_lines(means)])
    else:
        from layerstore.cli.shapes import information

        show_object(information(_info_facts(info, does) | _means_facts(means)), form)


def _means_facts(means: Means) -> dict[str, object]:
    """What runs containers, by docker's names."""
    controllers = means.cgroups.controllers
    return {
        "Runtimes": {
            engine.name: {"path": engine.path, "runtimeArgs": list(engine.args) or None, "version": said}
            for engine, said in means.engines
        },
        "DefaultRuntime": means.default,
        "Conmon": means.conmon,
        "InitBinary": means.init,
        "Criu": means.criu,
        "CgroupDriver": means.cgroup_driver,
        "CgroupVersion": means.cgroup_version,
        "CgroupControllers": list(controllers),
        "LoggingDriver": "json-file",
        "Plugins": {"Volume": ["local"], "Network": list(means.networks), "Authorization": None, "Log": _LOGS},
        "MemoryLimit": "memory" in controllers,
        "SwapLimit": means.swap_limits,
        "CpuCfsPeriod": "cpu" in controllers,
        "CpuCfsQuota": "cpu" in controllers,
        "CPUShares": "cpu" in controllers,
        "CPUSet": "cpuset" in controllers,
        "PidsLimit": "pids" in controllers,
        "SecurityOptions": list(means.security),
        "Warnings": list(means.warnings) or None,
    }


def _means_lines(means: Means) -> Iterator[str]:
    yield f"Runtimes: {' '.join(engine.name for engine, _ in means.engines)}"
    for engine, said in means.engines:
        yield f" {engine.name}: {said or 'unknown'} ({engine.path})"
    yield f"Default Runtime: {means.default}"
    for name, version in (("Conmon Version", means.conmon), ("CRIU Version", means.criu)):
        if version:
            yield f"{name}: {version}"
    if means.init:
        yield f"Init Binary: {means.init}"
    yield "Logging Driver: json-file"
    yield "Plugins:"
    yield " Volume: local"
    yield f" Network: {' '.join(means.networks)}"
    yield f" Log: {' '.join(_LOGS)}"
    yield f"Cgroup Driver: {means.cgroup_driver}"
    if means.cgroup_version:
        beside = " (one of version 2 beside it is hidden from containers)" if means.is_hybrid else ""
        yield f"Cgroup Version: {means.cgroup_version}{beside}"
    if means.security:
        yield "Security Options:"
        for option in means.security:
            kind, _, profile = option.removeprefix("name=").partition(",")
            yield f" {kind}"
            if profile:
                yield f"  Profile: {profile.removeprefix('profile=')}"
    for warning in means.warnings:
        yield f"WARNING: {warning}"


def _info_facts(info: Info, does: Mapping[str, int]) -> dict[str, object]:
    """The facts of `info` by docker's names, and some of our own. `does`: how many containers do what."""
    return {
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": does["running"],
        "ContainersPaused": does["paused"],
        "ContainersStopped": info.containers - does["running"] - does["paused"],
        "ContainersMounted": info.mounted,
        "Images": info.images,
        "Layers": info.layers,
        "KeptBlobs": info.blobs.kept,
        "PartialBlobs": info.blobs.partial,
        "Driver": info.driver,
        "DriverStatus": [list(pair) for pair in info.driver_status],
        "DriverRefusals": [list(pair) for pair in info.refusals],
        "BrokenDrivers": [list(pair) for pair in info.broken],
        "Migration": info.migration,
        "FormerDriver": info.former,
        "KernelVersion": info.kernel,
        "OperatingSystem": info.operating_system,
        "OSType": info.os,
        "Architecture": info.architecture,
        "NCPU": info.cpus,
        "MemTotal": info.memory,
        "DockerRootDir": str(info.data_root),
        "ExecRoot": str(info.exec_root),
        "StorageConf": _advice_facts(info),
        "Name": info.name,
        "ServerVersion": info.version,
    }


def _advice_facts(info: Info) -> dict[str, object] | None:
    """What podman's storage.conf says; None where there is none, or daemon.json stands before it."""
    advice = info.advice
    if advice.source is None:
        return None
    return {
        "File": str(advice.source),
        "Driver": advice.driver,
        "Options": list(advice.of(info.driver)),
        "NotTaken": [list(pair) for pair in advice.left_by(info.driver)],
    }


def _advice_lines(info: Info) -> Iterator[str]:
    advice = info.advice
    if advice.source is None:
        return
    yield f"Storage.conf: {advice.source}"
    if advice.driver is not None:
        kept = "" if advice.driver == info.driver else f" (this store was made with {info.driver})"
        yield f" Driver of a new store: {advice.driver}{kept}"
    for option in advice.of(info.driver):
        yield f" Taken: {option}"
    for key, reason in advice.left_by(info.driver):
        yield f" Not taken: {f'{key}: ' if key else ''}{units.one_line(reason)}"


def _info_lines(info: Info, does: Mapping[str, int]) -> Iterator[str]:
    yield f"Containers: {info.containers}"
    yield f" Running: {does['running']}"
    yield f" Paused: {does['paused']}"
    yield f" Stopped: {info.containers - does['running'] - does['paused']}"
    yield f" Mounted: {info.mounted}"
    yield f"Images: {info.images}"
    yield f"Layers: {info.layers}"
    if info.blobs.kept or info.blobs.partial:
        yield f"Kept blobs: {info.blobs.kept} ({units.size(info.blobs.kept_size)})"
        yield f"Partial blobs: {info.blobs.partial} ({units.size(info.blobs.partial_size)})"
    yield f"Layerstore Version: {info.version}"
    yield f"Storage Driver: {info.driver}"
    for name, value in info.driver_status:
        yield f" {name}: {value}"
    for name, reason in info.refusals:
        yield f"Not chosen: {name}: {units.one_line(reason)}"
    for name, reason in info.broken:
        yield f"Broken driver: {name}: {units.one_line(reason)}"
    yield from _advice_lines(info)
    if info.migration is not None:
        goes_on = f"layerstore migrate {info.migration} goes on, layerstore migrate {info.driver} gives it up"
        yield f"Unfinished Migration: to {info.migration} ({goes_on})"
    if info.former is not None:
        yield f"Former Driver: {info.former} (its home could not be removed yet)"
    yield f"Kernel Version: {info.kernel}"
    yield f"Operating System: {info.operating_system}"
    yield f"OSType: {info.os}"
    yield f"Architecture: {info.architecture}"
    yield f"CPUs: {info.cpus}"
    yield f"Total Memory: {units.memory(info.memory)}"
    yield f"Name: {info.name}"
    yield f"ID: {info.id}"
    if info.attached:
        yield f"Attached Stores: {' '.join(info.attached)}"
    yield f"Data Root: {info.data_root}"
    yield f"Exec Root: {info.exec_root}"
