"""The Dockerfile instructions that change an image's configuration: `commit --change` and `import --change`.

Each is applied to the run configuration (the `config` of an image's config). Instructions that need a build (RUN, COPY,
FROM) are refused by name.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from layerstore.errors import ConfigError

_VARIABLE = re.compile(r"\\(.)|\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ns|us|µs|ms|s|m|h))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_SHELL = ["/bin/sh", "-c"]

RunConfig = dict[str, Any]


def apply(config: Mapping[str, Any] | None, changes: Iterable[str]) -> RunConfig:
    """`config` after `changes`, in order. Raises `ConfigError`, which names the instruction."""
    result: RunConfig = json.loads(json.dumps(config or {}))
    command_given = False
    for change in changes:
        word, text = _first(change)
        name = word.upper()
        if (handler := _HANDLERS.get(name)) is None:
            raise ConfigError(
                f"{word!r} is not a change that can be made to an image's configuration",
                remedy=f"Valid are {', '.join(sorted(_HANDLERS))}.",
            )
        if not text:
            raise ConfigError(f"{name} needs an argument")
        handler(result, text)
        command_given = command_given or name == "CMD"
        if name == "ENTRYPOINT" and not command_given:
            result.pop("Cmd", None)  # the base image's command was meant for the base image's entrypoint
    return result


def _cmd(config: RunConfig, text: str) -> None:
    config["Cmd"] = _command(config, text)


def _entrypoint(config: RunConfig, text: str) -> None:
    # As docker writes it: of an empty one remains null, of an empty CMD [].
    config["Entrypoint"] = _command(config, text) or None


def _command(config: RunConfig, text: str) -> list[str]:
    """The two forms of a command: a JSON array as it is, anything else for the shell."""
    words = _array(text)
    return [*(config.get("Shell") or _SHELL), text] if words is None else words


def _env(config: RunConfig, text: str) -> None:
    environment = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    for key, value in _pairs("ENV", text, config):
        environment[key] = f"{key}={value}"
    config["Env"] = list(environment.values())


def _label(config: RunConfig, text: str) -> None:
    config["Labels"] = {**(config.get("Labels") or {}), **dict(_pairs("LABEL", text, config))}


def _expose(config: RunConfig, text: str) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for word in _expanded(text, config).split():
        numbers, _, protocol = word.partition("/")
        protocol = protocol.lower() or "tcp"
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", numbers)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 0 < first <= last <= 65535 or protocol not in ("tcp", "udp", "sctp"):
            raise ConfigError(f"EXPOSE {word}: not a port", remedy="Write 80, 80/udp or 8000-8010.")
        ports |= {f"{port}/{protocol}": {} for port in range(first, last + 1)}
    config["ExposedPorts"] = ports


def _volume(config: RunConfig, text: str) -> None:
    words = _array(text)
    paths = [_expanded(word, config).strip() for word in (text.split() if words is None else words)]
    if not paths:
        raise ConfigError("VOLUME requires at least one argument", remedy='Write VOLUME /data, or VOLUME ["/data"].')
    if not all(paths):
        raise ConfigError(f"VOLUME {text}: VOLUME specified can not be an empty string")
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in paths}}


def _user(config: RunConfig, text: str) -> None:
    config["User"] = _expanded(text, config)


def _workdir(config: RunConfig, text: str) -> None:
    # A relative one is taken from the one before, as the Dockerfile reference says.
    config["WorkingDir"] = posixpath.normpath(
        posixpath.join("/", config.get("WorkingDir") or "/", _expanded(text, config))
    )


def _stopsignal(config: RunConfig, text: str) -> None:
    config["StopSignal"] = _expanded(text, config)


def _onbuild(config: RunConfig, text: str) -> None:
    word = _first(text)[0].upper()
    if word == "ONBUILD":
        raise ConfigError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise ConfigError(f"{word} isn't allowed as an ONBUILD trigger")
    config["OnBuild"] = [*(config.get("OnBuild") or ()), text]


def _healthcheck(config: RunConfig, text: str) -> None:
    health: dict[str, Any] = {}
    word, rest = _first(text)
    while word.startswith("--"):
        name, _, value = word[2:].partition("=")
        if name not in _HEALTH_OPTIONS:
            raise ConfigError(f"HEALTHCHECK has no option {word}", remedy=f"It has {', '.join(_HEALTH_OPTIONS)}.")
        health[_HEALTH_OPTIONS[name]] = _count(value) if name == "retries" else _duration(name, value)
        word, rest = _first(rest)
    kind = word.upper()
    if not kind:
        raise ConfigError("HEALTHCHECK requires at least one argument", remedy=_HEALTH_REMEDY)
    if kind == "NONE":
        if rest:
            raise ConfigError("HEALTHCHECK NONE takes no arguments", remedy=_HEALTH_REMEDY)
        config["Healthcheck"] = {"Test": ["NONE"]}
        return
    if kind != "CMD":
        raise ConfigError(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)', remedy=_HEALTH_REMEDY)
    words = _array(rest)
    if not rest or words == []:
        raise ConfigError("Missing command after HEALTHCHECK CMD", remedy=_HEALTH_REMEDY)
    config["Healthcheck"] = {"Test": ["CMD-SHELL", rest] if words is None else ["CMD", *words], **health}


_HEALTH_REMEDY = "Write HEALTHCHECK CMD and a command, or HEALTHCHECK NONE."
_HEALTH_OPTIONS = {
    "interval": "Interval",
    "timeout": "Timeout",
    "start-period": "StartPeriod",
    "start-interval": "StartInterval",
    "retries": "Retries",
}

_HANDLERS: Mapping[str, Callable[[RunConfig, str], None]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "ONBUILD": _onbuild,
    "STOPSIGNAL": _stopsignal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}


def _first(text: str) -> tuple[str, str]:
    """The first word of a text, and what follows."""
    word, *rest = text.split(None, 1) or ("",)
    return word, rest[0].rstrip() if rest else ""


def _array(text: str) -> list[str] | None:
    """The words of a JSON array, which may be none; None if it is no JSON array, but text for the shell."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not all(isinstance(word, str) for word in value):
        raise ConfigError(f"{text}: when using JSON array syntax, arrays must be comprised of strings only")
    return list(value)


