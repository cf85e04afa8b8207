"""Each instruction from the words of its line, and what it refuses.

`Words` is what the parser made of a line; the function of an instruction raises `FlagError` (a `ValueError` with a
remedy) for what cannot be, and the reader adds the place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layerstore.build.language.durations import duration
from layerstore.build.language.flags import FlagError, Flags, flags_of
from layerstore.build.language.instructions import (
    Add,
    Arg,
    Argument,
    Cmd,
    Command,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    HealthCheck,
    Heredoc,
    Instruction,
    Label,
    Maintainer,
    Pair,
    Run,
    RunMount,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from layerstore.build.language.likeness import nearest
from layerstore.build.language.mounts import mount_of
from layerstore.values import frozen

__all__ = ["NAMES", "Words", "instruction_of"]

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_NETWORKS = ("default", "none", "host")
_SECURITY = ("sandbox", "insecure")
_SHORTEST = 10**6
_LARGEST_COUNT = 2**31 - 1


@frozen
class Words:
    """A line, taken apart. `exec_form`: its arguments were a JSON array."""

    name: str
    flags: Sequence[str]
    arguments: Sequence[str]
    exec_form: bool
    heredocs: tuple[Heredoc, ...] = ()


def instruction_of(words: Words, common: Mapping[str, Any]) -> Instruction:
    """The instruction of a line. `common` is what all of them have (see `Instruction`)."""
    return _FORMS[words.name](words, flags_of(words.name, words.flags), dict(common))


def _one(words: Words) -> str:
    if len(words.arguments) != 1:
        raise FlagError(f"{words.name} requires exactly one argument")
    return words.arguments[0]


def _some(words: Words) -> tuple[str, ...]:
    if not words.arguments:
        raise FlagError(f"{words.name} requires at least one argument")
    return tuple(words.arguments)


def _command(words: Words) -> Command:
    if words.exec_form:
        return tuple(words.arguments)
    return " ".join(_some(words))


def _from(words: Words, flags: Flags, common: dict[str, Any]) -> From:
    arguments = words.arguments
    alias = as_written = None
    if len(arguments) == 3 and arguments[1].lower() == "as":
        as_written, alias = arguments[1:]
        if not _STAGE_NAME.fullmatch(alias.lower()):
            raise FlagError(
                f'invalid name for build stage: "{alias}", name can\'t start with a number or contain symbols',
                "It is a letter, then letters, digits, -, _ and . only.",
            )
    elif len(arguments) != 1:
        raise FlagError("FROM requires either one or three arguments", "Write FROM image, or FROM image AS name.")
    return From(
        image=arguments[0],
        platform=flags.texts.get("platform"),
        alias=None if alias is None else alias.lower(),
        alias_written=alias,
        as_written=as_written or "",
        **common,
    )


def _run(words: Words, flags: Flags, common: dict[str, Any]) -> Run:
    command = _command(words)
    if not command:
        raise FlagError("RUN requires at least one argument")
    mounts: tuple[RunMount, ...] = tuple(mount_of(text) for text in flags.lists.get("mount", ()))
    return Run(
        command=command,
        heredocs=words.heredocs,
        mounts=mounts,
        network=_choice("network", flags, _NETWORKS),
        security=_choice("security", flags, _SECURITY),
        **common,
    )


def _choice(flag: str, flags: Flags, choices: Sequence[str]) -> str | None:
    value = flags.texts.get(flag)
    if value is not None and value not in choices:
        like = nearest(value, choices)
        raise FlagError(
            f'unsupported {flag} mode "{value}"',
            f"Did you mean {like}?" if like else f"There are {', '.join(choices)}.",
        )
    return value


def _transfer(words: Words, flags: Flags) -> dict[str, Any]:
    """What COPY and ADD have in common."""
    if len(words.arguments) < 2:
        raise FlagError(
            f"{words.name} requires at least two arguments, but only one was provided. "
            "Destination could not be determined",
            f"Write {words.name} SOURCE… DESTINATION.",
        )
    *given, target = words.arguments
    if _heredoc_name(target, words) is not None:
        raise FlagError(f"{words.name} cannot accept a heredoc as a destination", "Write the destination last.")
    sources, heredocs = [], []
    for word in given:
        if (heredoc := _heredoc_name(word, words)) is None:
            sources.append(word)
        else:
            content = _LEADING_TABS.sub("", heredoc.content) if heredoc.chomp else heredoc.content
            heredocs.append(Heredoc(heredoc.name, content, heredoc.expand, heredoc.chomp))
    return {
        "sources": tuple(sources),
        "heredocs": tuple(heredocs),
        "target": target,
        "chown": flags.texts.get("chown") or None,
        "chmod": flags.texts.get("chmod") or None,
        "link": flags.switches.get("link", False),
        "exclude": flags.lists.get("exclude", ()),
    }


def _heredoc_name(word: str, words: Words) -> Heredoc | None:
    """The heredoc that a word begins (`<<EOF`), if it does."""
    name = re.sub(r"^\d*<<-?", "", word)
    if name == word:
        return None
    plain = name.replace('"', "").replace("'", "")
    return next((heredoc for heredoc in words.heredocs if heredoc.name == plain), None)


def _copy(words: Words, flags: Flags, common: dict[str, Any]) -> Copy:
    source = flags.texts.get("from") or None
    if source is not None and "$" in source:
        raise FlagError(
            "variable expansion is not supported for --from, "
            "define a new stage with FROM using ARG from global scope as a workaround",
            "Write FROM $NAME AS alias above, and --from=alias here.",
        )
    return Copy(**_transfer(words, flags), from_=source, parents=flags.switches.get("parents", False), **common)


def _add(words: Words, flags: Flags, common: dict[str, Any]) -> Add:
    return Add(
        **_transfer(words, flags),
        checksum=flags.texts.get("checksum") or None,
        keep_git_dir=flags.switches.get("keep-git-dir"),
        unpack=flags.switches.get("unpack"),
        **common,
    )


def _pairs(words: Words) -> tuple[Pair, ...]:
    """`[name, value, "=" or "", …]`, as the parser gives them."""
    _some(words)
    names, values, signs = words.arguments[::3], words.arguments[1::3], words.arguments[2::3]
    if not all(names):
        raise FlagError(f"{words.name} names can not be blank", f"Write {words.name} name=value.")
    return tuple(Pair(name, value, sign == "") for name, value, sign in zip(names, values, signs, strict=True))


def _arg(words: Words, flags: Flags, common: dict[str, Any]) -> Arg:
    arguments = []
    for word in _some(words):
        name, equals, value = word.partition("=")
        if not name:
            raise FlagError("ARG names can not be blank", "Write ARG name, or ARG name=default.")
        arguments.append(Argument(name, value if equals else None))
    return Arg(arguments=tuple(arguments), **common)


def _volume(words: Words, flags: Flags, common: dict[str, Any]) -> Volume:
    paths = tuple(path.strip() for path in _some(words))
    if not all(paths):
        raise FlagError("VOLUME specified can not be an empty string")
    return Volume(paths=paths, **common)


def _shell(words: Words, flags: Flags, common: dict[str, Any]) -> Shell:
    if not words.exec_form:
        _some(words)
        raise FlagError("SHELL requires the arguments to be in JSON form", 'Write SHELL ["/bin/bash", "-c"].')
    return Shell(words=_some(words), **common)


def _health(words: Words, flags: Flags, common: dict[str, Any]) -> HealthCheck:
    kind, *command = _some(words)
    kind = kind.upper()
    if kind == "NONE":
        if command:
            raise FlagError("HEALTHCHECK NONE takes no arguments")
        return HealthCheck(test=("NONE",), **common)
    if kind != "CMD":
        raise FlagError(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)', "Write HEALTHCHECK CMD and a command.")
    if not command:
        raise FlagError("Missing command after HEALTHCHECK CMD", "Write HEALTHCHECK CMD and a command.")
    retries = flags.texts.get("retries") or "0"
    if not re.fullmatch(r"\+?[0-9]+", retries) or int(retries) > _LARGEST_COUNT:
        raise FlagError(f"--retries is no number that can be: {retries}", "Write --retries=3.")
    return HealthCheck(
        test=(("CMD" if words.exec_form else "CMD-SHELL"), *command),
        interval=_interval("interval", flags),
        timeout=_interval("timeout", flags),
        start_period=_interval("start-period", flags),
        start_interval=_interval("start-interval", flags),
        retries=int(retries),
        **common,
    )


def _interval(name: str, flags: Flags) -> int:
    text = flags.texts.get(name)
    if not text:
        return 0
    try:
        found = duration(text)
    except ValueError as error:
        raise FlagError(f"--{name}: {error}", f"Write --{name}=30s, 1m30s or 500ms.") from None
    if 0 < found < _SHORTEST:
        raise FlagError(f"Interval --{name} cannot be less than 1ms", f"Write --{name}=1ms, or more.")
    return found


_FORMS: Mapping[str, Callable[[Words, Flags, dict[str, Any]], Instruction]] = {
    "ADD": _add,
    "ARG": _arg,
    "CMD": lambda words, flags, common: Cmd(command=_command(words), **common),
    "COPY": _copy,
    "ENTRYPOINT": lambda words, flags, common: Entrypoint(command=_command(words), **common),
    "ENV": lambda words, flags, common: Env(variables=_pairs(words), **common),
    "EXPOSE": lambda words, flags, common: Expose(ports=tuple(sorted(_some(words))), **common),
    "FROM": _from,
    "HEALTHCHECK": _health,
    "LABEL": lambda words, flags, common: Label(labels=_pairs(words), **common),
    "MAINTAINER": lambda words, flags, common: Maintainer(author=_one(words), **common),
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": lambda words, flags, common: StopSignal(signal=_one(words), **common),
    "USER": lambda words, flags, common: User(user=_one(words), **common),
    "VOLUME": _volume,
    "WORKDIR": lambda words, flags, common: Workdir(path=_one(words), **common),
}

NAMES = (*_FORMS, "ONBUILD")
"""The 18 instructions."""
