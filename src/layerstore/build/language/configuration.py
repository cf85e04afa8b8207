"""What instructions make of an image's run configuration (the `config` of its config), and what RUN executes."""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

from layerstore.build.errors import BuildError, Place
from layerstore.build.language.instructions import (
    Cmd,
    Command,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Heredoc,
    Instruction,
    Label,
    OnBuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from layerstore.build.language.scope import environment
from layerstore.values import frozen

__all__ = ["SCRIPTS", "Program", "apply_config", "begin_config", "ports_of", "program_of", "working_dir"]

RunConfig = dict[str, Any]

SCRIPTS = "/dev/pipes"
"""Where a heredoc that begins with `#!` is, while it runs."""

_SHELL = ("/bin/sh", "-c")
_PORTS = re.compile(r"([0-9]+)(?:-([0-9]+))?")
_PROTOCOLS = ("tcp", "udp", "sctp")
_HIGHEST_PORT = 65535
_PORT_REMEDY = "Write 80, 80/udp or 8000-8010."
_REAL_TIME = re.compile(r"RTM(?:IN(?:\+(\d+))?|AX(?:-(\d+))?)")


@frozen
class Program:
    """What a RUN executes. `script` is a file that has to be in `SCRIPTS` by its name, 0755, which `argv` names."""

    argv: tuple[str, ...]
    script: Heredoc | None = None


def begin_config(base: Mapping[str, Any] | None) -> RunConfig:
    """The run configuration with which a stage begins: that of its base, with a PATH and without its triggers."""
    config = dict(base or {})
    config.pop("OnBuild", None)
    config["Env"] = [f"{name}={value}" for name, value in environment(config.get("Env") or ()).items()]
    return config


def apply_config(config: Mapping[str, Any], instruction: Instruction, *, command_given: bool = False) -> RunConfig:
    """The run configuration after an expanded instruction; `config` itself is left as it is.

    `command_given` is `Scope.command_given`: ENTRYPOINT takes away the CMD of the base, never that of its own stage.
    What is elsewhere in an image's config, as the author that MAINTAINER names, is not in here. Raises `BuildError`.
    """
    changed = dict(config)
    match instruction:
        case Cmd():
            # ArgsEscaped is what BuildKit writes beside each command, though only Windows knows it.
            changed |= {"Cmd": _words(instruction.command, config), "ArgsEscaped": True}
        case Entrypoint():
            changed["Entrypoint"] = _words(instruction.command, config) or None
            if not command_given:
                changed.pop("Cmd", None)
        case Env():
            known = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
            known |= {pair.name: pair.value for pair in instruction.variables}
            changed["Env"] = [f"{name}={value}" for name, value in known.items()]
        case Expose():
            ports: RunConfig = {port: {} for port in ports_of(instruction)}
            changed["ExposedPorts"] = {**(config.get("ExposedPorts") or {}), **ports}
        case HealthCheck():
            changed["Healthcheck"] = _health(instruction)
        case Label():
            labels = {pair.name: pair.value for pair in instruction.labels}
            changed["Labels"] = {**(config.get("Labels") or {}), **labels}
        case OnBuild():
            changed["OnBuild"] = [*(config.get("OnBuild") or ()), instruction.expression]
        case Shell():
            changed["Shell"] = list(instruction.words)
        case StopSignal():
            _check_signal(instruction.signal, instruction.place)
            changed["StopSignal"] = instruction.signal
        case User():
            changed["User"] = instruction.user
        case Volume():
            changed["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in instruction.paths}}
        case Workdir():
            changed["WorkingDir"] = working_dir(config, instruction.path)
    return changed


def working_dir(config: Mapping[str, Any], path: str) -> str:
    """The directory that `path` is, from the working directory: absolute. A path from the root stays as it is written.

    What is joined has no `..` left (BuildKit, util/system/path.go).
    """
    if path.startswith("/"):
        return path
    joined = posixpath.normpath(posixpath.join("/", config.get("WorkingDir") or "/", path or "."))
    return "/" + joined.lstrip("/")


def program_of(run: Run, config: Mapping[str, Any]) -> Program:
    """What a RUN executes, by the shell of the configuration if it is in shell form.

    A heredoc alone is what the shell runs, without `-e`, or a file that it starts if it begins with `#!`; beside other
    words, heredocs are the shell's to read.
    """
    if isinstance(run.command, tuple):
        return Program(run.command)
    if not run.heredocs:
        return Program(tuple(_words(run.command, config)))
    first = run.heredocs[0]
    if len(run.heredocs) == 1 and re.fullmatch(r"\d*<<-?\s*\S+", run.command):
        text = re.sub(r"^\t+", "", first.content, flags=re.MULTILINE) if first.chomp else first.content
        if text.startswith("#!"):
            script = Heredoc(first.name, text, first.expand)
            return Program(tuple(_words(f"{SCRIPTS}/{first.name}", config)), script)
        return Program(tuple(_words(text, config)))
    documents = (f"\n{heredoc.content}{heredoc.name}" for heredoc in run.heredocs)
    return Program(tuple(_words("".join((run.command, *documents)), config)))


def _words(command: Command, config: Mapping[str, Any]) -> list[str]:
    """The two forms of a command: words as they are, text for the shell."""
    return [*(config.get("Shell") or _SHELL), command] if isinstance(command, str) else list(command)


def _health(instruction: HealthCheck) -> RunConfig:
    times = {
        "Interval": instruction.interval,
        "Timeout": instruction.timeout,
        "StartPeriod": instruction.start_period,
        "StartInterval": instruction.start_interval,
        "Retries": instruction.retries,
    }
    return {"Test": list(instruction.test), **{name: value for name, value in times.items() if value}}


def ports_of(expose: Expose) -> tuple[str, ...]:
    """The ports of an expanded EXPOSE, each as `80/tcp`, ranges written out. Raises `BuildError`."""
    return tuple(port for text in expose.ports for port in _ports(text, expose.place))


def _ports(text: str, place: Place) -> Sequence[str]:
    """Of `[address:[host port]:]port[-last][/protocol]`, as BuildKit takes it; of the host nothing is kept."""
    *host, container = text.rsplit(":", 2)
    numbers, _, protocol = container.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in _PROTOCOLS:
        raise BuildError(f'invalid port: "{text}": invalid proto: {protocol}', place=place, remedy=_PORT_REMEDY)
    if len(host) == 2 and host[0]:
        from ipaddress import ip_address

        try:
            ip_address(host[0].removeprefix("[").removesuffix("]"))
        except ValueError:
            raise BuildError(f"invalid IP address: {host[0]}", place=place, remedy=_PORT_REMEDY) from None
    first, last = _range(numbers, place, "containerPort")
    if host and host[-1]:
        host_first, host_last = _range(host[-1], place, "hostPort")
        if host_last - host_first != last - first != 0:
            raise BuildError(
                f"invalid ranges specified for container and host Ports: {numbers} and {host[-1]}",
                place=place,
                remedy=_PORT_REMEDY,
            )
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _range(text: str, place: Place, what: str) -> tuple[int, int]:
    match = _PORTS.fullmatch(text)
    first, last = (int(match[1][:9]), int((match[2] or match[1])[:9])) if match else (1, 0)
    if not first <= last <= _HIGHEST_PORT:
        raise BuildError(f"invalid {what}: {text}", place=place, remedy=_PORT_REMEDY)
    return first, last


def _check_signal(text: str, place: Place) -> None:
    """Refuse what is neither the number nor the name of a signal."""
    name = text.upper().removeprefix("SIG")
    if text.isascii() and text.isdecimal():
        good = 0 < int(text[:9]) <= signal.SIGRTMAX
    elif match := _REAL_TIME.fullmatch(name):
        good = int((match[1] or match[2] or "0")[:9]) <= signal.SIGRTMAX - signal.SIGRTMIN
    else:
        good = f"SIG{name}" in signal.Signals.__members__
    if not good:
        raise BuildError(f"Invalid signal: {text}", place=place, remedy="Write SIGTERM, TERM or 15.")
