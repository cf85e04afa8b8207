"""What variables mean at a line: ARG and ENV, from where they are given to what a command sees.

A stage has one `Scope` at its beginning; `expand` fills in an instruction, and `after` is the scope of the next one.
It is BuildKit's order of things: what comes last counts, whether ARG or ENV; all of one line but ARG sees what was
before the line; a stage that is built on another one has its ARGs too; the proxies' variables need no ARG and are in no
history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeVar, cast

import attrs
from attrs import field

from layerstore.build.errors import BuildError
from layerstore.build.language.expansion import expand_content, expand_text, expand_word, expand_words
from layerstore.build.language.flags import FlagError
from layerstore.build.language.instructions import (
    Add,
    Arg,
    Argument,
    Cmd,
    Copy,
    Dockerfile,
    Env,
    Expose,
    Heredoc,
    Instruction,
    Label,
    Pair,
    Run,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from layerstore.build.language.modes import modes_of
from layerstore.build.language.mounts import mount_of
from layerstore.values import frozen

__all__ = [
    "DEFAULT_PATH",
    "PROXIES",
    "Scope",
    "environment",
    "global_args",
    "names_folder",
    "one_place_for_several",
    "platform_args",
]

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What a stage has as PATH if its base says nothing; it stays in the image's configuration."""

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
"""Arguments that RUN gets without an ARG, in both cases."""

_LONE_DOLLAR = "Escape a $ that is meant as it is: \\$, or write it in '…'."
_LONE_QUOTE = 'Escape a quote that is meant as it is: \\", or \\\' (\\\\\\" in a JSON array).'

_Any = TypeVar("_Any", bound=Instruction)


def _fixed(values: Mapping[str, str]) -> Mapping[str, str]:
    """A copy that nobody can change, or the same if nobody can change it: a scope has most of the one before."""
    return values if isinstance(values, MappingProxyType) else MappingProxyType(dict(values))


def _fixed_args(values: Mapping[str, str | None]) -> Mapping[str, str | None]:
    return values if isinstance(values, MappingProxyType) else MappingProxyType(dict(values))


def environment(entries: Iterable[str]) -> dict[str, str]:
    """The variables of a configuration's `Env`, with a PATH."""
    found = dict(entry.partition("=")[::2] for entry in entries)
    return found if "PATH" in found else {**found, "PATH": DEFAULT_PATH}


def platform_args(target: str, build: str, *, stage: str | None = None) -> dict[str, str]:
    """TARGETPLATFORM and its like, of `linux/arm64/v8`; `stage` is the name of the target.

    They are there before the first FROM; a stage has those that it names in an ARG.
    """
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        system, architecture, variant = (*platform.split("/"), "", "")[:3]
        found |= {
            f"{prefix}PLATFORM": platform,
            f"{prefix}OS": system,
            f"{prefix}OSVERSION": "",
            f"{prefix}ARCH": architecture,
            f"{prefix}VARIANT": variant,
        }
    return {**found, "TARGETSTAGE": stage or "default"}


def global_args(
    dockerfile: Dockerfile, build_args: Mapping[str, str], platform: Mapping[str, str]
) -> Mapping[str, str]:
    """What FROM sees: the ARGs before the first one, and those of the platform. Raises `BuildError`."""
    values = {name: build_args.get(name, value) for name, value in platform.items()}
    for instruction in dockerfile.global_args:
        for argument in instruction.arguments:
            if argument.name in build_args:
                values[argument.name] = build_args[argument.name]
            elif argument.value is not None:
                with _placed(instruction):
                    values[argument.name] = expand_word(argument.value, values, dockerfile.escape)
    return values


