"""The options that `run` and `create` share, as click has them: names, values, one line of help each.

A value that means nothing is told in docker's words: `invalid argument "x" for "-m, --memory" flag: …`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import click

from layerstore.cli.run_options import mounts, ports, values

F = TypeVar("F", bound=Callable[..., Any])


def reading(read: Callable[[str], object]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback of click's that reads values by a pure function, which raises `ValueError` in words."""

    def read_one(ctx: click.Context, param: click.Parameter, value: object) -> object:
        if not isinstance(value, str):
            return value  # it was not given
        try:
            return read(value)
        except ValueError as wrong:
            title = ", ".join(sorted(param.opts, key=len))
            raise click.UsageError(f'invalid argument "{value}" for "{title}" flag: {wrong}', ctx) from None

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if ctx.resilient_parsing:
            return value
        return tuple(read_one(ctx, param, one) for one in value) if param.multiple else read_one(ctx, param, value)

    return callback


def one(
    *names: str, read: Callable[[str], object] = str, metavar: str = "TEXT", text: str, **more: Any
) -> Callable[[F], F]:
    """An option that is given once; the last one counts."""
    return click.option(*names, callback=reading(read), metavar=metavar, help=text, **more)


def many(
    *names: str, read: Callable[[str], object] = str, metavar: str = "TEXT", text: str, **more: Any
) -> Callable[[F], F]:
    """An option that may be given any number of times."""
    return one(*names, read=read, metavar=metavar, text=text, multiple=True, **more)


def switch(*names: str, text: str, **more: Any) -> Callable[[F], F]:
    """An option without a value."""
    return click.option(*names, is_flag=True, help=text, **more)


_pid = partial(values.namespace, title="PID")
_ipc = partial(values.namespace, title="IPC", others=("host", "private", "shareable", "none"))
_uts = partial(values.namespace, title="UTS", container=False)

