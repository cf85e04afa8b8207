"""What a container is run with, in docker's words: values alone. What an image says is not in here.

Whatever is not given (None, or empty) is what the image says, or the default of the engine. Times are in seconds,
sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal

from layerstore.values import frozen

__all__ = ["Device", "ExecOptions", "HealthCheck", "Isolation", "MountOption", "Port", "RunOptions", "Ulimit"]


class Isolation(Enum):
    """How much of a sandbox a container is. See docs/run.md."""

    FULL = "full"
    """By an OCI runtime: capabilities, seccomp, masked paths, cgroups."""
    PROCESS = "process"
    """By namespaces (pid, mount, ipc, uts) and a root of its own alone: for programs that are trusted."""
    NONE = "none"
    """A root of its own (and the mount namespace that this takes), nothing else."""


@frozen
class MountOption:
    """One of `-v`, `--mount`, `--tmpfs`. `source`: a path of the host (bind), a name (volume; None: anonymous), an
    image (image)."""

    kind: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str | None = None
    read_only: bool = False
    no_copy: bool = False
    """A new volume is not given what the image has at that place."""
    chown: bool = False
    """`U`: the files are given to the container's user."""
    make_source: bool = False
    """`-v` makes a host path that is not there a folder; `--mount` refuses it."""
    propagation: str = ""
    recursive: bool = True
    subpath: str = ""
    options: tuple[str, ...] = ()
    """Of a tmpfs: `size=…`, `mode=…`, `noexec`, as mount(8) has them."""


@frozen
class Device:
    """`--device`: a device of the host, where it is seen, and what may be done with it (`rwm`)."""

    host: str
    container: str
    permissions: str = "rwm"


@frozen
class Ulimit:
    """`--ulimit`: a resource limit by its name without RLIMIT_ (`nofile`); -1 is unlimited."""

    name: str
    soft: int
    hard: int


@frozen
class Port:
    """`-p`: a port of the container that is published. `host` None: one that is free."""

    container: int
    host: int | None = None
    address: str = ""
    protocol: str = "tcp"


@frozen
class HealthCheck:
    """`--health-*` or an image's HEALTHCHECK. `test` is as in an image's config: `["CMD", …]`, `["CMD-SHELL", …]`."""

    test: tuple[str, ...] = ()
    interval: float | None = None
    timeout: float | None = None
    start_period: float | None = None
    start_interval: float | None = None
    retries: int | None = None
    disabled: bool = False


@frozen
class RunOptions:
    """All that `create` and `run` can be told."""

    args: tuple[str, ...] = ()
    """What is run, instead of the image's CMD."""
    entrypoint: tuple[str, ...] | None = None
    """Instead of the image's; `()` is none."""
    env: tuple[str, ...] = ()
    """`NAME=value` each; the image's are beneath."""
    working_dir: str | None = None
    user: str | None = None
    """`user[:group]`, names or numbers."""
    group_add: tuple[str, ...] = ()
    hostname: str | None = None
    domainname: str | None = None
    tty: bool = False
    interactive: bool = False
    """Standard input stays open."""
    console_size: tuple[int, int] | None = None
    """Rows and columns of its terminal when it begins; None: unknown, and told later, by who attaches to it."""
    remove: bool = False
    """`--rm`: container and anonymous volumes go when it has ended."""
    read_only: bool = False
    mounts: tuple[MountOption, ...] = ()
    volumes_from: tuple[str, ...] = ()
    """Containers, each with `:ro` or `:rw` after it or not."""
    network: str = "host"
    """`host`, `none`, `container:NAME`; `pasta`, `slirp4netns`, or `private` for whichever of them is installed."""
    ports: tuple[Port, ...] = ()
    publish_all: bool = False
    add_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    pid: str = ""
    """The pid namespace: of its own, `host`, `container:NAME`."""
    ipc: str = ""
    uts: str = ""
    init: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    privileged: bool = False
    devices: tuple[Device, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: Mapping[str, str] = {}
    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    shm_size: int | None = None
    oom_score_adj: int | None = None
    cgroup_parent: str = ""
    stop_signal: str | None = None
    stop_timeout: int | None = None
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    health: HealthCheck | None = None
    isolation: Isolation = Isolation.FULL
    runtime: str | None = None
    """A name of daemon.json's `runtimes`, a command of PATH or a path; None: `default-runtime`, else what is there."""
    log_driver: Literal["json-file", "k8s-file", "none"] = "json-file"


@frozen
class ExecOptions:
    """What `exec` runs in a container that is running."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str | None = None
    user: str | None = None
    tty: bool = False
    interactive: bool = False
    console_size: tuple[int, int] | None = None
    detach: bool = False
    privileged: bool = False