@frozen
class Scope:
    """What variables mean at a line."""

    escape: str
    global_args: Mapping[str, str] = field(converter=_fixed)
    """What FROM sees (see `global_args`)."""
    build_args: Mapping[str, str] = field(converter=_fixed)
    """What the build was given (`--build-arg`)."""
    env: Mapping[str, str] = field(converter=_fixed)
    """The environment of the image so far."""
    args: Mapping[str, str | None] = field(converter=_fixed_args, factory=dict)
    """The ARGs that were declared so far, in order, and what they have. None: nothing."""
    variables: Mapping[str, str] = field(converter=_fixed, factory=dict)
    """What expansion finds: ENV and ARG, whichever came last."""
    command_given: bool = False
    """Whether this stage had a CMD, so that ENTRYPOINT leaves it."""

    @classmethod
    def start(
        cls,
        global_args: Mapping[str, str],
        build_args: Mapping[str, str],
        platform_args: Mapping[str, str],
        base_env: Mapping[str, str] | Iterable[str],
        *,
        escape: str = "\\",
    ) -> Scope:
        """The scope of a stage on an image (`base_env` is its environment, or the `Env` of its configuration)."""
        env = environment(
            (f"{name}={value}" for name, value in base_env.items()) if isinstance(base_env, Mapping) else base_env
        )
        return cls(escape, {**platform_args, **global_args}, build_args, env, {}, env)

    def child(self) -> Scope:
        """The scope of a stage that is built on the one that ends here: ENV and ARG are passed on.

        It begins with the image's environment, as BuildKit's does: an ENV takes the place of an ARG of that name.
        """
        return attrs.evolve(self, command_given=False, variables=MappingProxyType({**self.variables, **self.env}))

    @property
    def proxies(self) -> Mapping[str, str]:
        """The proxies' variables, in both cases, that the build was given and no ARG declares."""
        given = {name.upper(): value for name, value in self.build_args.items() if name.upper() in PROXIES}
        return {
            spelled: value
            for name, value in given.items()
            for spelled in (name, name.lower())
            if spelled not in self.args
        }

    @property
    def run_env(self) -> dict[str, str]:
        """What a command of RUN has in its environment, proxies included. Secrets come to that."""
        return {**self.variables, **self.proxies}

    @property
    def key_env(self) -> dict[str, str]:
        """What of it decides whether a step was done before: all but the proxies that no ARG declares."""
        return dict(self.variables)

    def word(self, text: str) -> str:
        """One word, its variables filled in. Raises `ValueError`."""
        return expand_word(text, self.variables, self.escape)

    def shown(self, instruction: Instruction) -> str:
        """An instruction as progress has it: `RUN make V=2`, of a heredoc its first line too."""
        text = instruction.original
        if isinstance(instruction, Run):
            if instruction.heredocs:
                text += f" ({_first_line(instruction.heredocs[0].content)})"
            masked = {mount.env: "****" for mount in instruction.mounts if mount.type == "secret" and mount.env}
            text = expand_text(text, {**self.variables, **masked}, self.escape)
        elif isinstance(instruction, Copy | Add | Workdir):
            try:
                text = self.word(text)
            except ValueError:
                pass
        prefix = "ONBUILD " if instruction.trigger else ""
        keyword = instruction.keyword.upper()
        return f"{prefix}{keyword}{text[len(keyword) :]}"

    def expand(self, instruction: _Any) -> _Any:
        """The instruction with its variables filled in. Raises `BuildError` where that cannot be.

        FROM, RUN's command, CMD, ENTRYPOINT, SHELL, HEALTHCHECK and ONBUILD stay as they are: a shell fills those in,
        or nobody. The arguments of an ARG get the values that they have in this build.
        """
        with _placed(instruction):
            return cast(_Any, _filled(self, instruction))

    def after(self, instruction: Instruction) -> Scope:
        """The scope of the next line. `instruction` is what `expand` gave."""
        match instruction:
            case Env():
                new = {pair.name: pair.value for pair in instruction.variables}
                env, variables = {**self.env, **new}, {**self.variables, **new}
                return attrs.evolve(self, env=MappingProxyType(env), variables=MappingProxyType(variables))
            case Arg():
                values = {argument.name: argument.value for argument in instruction.arguments}
                known = {name: value for name, value in values.items() if value is not None}
                args, variables = {**self.args, **values}, {**self.variables, **known}
                return attrs.evolve(self, args=MappingProxyType(args), variables=MappingProxyType(variables))
            case Cmd():
                return attrs.evolve(self, command_given=True)
            case _:
                return self


class _placed:
    """What goes wrong with a word of an instruction is told at its place."""

    def __init__(self, instruction: Instruction) -> None:
        self._place = instruction.place

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, FlagError):
            raise BuildError(str(error), place=self._place, remedy=error.remedy) from None
        if isinstance(error, ValueError):
            remedy = _LONE_QUOTE if "while looking for matching" in str(error) else _LONE_DOLLAR
            raise BuildError(str(error), place=self._place, remedy=remedy) from None