_OPTIONS: Final = (
    many("--add-host", read=values.host, metavar="HOST:IP", text="Add a line to /etc/hosts"),
    many("--annotation", read=values.annotation, metavar="KEY=VALUE", text="Add an annotation for the OCI runtime"),
    many("-a", "--attach", read=values.stream, metavar="STREAM", text="Attach to STDIN, STDOUT or STDERR alone"),
    many("--cap-add", read=values.capability, metavar="NAME", text="Add a capability (ALL: every one)"),
    many("--cap-drop", read=values.capability, metavar="NAME", text="Take a capability away (ALL: every one)"),
    one("--cgroup-parent", metavar="PATH", default="", text="Cgroup in which the container's is made"),
    one("--cidfile", metavar="FILE", text="Write the container's ID to a new file"),
    one("-c", "--cpu-shares", read=values.whole, metavar="N", text="Weight among those that want the processors"),
    one("--cpus", read=values.processors, metavar="N", text="How many processors' time may be used"),
    one("--cpuset-cpus", metavar="LIST", default="", text="Processors that may be used (0-3, 0,1)"),
    one("--cpuset-mems", metavar="LIST", default="", text="Memory nodes that may be used (0-3, 0,1)"),
    one("--detach-keys", metavar="KEYS", text="Keys that detach from the container (default: ctrl-p,ctrl-q)"),
    many("--device", "devices", read=values.device, metavar="HOST[:PATH][:rwm]", text="Give a device of the host"),
    many("--dns", read=values.nameserver, metavar="IP", text="Name server"),
    many("--dns-option", "dns_options", metavar="OPTION", text="Option of the resolver"),
    many("--dns-search", read=values.search_domain, metavar="DOMAIN", text="Domain in which names are looked up"),
    one("--domainname", metavar="NAME", text="NIS domain name"),
    one("--entrypoint", metavar="COMMAND", text="Run this instead of the image's ENTRYPOINT"),
    many("-e", "--env", read=values.variable, metavar="NAME[=VALUE]", text="Set a variable of the environment"),
    many("--env-file", "env_files", metavar="FILE", text="Set the variables of a file, a line each"),
    switch("--env-host", text="Set the variables that the command itself has"),
    many("--group-add", metavar="GROUP", text="One more group of the user"),
    one("--health-cmd", metavar="COMMAND", text="Command that checks health, instead of the image's"),
    one("--health-interval", read=values.duration, metavar="SPAN", text="Time between two checks (ms|s|m|h)"),
    one("--health-retries", read=values.whole, metavar="N", text="Failures in a row that mean unhealthy"),
    one("--health-start-interval", read=values.duration, metavar="SPAN", text="The same while it starts"),
    one(
        "--health-start-period", read=values.duration, metavar="SPAN", text="Time to start, when failures do not count"
    ),
    one("--health-timeout", read=values.duration, metavar="SPAN", text="The longest that a check may take"),
    one("-h", "--hostname", metavar="NAME", text="Host name of the container"),
    switch("--init", text="Run an init that passes signals on and reaps processes"),
    switch("-i", "--interactive", text="Keep standard input open"),
    one("--ipc", read=_ipc, metavar="MODE", default="", text="IPC namespace: host, private, none, container:NAME"),
    one(
        "--isolation",
        read=values.isolation,
        metavar="LEVEL",
        default="full",
        text="How much of a sandbox it is: none, process, or full (the default)",
    ),
    many("-l", "--label", "labels", read=values.label, metavar="KEY[=VALUE]", text="Set a label"),
    many("--label-file", "label_files", metavar="FILE", text="Set the labels of a file, a line each"),
    switch("--lazy", text="Get an image that is missing lazily: what is read comes first (erofs)"),
    one(
        "--prefetch-from",
        metavar="FILE",
        default="recorded",
        text="With --lazy: have first what a first run read, as FILE or who pushed (recorded) says; or nothing",
    ),
    one("--log-driver", read=values.log_driver, metavar="FORM", default="", text="json-file, k8s-file or none"),
    one("-m", "--memory", read=values.size, metavar="BYTES", text="The most memory (512m)"),
    one(
        "--memory-reservation", read=values.size, metavar="BYTES", text="Memory that it is to keep when there is little"
    ),
    one("--memory-swap", read=values.swap, metavar="BYTES", text="The most memory and swap together (-1: any)"),
    many(
        "--mount", "mounts", read=mounts.mount, metavar="FIELDS", text="Mount: type=bind|volume|tmpfs|image,src=…,dst=…"
    ),
    one("--name", metavar="NAME", text="Name of the container (default: one is made up)"),
    one("--network", "--net", metavar="NETWORK", text="host (the default), none, pasta, slirp4netns, container:NAME"),
    switch("--no-healthcheck", text="No health checks, whatever the image says"),
    one("--oom-score-adj", read=values.whole, metavar="N", text="How soon it is killed when memory runs out"),
    one("--pid", read=_pid, metavar="MODE", default="", text="PID namespace: host, container:NAME"),
    one("--pids-limit", read=values.whole, metavar="N", text="The most processes (-1: any number)"),
    one("--platform", metavar="OS[/ARCH[/VARIANT]]", text="Platform of the image, where there are several"),
    switch("--privileged", text="Take nothing away: all capabilities and devices"),
    many("-p", "--publish", read=ports.ports, metavar="[[IP:]HOST:]PORT", text="Publish a port of the container"),
    switch("-P", "--publish-all", text="Publish each port that the image exposes"),
    one(
        "--pull",
        read=values.pull,
        metavar="WHEN",
        default="missing",
        text="Get the image: always, newer, missing or never",
    ),
    switch("-q", "--quiet", text="Print nothing about the image that is pulled"),
    switch("--read-only", text="Let nothing be written in the container's root"),
    one("--restart", read=values.restart, metavar="POLICY", default="no", text="no: there is no daemon to do so"),
    switch("--replace", text="Remove a container that has the name of --name, first"),
    switch("--rm", "remove", text="Remove the container and its anonymous volumes when it ends"),
    one("--runtime", metavar="NAME", text="OCI runtime (default: daemon.json's, else the first that is there)"),
    many("--security-opt", read=values.security, metavar="OPTION", text="seccomp=FILE|unconfined, no-new-privileges"),
    one("--shm-size", read=values.size, metavar="BYTES", text="Size of /dev/shm (default: 64m)"),
    one("--stop-signal", read=values.stop_signal, metavar="SIGNAL", text="Signal that asks it to stop"),
    one("--stop-timeout", read=values.whole, metavar="SECONDS", text="Time to stop before it is killed"),
    many("--storage-opt", "storage_opts", metavar="size=BYTES", text="Limit what the container may write"),
    many("--sysctl", "sysctls", read=values.sysctl, metavar="NAME=VALUE", text="Set a sysctl of its namespaces"),
    many("--tmpfs", read=mounts.tmpfs, metavar="PATH[:OPTIONS]", text="Mount a tmpfs"),
    switch("-t", "--tty", text="Give it a terminal"),
    many("--ulimit", "ulimits", read=values.ulimit, metavar="NAME=SOFT[:HARD]", text="Set a resource limit"),
    many("--unsetenv", read=values.variable_name, metavar="NAME", text="Take a variable of the image away"),
    one("-u", "--user", metavar="USER[:GROUP]", text="User, by name or number"),
    one(
        "--userns",
        read=values.userns,
        metavar="MODE",
        default="",
        text="User namespace: host; of create, INSIDE:OUTSIDE:COUNT to mount it for other IDs",
    ),
    one("--uts", read=_uts, metavar="MODE", default="", text="UTS namespace: host"),
    many(
        "-v",
        "--volume",
        "volumes",
        read=mounts.volume,
        metavar="[SOURCE:]PATH[:MODES]",
        text="Mount a folder or volume",
    ),
    many("--volumes-from", metavar="CONTAINER[:ro]", text="Mount what another container has mounted"),
    one("-w", "--workdir", "working_dir", read=values.working_dir, metavar="PATH", text="Folder in which it starts"),
)


def run_options(command: F) -> F:
    """Give a command the options of `run`. Their values come as arguments by name."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
