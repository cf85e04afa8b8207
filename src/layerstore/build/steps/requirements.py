"""What a build was told that cannot be, as far as that can be known before anything is done."""

from __future__ import annotations

from layerstore import reference
from layerstore.build.options import BuildOptions
from layerstore.build.steps import agents, outputs

__all__ = ["require"]


def require(options: BuildOptions) -> None:
    """Names, secrets, agents and outputs. Raises `ConfigError`, `InvalidReference`."""
    for tag in options.tags:
        reference.normalise(tag)
    for secret in options.secrets:
        secret.require()
    for ssh in options.ssh:
        agents.require(ssh)
    for wanted in options.outputs:
        outputs.require(wanted, options.tags)
