"""What a build was told that cannot be, as far as that can be known before anything is done."""

from __future__ import annotations

from layerstore import ConfigError, reference
from layerstore.build.options import BuildOptions
from layerstore.build.steps import outputs

__all__ = ["require"]


def require(options: BuildOptions) -> None:
    """Names, secrets, agents and outputs. Raises `ConfigError`, `InvalidReference`."""
    for tag in options.tags:
        reference.normalise(tag)
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