def _pairs(instruction: str, text: str, config: RunConfig) -> Sequence[tuple[str, str]]:
    """`k=v k2="v 2"`, or the old form `k the rest`."""
    words = _words(instruction, text)
    if "=" not in words[0]:
        key, value = _first(text)
        if not value:
            raise ConfigError(f"{instruction} {text}: no value", remedy=f"Write {instruction} {key}=value.")
        return [(key, _expanded(value, config))]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{instruction} {word}: not of the form key=value")
        key = _unquoted(key, config)
        if not key:
            raise ConfigError(f"{instruction} {word}: {instruction} names can not be blank")
        pairs.append((key, _unquoted(value, config)))
    return pairs


def _words(instruction: str, text: str) -> list[str]:
    """Split at blanks that are neither quoted nor escaped; the quotes stay."""
    words, quote, start, index = [], "", 0, 0
    while index < len(text):
        letter = text[index]
        if letter == "\\" and quote != "'":
            index += 1
        elif quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            words.append(text[start:index])
            start = index + 1
        index += 1
    if quote:
        raise ConfigError(f"{instruction} {text}: a quote is not closed")
    return [word for word in (*words, text[start:]) if word]


def _unquoted(word: str, config: RunConfig) -> str:
    """A word without its quotes, its variables replaced where they are not in single quotes."""
    parts = re.findall(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|(?:\\.|[^'\"\\])+", word)
    return "".join(part[1:-1] if part[0] == "'" else _expanded(part.strip('"'), config) for part in parts)


def _expanded(text: str, config: RunConfig) -> str:
    """Replace `$NAME`, `${NAME}`, `${NAME:-default}` and `${NAME:+instead}` by the environment of the image."""
    environment = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())

    def value(match: re.Match[str]) -> str:
        escaped, bare, braced, operator, word = match.groups()
        if escaped is not None:
            return str(escaped)
        found: str = environment.get(bare or braced, "")
        if operator == "-":
            return found or str(word)
        if operator == "+":
            return str(word) if found else ""
        return found

    return _VARIABLE.sub(value, text)


def _duration(name: str, text: str) -> int:
    if not _DURATION.fullmatch(text):
        raise ConfigError(f"HEALTHCHECK --{name}={text}: not a duration", remedy="Write 30s, 1m30s or 500ms.")
    return int(sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(text)))


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ConfigError(f"HEALTHCHECK --retries={text}: not a number")
    return int(text)
