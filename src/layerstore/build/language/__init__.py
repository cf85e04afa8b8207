"""The language of Dockerfiles, as values: text becomes instructions, variables get what they mean, and an instruction
says what it makes of an image's configuration and history. Pure: nothing here reads a file, or knows a store.

`parse` reads, `Scope` knows what variables mean at a line, `apply_config` and `history_line` say what an instruction
does to an image besides its files, `program_of` what a RUN executes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from layerstore.build.language.configuration import (
        SCRIPTS,
        Program,
        apply_config,
        begin_config,
        ports_of,
        program_of,
        working_dir,
    )
    from layerstore.build.language.history import history_line
    from layerstore.build.language.instructions import (
        Add,
        Arg,
        Argument,
        Cmd,
        Copy,
        Dockerfile,
        Entrypoint,
        Env,
        Expose,
        From,
        HealthCheck,
        Heredoc,
        Instruction,
        Label,
        Maintainer,
        OnBuild,
        Pair,
        Run,
        RunMount,
        Shell,
        Stage,
        StopSignal,
        User,
        Volume,
        Workdir,
    )
    from layerstore.build.language.likeness import nearest
    from layerstore.build.language.modes import Modes, modes_of
    from layerstore.build.language.reading import parse, with_triggers
    from layerstore.build.language.scope import (
        DEFAULT_PATH,
        Scope,
        environment,
        global_args,
        names_folder,
        one_place_for_several,
        platform_args,
    )

_HOMES = {
    "configuration": ["SCRIPTS", "Program", "apply_config", "begin_config", "ports_of", "program_of", "working_dir"],
    "history": ["history_line"],
    "instructions": [
        "Add",
        "Arg",
        "Argument",
        "Cmd",
        "Copy",
        "Dockerfile",
        "Entrypoint",
        "Env",
        "Expose",
        "From",
        "HealthCheck",
        "Heredoc",
        "Instruction",
        "Label",
        "Maintainer",
        "RunMount",
        "OnBuild",
        "Pair",
        "Run",
        "Shell",
        "Stage",
        "StopSignal",
        "User",
        "Volume",
        "Workdir",
    ],
    "likeness": ["nearest"],
    "modes": ["Modes", "modes_of"],
    "reading": ["parse", "with_triggers"],
    "scope": [
        "DEFAULT_PATH",
        "Scope",
        "environment",
        "global_args",
        "names_folder",
        "one_place_for_several",
        "platform_args",
    ],
}

__all__ = [
    "DEFAULT_PATH",
    "SCRIPTS",
    "Add",
    "Arg",
    "Argument",
    "Cmd",
    "Copy",
    "Dockerfile",
    "Entrypoint",
    "Env",
    "Expose",
    "From",
    "HealthCheck",
    "Heredoc",
    "Instruction",
    "Label",
    "Maintainer",
    "Modes",
    "OnBuild",
    "Pair",
    "Program",
    "Run",
    "RunMount",
    "Scope",
    "Shell",
    "Stage",
    "StopSignal",
    "User",
    "Volume",
    "Workdir",
    "apply_config",
    "begin_config",
    "environment",
    "global_args",
    "history_line",
    "modes_of",
    "names_folder",
    "nearest",
    "one_place_for_several",
    "parse",
    "platform_args",
    "ports_of",
    "program_of",
    "with_triggers",
    "working_dir",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"layerstore.build.language.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
