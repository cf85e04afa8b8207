"""What an image's history says of each instruction: BuildKit's words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from layerstore.build.language.configuration import apply_config, ports_of, program_of, working_dir
from layerstore.build.language.durations import shown_duration
from layerstore.build.language.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    HealthCheck,
    Instruction,
    Label,
    Maintainer,
    Pair,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from layerstore.build.language.scope import Scope

__all__ = ["history_line"]

_MARK = " # buildkit"
"""Behind what makes a layer of its own, but for WORKDIR."""

_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def history_line(instruction: Instruction, scope: Scope, config: Mapping[str, Any]) -> str | None:
    """The `created_by` of an expanded instruction; None for ONBUILD, of which BuildKit's history says nothing.

    `scope` and the run configuration `config` are those before it.
    """
    match instruction:
        case Run():
            declared = [f"{name}={scope.variables.get(name, value or '')}" for name, value in scope.args.items()]
            count = (f"|{len(declared)}",) if declared else ()
            return f"RUN {' '.join((*count, *declared, *program_of(instruction, config).argv))}{_MARK}"
        case Copy() | Add():
            return f"{' '.join(_transfer(instruction))}{_MARK}"
        case Workdir():
            return f"WORKDIR {working_dir(config, instruction.path)}"
        case Env():
            return f"ENV {_pairs(instruction.variables)}"
        case Label():
            return f"LABEL {_pairs(instruction.labels)}"
        case Arg():
            words = (name if value is None else f"{name}={value}" for name, value in _arguments(instruction))
            return f"ARG {' '.join(words)}"
        case Cmd():
            return f"CMD {_quoted(apply_config(config, instruction)['Cmd'])}"
        case Entrypoint():
            return f"ENTRYPOINT {_quoted(apply_config(config, instruction)['Entrypoint'] or ())}"
        case Expose():
            return f"EXPOSE {_listed(ports_of(instruction))}"
        case Volume():
            return f"VOLUME {_listed(instruction.paths)}"
        case Shell():
            return f"SHELL {_listed(instruction.words)}"
        case User():
            return f"USER {instruction.user}"
        case StopSignal():
            return f"STOPSIGNAL {instruction.signal}"
        case Maintainer():
            return f"MAINTAINER {instruction.author}"
        case HealthCheck():
            return f"HEALTHCHECK {_health(instruction)}"
        case _:
            return None


def _transfer(instruction: Copy | Add) -> list[str]:
    """--from, --link and --exclude are not in it: it is what is copied, and not from where."""
    return [
        instruction.NAME,
        *(("--parents",) if instruction.parents else ()),
        *((f"--chown={instruction.chown}",) if instruction.chown else ()),
        *((f"--chmod={instruction.chmod}",) if instruction.chmod else ()),
        *instruction.sources,
        *(f"<<{heredoc.name}" for heredoc in instruction.heredocs),
        instruction.target,
    ]


def _pairs(pairs: Iterable[Pair]) -> str:
    return " ".join(f"{pair.name}={pair.value}" for pair in pairs)


def _arguments(instruction: Arg) -> Iterable[tuple[str, str | None]]:
    return ((argument.name, argument.value) for argument in instruction.arguments)


def _listed(words: Iterable[str]) -> str:
    return f"[{' '.join(words)}]"


def _quoted(words: Iterable[str]) -> str:
    return _listed(map(_quote, words))


def _quote(word: str) -> str:
    """As Go quotes a string (`%q`)."""
    letters = []
    for letter in word:
        if letter in '"\\':
            letters.append(f"\\{letter}")
        elif letter in _ESCAPES:
            letters.append(_ESCAPES[letter])
        elif letter == " " or letter.isprintable():
            letters.append(letter)
        else:
            code = ord(letter)
            letters.append(
                f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 1 << 16 else f"\\U{code:08x}"
            )
    return f'"{"".join(letters)}"'


def _health(check: HealthCheck) -> str:
    """As Go shows the struct."""
    times = (
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
    )
    shown = " ".join(f"{name}:{shown_duration(value)}" for name, value in times)
    return f"{{Test:{_listed(check.test)} {shown} Retries:{check.retries}}}"
