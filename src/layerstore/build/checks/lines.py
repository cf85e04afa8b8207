"""What can be seen only in the scope in which a line is carried out: variables, and what stands on what."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from layerstore.build.checks.finding import Finding
from layerstore.build.errors import BuildError
from layerstore.build.graph import Plan, PlannedStage
from layerstore.build.language.configuration import apply_config, begin_config
from layerstore.build.language.expansion import look, look_content
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
    Run,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from layerstore.build.language.likeness import nearest
from layerstore.build.language.scope import Scope
from layerstore.values import frozen

__all__ = ["findings"]

_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_ROOT = ("*", "**", "**/*")


@frozen
class _End:
    """What a stage leaves to those on top of it. `known`: the configuration of its base was given."""

    scope: Scope
    config: Mapping[str, Any]
    known: bool
    workdir_given: bool


def findings(
    plan: Plan,
    build_args: Mapping[str, str],
    configs: Mapping[int, Mapping[str, Any]],
    ignore: Sequence[str],
) -> Iterator[Finding]:
    """All of the stages of a plan, in no order (see `check`). Raises `BuildError` for a line that cannot be built."""
    ends: dict[int, _End] = {}
    ignored = _Ignored(ignore)
    for stage in plan.stages:
        yield from _stage(stage, plan, build_args, configs, ends, ignored)


def _stage(
    stage: PlannedStage,
    plan: Plan,
    build_args: Mapping[str, str],
    configs: Mapping[int, Mapping[str, Any]],
    ends: dict[int, _End],
    ignored: _Ignored,
) -> Iterator[Finding]:
    if stage.base.stage is not None:
        below = ends[stage.base.stage]
        scope, config = below.scope.child(), below.config
        known, workdir_given = below.known, below.workdir_given
    else:
        known, workdir_given = stage.base.kind == "scratch" or stage.index in configs, False
        config = begin_config(configs.get(stage.index))
        scope = Scope.start(plan.global_args, build_args, {}, config["Env"], escape=plan.dockerfile.escape)
    last: dict[type[Instruction], Instruction] = {}
    for instruction in stage.stage.instructions:
        if known:
            yield from _undefined(instruction, scope)
        yield from _plain(instruction, config)
        yield from _ignored(instruction, scope, ignored)
        if isinstance(instruction, Cmd | Entrypoint | HealthCheck):
            if (before := last.get(type(instruction))) is not None:
                yield Finding.at(
                    before, "MultipleInstructionsDisallowed", f"of two {before.NAME} in one stage, the last one counts"
                )
            last[type(instruction)] = instruction
        try:
            filled = scope.expand(instruction)
            changed = apply_config(config, filled, command_given=scope.command_given)
        except BuildError:
            if known:
                raise
            break  # its base may have what is missing
        if isinstance(filled, Workdir):
            if not workdir_given and not filled.path.startswith("/"):
                yield Finding.at(
                    instruction, "WorkdirRelativePath", f"where {filled.path!r} is depends on the base image"
                )
            workdir_given = True
        if isinstance(filled, Expose):
            yield from _ports(filled)
        scope, config = scope.after(filled), changed
    ends[stage.index] = _End(scope, config, known, workdir_given)


def _plain(instruction: Instruction, config: Mapping[str, Any]) -> Iterator[Finding]:
    """What needs no variables."""
    # A shell of the image's own is somebody's decision.
    shell_form = isinstance(instruction, Cmd | Entrypoint) and isinstance(instruction.command, str)
    if shell_form and not config.get("Shell"):
        yield Finding.at(
            instruction,
            "JSONArgsRecommended",
            f"the shell gets the signals: write {instruction.NAME} as a JSON array",
        )
    if isinstance(instruction, Env | Label):
        pairs = instruction.variables if isinstance(instruction, Env) else instruction.labels
        for pair in pairs:
            if pair.legacy:
                yield Finding.at(
                    instruction,
                    "LegacyKeyValueFormat",
                    f"write {instruction.NAME} {pair.name}=… (name, =, value)",
                )
    names: Sequence[str] = ()
    if isinstance(instruction, Env):
        names = [pair.name for pair in instruction.variables]
    elif isinstance(instruction, Arg):
        names = [argument.name for argument in instruction.arguments]
    for name in names:
        if _SECRET.search(name) and not _NO_SECRET.search(name):
            yield Finding.at(
                instruction,
                "SecretsUsedInArgOrEnv",
                f"{instruction.NAME} {name} stays in the image for everybody to read: use RUN --mount=type=secret",
            )


def _words(instruction: Instruction) -> Sequence[str]:
    """The words of an instruction that are expanded."""
    match instruction:
        case Add() | Copy():
            return [*instruction.sources, instruction.target, instruction.chown or "", instruction.chmod or ""]
        case Env():
            return [word for pair in instruction.variables for word in (pair.name, pair.value)]
        case Label():
            return [word for pair in instruction.labels for word in (pair.name, pair.value)]
        case Expose():
            return instruction.ports
        case Run():
            return [mount.text for mount in instruction.mounts]
        case StopSignal():
            return [instruction.signal]
        case User():
            return [instruction.user]
        case Volume():
            return instruction.paths
        case Workdir():
            return [instruction.path]
        case _:
            return ()


def _undefined(instruction: Instruction, scope: Scope) -> Iterator[Finding]:
    asked: set[str] = set()
    try:
        if isinstance(instruction, Arg):
            known = scope
            for argument in instruction.arguments:
                if argument.value is not None and argument.name not in scope.build_args:
                    asked |= look(argument.value, known.variables, scope.escape).unmatched - set(known.args)
                one = attrs.evolve(instruction, arguments=(argument,))
                known = known.after(known.expand(one))
        else:
            for word in _words(instruction):
                asked |= look(word, scope.variables, scope.escape).unmatched
            for heredoc in instruction.heredocs if isinstance(instruction, Copy | Add) else ():
                asked |= look_content(heredoc.content, scope.variables).unmatched if heredoc.expand else set()
    except (ValueError, BuildError):
        return  # whoever builds it will say so
    for name in sorted(asked - set(scope.args)):
        like = nearest(name, scope.variables)
        meant = f" (did you mean ${like}?)" if like else ""
        yield Finding.at(instruction, "UndefinedVar", f"${name} is not defined{meant}")


def _ports(expose: Expose) -> Iterator[Finding]:
    for port in expose.ports:
        *host, container = port.rsplit(":", 2)
        protocol = container.partition("/")[2]
        if protocol != protocol.lower():
            yield Finding.at(expose, "ExposeProtoCasing", f"the protocol of {port!r} is not in lower case")
        if any(host):
            yield Finding.at(
                expose, "ExposeInvalidFormat", f"{port!r} names a port or address of the host, which EXPOSE has not"
            )


class _Ignored:
    """What .dockerignore excludes, where that can be said of a path alone: not if something is included again."""

    def __init__(self, patterns: Sequence[str]) -> None:
        from e2b_dockerfile_utils import PatternMatcher

        plain = [pattern.strip() for pattern in patterns if pattern.strip() and not pattern.startswith("#")]
        self._root = any(pattern in _ROOT for pattern in plain)
        usable = plain and not any(pattern.startswith("!") for pattern in plain)
        try:
            self._matcher = PatternMatcher(plain) if usable else None
        except ValueError:  # whoever reads the context will say so
            self._matcher = None

    def has(self, source: str) -> bool:
        """Whether a source of COPY, from the context's root, is excluded."""
        if self._matcher is None:
            return False
        path = posixpath.normpath(source).lstrip("/")
        return self._root if path in ("", ".") else bool(self._matcher.matches(path))


def _ignored(instruction: Instruction, scope: Scope, ignored: _Ignored) -> Iterator[Finding]:
    if not isinstance(instruction, Copy | Add) or instruction.from_ is not None:
        return
    for source in instruction.sources:
        try:
            path = scope.word(source)
        except ValueError:
            return
        if "://" not in path and ignored.has(path):
            yield Finding.at(instruction, "CopyIgnoredFile", f"{path!r} is excluded by .dockerignore")