def _first_line(content: str) -> str:
    first, *others = content.strip().replace("\r\n", "\n").split("\n")
    return f"{first}..." if others else first


def _pairs(scope: Scope, pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(Pair(scope.word(pair.name), scope.word(pair.value), pair.legacy) for pair in pairs)


def _arg(scope: Scope, arg: Arg) -> Arg:
    """Each name sees those before it on the same line, which is BuildKit's way for ARG alone."""
    found: list[Argument] = []
    for argument in arg.arguments:
        if (given := scope.build_args.get(argument.name)) is not None:
            value: str | None = given
        elif argument.value is not None:
            value = scope.word(argument.value)
        else:
            value = scope.global_args.get(argument.name)
        found.append(Argument(argument.name, value))
        scope = scope.after(attrs.evolve(arg, arguments=(found[-1],)))
    return attrs.evolve(arg, arguments=tuple(found))


def _transfer(scope: Scope, instruction: Copy | Add) -> Copy | Add:
    filled = attrs.evolve(
        instruction,
        sources=tuple(map(scope.word, instruction.sources)),
        target=scope.word(instruction.target),
        chown=instruction.chown and scope.word(instruction.chown),
        chmod=instruction.chmod and scope.word(instruction.chmod),
        heredocs=tuple(_content(scope, heredoc) for heredoc in instruction.heredocs),
    )
    if len(filled.sources) + len(filled.heredocs) > 1 and not names_folder(filled.target):
        raise one_place_for_several(filled)
    if filled.chmod:
        _require_mode(filled.chmod)
    if isinstance(filled, Add) and filled.checksum:
        return attrs.evolve(filled, checksum=scope.word(filled.checksum))
    return filled


def names_folder(target: str) -> bool:
    """Is a destination meant as a folder, whatever is there?"""
    return target.endswith(("/", "/.", "/..")) or target in (".", "..", "")


def one_place_for_several(step: Copy | Add) -> FlagError:
    """What is said of several sources that would take one place."""
    return FlagError(
        f"When using {step.NAME} with more than one source file, the destination must be a directory and end with a /",
        f"Write {step.target}/.",
    )


def _require_mode(text: str) -> None:
    try:
        modes_of(text)
    except ValueError as error:
        raise FlagError(str(error), "Write --chmod=755, or --chmod=u=rwX,go=rX.") from None


def _content(scope: Scope, heredoc: Heredoc) -> Heredoc:
    if not heredoc.expand:
        return heredoc
    return attrs.evolve(heredoc, content=expand_content(heredoc.content, scope.variables))


def _run(scope: Scope, run: Run) -> Run:
    return attrs.evolve(run, mounts=tuple(mount_of(mount.text, scope.word) for mount in run.mounts))


def _expose(scope: Scope, expose: Expose) -> Expose:
    words = (word for port in expose.ports for word in expand_words(port, scope.variables, scope.escape))
    return attrs.evolve(expose, ports=tuple(words))


def _volume(scope: Scope, volume: Volume) -> Volume:
    paths = tuple(map(scope.word, volume.paths))
    if not all(paths):
        raise FlagError("VOLUME specified can not be an empty string")
    return attrs.evolve(volume, paths=paths)


def _filled(scope: Scope, instruction: Instruction) -> Instruction:
    match instruction:
        case Add() | Copy():
            return _transfer(scope, instruction)
        case Arg():
            return _arg(scope, instruction)
        case Env():
            return attrs.evolve(instruction, variables=_pairs(scope, instruction.variables))
        case Expose():
            return _expose(scope, instruction)
        case Label():
            return attrs.evolve(instruction, labels=_pairs(scope, instruction.labels))
        case Run():
            return _run(scope, instruction)
        case StopSignal():
            return attrs.evolve(instruction, signal=scope.word(instruction.signal))
        case User():
            return attrs.evolve(instruction, user=scope.word(instruction.user))
        case Volume():
            return _volume(scope, instruction)
        case Workdir():
            return attrs.evolve(instruction, path=scope.word(instruction.path))
        case _:
            return instruction
