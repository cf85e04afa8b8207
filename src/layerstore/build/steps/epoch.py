"""SOURCE_DATE_EPOCH: the time that is told for all that is made now, and the latest in new layers."""

from __future__ import annotations

import os
import time

from layerstore import ConfigError
from layerstore.build.language import Dockerfile
from layerstore.build.options import BuildOptions

__all__ = ["epoch_of"]

_NAME = "SOURCE_DATE_EPOCH"
_LAST = 253402300799
"""The end of the year 9999, which is the last that RFC 3339 can tell."""


def epoch_of(options: BuildOptions, dockerfile: Dockerfile, context: str | os.PathLike[str] | None) -> int | None:
    """Seconds since 1970: as given, as a build argument, as the Dockerfile's default, or from the environment.

    The word `context` is the time of the context's last git commit. Raises `ConfigError` for what is no time.
    """
    text = _said(options, dockerfile)
    if text == "context":
        return _committed(context)
    if not text:
        # Times of now are not the same twice, and nobody has asked for others.
        return int(time.time()) if options.verify else None
    if not text.isascii() or not text.isdecimal() or int(text) > _LAST:
        raise ConfigError(
            f"{_NAME} is {text!r}, which is no time",
            remedy="Set it to seconds since 1970, up to the year 9999, or to the word context, or unset it.",
        )
    return int(text)


def _said(options: BuildOptions, dockerfile: Dockerfile) -> str | None:
    if options.source_date_epoch is not None:
        return str(options.source_date_epoch)
    if (given := options.build_args.get(_NAME)) is not None:
        return given
    for arg in dockerfile.global_args:
        for argument in arg.arguments:
            if argument.name == _NAME and argument.value:
                return argument.value
    return os.environ.get(_NAME)


def _committed(context: str | os.PathLike[str] | None) -> int:
    import subprocess

    folder = os.fspath(context or ".")
    try:
        said = subprocess.run(
            ["git", "-C", folder, "log", "-1", "--format=%ct"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise ConfigError(f"{_NAME}=context takes git, which is not installed", remedy="Install it.") from None
    text = said.stdout.strip()
    if not text.isdecimal():
        raise ConfigError(
            f"{_NAME}=context: {folder} has no git commit whose time could be taken",
            remedy=f"Set {_NAME} to seconds since 1970.",
        )
    return int(text)
