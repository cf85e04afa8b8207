"""What a build was told that cannot be, as far as that can be known before anything is done."""

from __future__ import annotations

import os

from layerstore import ConfigError, reference
from layerstore.build.context import repository_of
from layerstore.build.errors import BuildError
from layerstore.build.graph import Plan
from layerstore.build.language import Run
from layerstore.build.options import BuildOptions
from layerstore.build.steps import outputs

__all__ = ["require", "require_allowed"]

_INSECURE = "security.insecure"


def require(options: BuildOptions) -> None:
    """Names, contexts, secrets, agents and outputs. Raises `ConfigError`, `InvalidReference`."""
    for tag in options.tags:
        reference.normalise(tag)
    for name, source in options.contexts.items():
        _require_context(name, source)
    for secret in options.secrets:
        secret.require()
    for ssh in options.ssh:
        from layerstore.build.steps import agents

        agents.require(ssh)
    if options.annotations and not any(wanted.kind == "oci" or wanted.push for wanted in options.outputs):
        raise ConfigError(
            "annotations are a manifest's, and no output makes one: an image of the store has its config alone",
            remedy="Push it, or give -o type=oci,dest=FILE; labels (--label) are the image's own.",
        )
    for wanted in options.outputs:
        outputs.require(wanted, options.tags)


def _require_context(name: str, source: str) -> None:
    """What is of this machine is there; what is elsewhere is found out when somebody needs it."""
    is_elsewhere = source == "-" or "://" in source or repository_of(source) is not None
    if not is_elsewhere and not os.path.exists(source):
        raise ConfigError(
            f"context {name} cannot be read: there is no {source}",
            remedy="Name a folder that is there, a tar, a URL, a git repository, or docker-image://NAME.",
            path=source,
        )


def require_allowed(found: Plan, options: BuildOptions) -> None:
    """What weakens the sandbox has to be allowed by whoever builds. The host's network all have here."""
    for stage in found.stages:
        for instruction in stage.stage.instructions:
            if isinstance(instruction, Run) and instruction.security == "insecure" and _INSECURE not in options.allow:
                raise BuildError(
                    f"{_INSECURE} is not allowed", place=instruction.place, remedy=f"Allow it: --allow {_INSECURE}."
                )
