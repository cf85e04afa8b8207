"""The program: what is executed, as whom, where, and with which environment (runtime-spec config.md, "Process")."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from layerstore import ConfigError
from layerstore.runtime.bundle import capabilities, length, mounting, resources, users
from layerstore.runtime.bundle.host import HostFacts
from layerstore.runtime.bundle.security import Security
from layerstore.runtime.options import ExecOptions, RunOptions
from layerstore.runtime.said import section

__all__ = ["command", "directory", "environment", "for_exec", "make"]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""docker's, where an image says none."""

_UMASK = 0o022
"""The daemon's in docker; without a daemon it would be that of whoever runs the container."""


def command(image_config: Mapping[str, Any], options: RunOptions) -> tuple[str, ...]:
    """What is executed: entrypoint and arguments. An entrypoint that was given leaves the image's CMD out."""
    said = section(image_config)
    arguments: Sequence[str] = options.args
    if options.entrypoint is None:
        entrypoint: Sequence[str] = said.get("Entrypoint") or ()
        arguments = arguments or said.get("Cmd") or ()
    else:
        entrypoint = options.entrypoint
    found = (*_words(entrypoint), *_words(arguments))
    if not found or not found[0]:
        raise ConfigError("no command specified", remedy="The image has none: say what to run after its name.")
    return found


def _words(value: Sequence[str]) -> tuple[str, ...]:
    """A list of the config; old images have a string."""
    return (value,) if isinstance(value, str) else tuple(value)


def environment(*layers: Iterable[str]) -> list[str]:
    """Variables, later ones over earlier ones. A name without `=` takes the variable away."""
    found: dict[str, str] = {}
    for layer in layers:
        for entry in layer:
            name, separator, _ = entry.partition("=")
            if separator:
                found[name] = entry
            else:
                found.pop(name, None)
    return list(found.values())


def make(
    image_config: Mapping[str, Any], options: RunOptions, host: HostFacts, tree: int, security: Security, hostname: str
) -> dict[str, Any]:
    """The process of a container."""
    said = section(image_config)
    asked = options.user if options.user is not None else said.get("User") or ""
    user = users.find(tree, asked, options.group_add)
    names = capabilities.chosen(options.cap_add, options.cap_drop, host, privileged=options.privileged)
    variables = environment(
        (f"PATH={_PATH}", f"HOSTNAME={hostname}"),
        ("TERM=xterm",) if options.tty else (),
        (f"HOME={user.home}",),
        said.get("Env") or (),
        options.env,
    )
    arguments = list(command(image_config, options))
    if options.init:
        if host.init is None:
            raise ConfigError(
                "there is no program for --init",
                remedy="Install catatonit or tini, or leave --init out.",
            )
        arguments = [mounting.INIT, "--", *arguments]
    found: dict[str, Any] = {
        "terminal": options.tty,
        "user": _user(user),
        "args": arguments,
        "env": variables,
        "cwd": directory(options.working_dir, said.get("WorkingDir") or "/"),
        "capabilities": capabilities.for_process(names, user.uid),
        "noNewPrivileges": security.no_new_privileges,
    }
    found |= _console(options)
    limits = resources.rlimits(options.ulimits)
    length.require(arguments, variables, _stack(limits))
    if limits:
        found["rlimits"] = limits
    if security.apparmor and security.apparmor != "unconfined":
        if not host.apparmor:
            raise ConfigError(
                "AppArmor is not enabled on this host",
                remedy="Leave --security-opt apparmor out, or say apparmor=unconfined.",
            )
        found["apparmorProfile"] = security.apparmor
    if options.oom_score_adj is not None:
        if not -1000 <= options.oom_score_adj <= 1000:
            raise ConfigError(
                f"Invalid value {options.oom_score_adj}, range for oom score adj is [-1000, 1000]",
                remedy="Give --oom-score-adj within that.",
            )
        found["oomScoreAdj"] = options.oom_score_adj
    return found


def for_exec(config: Mapping[str, Any], options: ExecOptions, host: HostFacts, tree: int) -> dict[str, Any]:
    """The process of an `exec`: as that of the container's `config`, apart from what the options say."""
    own: Mapping[str, Any] = config["process"]
    if not options.args:
        raise ConfigError("no exec command specified", remedy="Say what to run after the container's name.")
    user = own["user"]
    home: tuple[str, ...] = ()
    names = own["capabilities"].get("bounding", [])
    if options.user is not None:
        found = users.find(tree, options.user)
        user, home = _user(found), (f"HOME={found.home}",)
    if options.privileged:
        names = capabilities.of_host(host)
    made = {key: own[key] for key in ("noNewPrivileges", "rlimits", "apparmorProfile", "oomScoreAdj") if key in own}
    variables = environment(own["env"], ("TERM=xterm",) if options.tty else (), home, options.env)
    length.require(options.args, variables, _stack(own.get("rlimits") or ()))
    return made | {
        "terminal": options.tty,
        "user": user,
        "args": list(options.args),
        "env": variables,
        "cwd": directory(options.working_dir, own["cwd"]),
        "capabilities": capabilities.for_process(names, user["uid"]),
        **_console(options),
    }


def _stack(limits: Sequence[Mapping[str, Any]]) -> int | None:
    """The bytes that its stack may have, if its limits say so."""
    return next((int(limit["soft"]) for limit in limits if limit["type"] == "RLIMIT_STACK"), None)


def _console(options: RunOptions | ExecOptions) -> dict[str, Any]:
    """The size of its terminal, where it has one and the size is known: else it is 0 by 0 when the program begins."""
    if not options.tty or options.console_size is None:
        return {}
    rows, columns = options.console_size
    return {"consoleSize": {"height": rows, "width": columns}}


def _user(user: users.User) -> dict[str, Any]:
    return {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups), "umask": _UMASK}


def directory(asked: str | None, usual: str) -> str:
    """Where the program begins. What an image says is meant from its root on."""
    if asked is None:
        return posixpath.normpath("/" + usual.lstrip("/"))
    if not asked.startswith("/"):
        raise ConfigError(
            f"the working directory '{asked}' is invalid, it needs to be an absolute path",
            remedy="Begin it with a /.",
        )
    return posixpath.normpath("/" + asked.lstrip("/"))
