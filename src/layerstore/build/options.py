"""What a build is told, in docker's words: values alone. What the Dockerfile says is not in here."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Literal

from attrs import field

from layerstore import ConfigError
from layerstore.values import frozen

__all__ = ["EXPORTS", "BuildOptions", "Export", "Secret", "Ssh"]

EXPORTS = ("image", "oci", "docker", "tar", "local", "cacheonly")

_Text = str | os.PathLike[str]


def _text_of(value: _Text | None) -> str | None:
    return None if value is None else os.fspath(value)


@frozen
class Secret:
    """`--secret id=ID,src=FILE|env=NAME`: what a step may read while it runs, and nothing keeps.

    One of `file`, `env` (a variable of this process) and `value` is given; without any, a variable or else a file of
    the name `id`.
    """

    id: str
    file: str | None = field(default=None, converter=_text_of)
    env: str | None = None
    value: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """What it says. Raises `ConfigError` if it is not there."""
        if self.value is not None:
            return self.value
        name = self.id if self.env is None and self.file is None else self.env
        if name is not None and os.fsencode(name) in os.environb:
            return os.environb[os.fsencode(name)]
        if self.env is not None:
            raise ConfigError(
                f"secret {self.id} cannot be read: there is no variable {self.env}", remedy=f"Set {self.env}."
            )
        path = self.id if self.file is None else self.file
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise self._refusal(path, error.errno or errno.EIO) from None

    def require(self) -> None:
        """Raises `ConfigError` if it cannot be read, as `read` does, which may be later. Nothing is taken of a pipe."""
        is_variable = self.file is None and os.fsencode(self.env or self.id) in os.environb
        if self.value is not None or is_variable:
            return
        if self.env is not None:
            self.read()
        path = self.id if self.file is None else self.file
        try:
            is_folder = stat.S_ISDIR(os.stat(path).st_mode)
        except OSError as error:
            raise self._refusal(path, error.errno or errno.EIO) from None
        if is_folder or not os.access(path, os.R_OK):
            raise self._refusal(path, errno.EISDIR if is_folder else errno.EACCES)

    def _refusal(self, path: str, number: int) -> ConfigError:
        return ConfigError(
            f"secret {self.id} cannot be read from {path}: {os.strerror(number)}",
            remedy="Name a file that is there (src=FILE), or a variable (env=NAME).",
            path=path,
            errno=number,
        )


@frozen
class Ssh:
    """`--ssh ID[=SOCKET|KEY,…]`: the agent of this user (SSH_AUTH_SOCK), a socket of another one, or keys."""

    id: str = "default"
    paths: tuple[str, ...] = ()


def _is_export(_: object, __: object, value: str) -> None:
    if value not in EXPORTS:
        raise ConfigError(f"there is no output of type {value!r}", remedy=f"The types are {', '.join(EXPORTS)}.")


@frozen
class Export:
    """`--output`: what becomes of the image. `dest` is a path of this machine, or `-` for standard output.

    `cacheonly`: nothing; its steps are remembered.
    """

    kind: Literal["image", "oci", "docker", "tar", "local", "cacheonly"] = field(default="image", validator=_is_export)
    dest: str | None = field(default=None, converter=_text_of)
    names: tuple[str, ...] = ()
    """What the image is called there; the tags of the build where there are none."""
    push: bool = False
    rewrite_timestamp: bool = False
    """BuildKit's. Here new layers have no later times than SOURCE_DATE_EPOCH in any case, and layers of bases stay."""


def _is_network(_: object, __: object, value: str) -> None:
    if value not in ("default", "host", "none"):
        raise ConfigError(f"network mode {value!r} is not supported by a build", remedy="It is default, host or none.")


ALLOWED = ("network.host", "security.insecure")


def _are_allowed(_: object, __: object, values: tuple[str, ...]) -> None:
    for value in values:
        if value not in ALLOWED:
            raise ConfigError(f"{value!r} is nothing that RUN can ask for", remedy=f"There are {', '.join(ALLOWED)}.")


@frozen
class BuildOptions:
    """All that `build` can be told beside the store, the context and who listens."""

    file: str | None = field(default=None, converter=_text_of)
    """The Dockerfile, relative to the context if it is a remote one; `-` is standard input; None: `Containerfile`, else
    `Dockerfile`."""
    tags: tuple[str, ...] = ()
    target: str | None = None
    """The stage to be built, by its name or number; None is the last one."""
    build_args: Mapping[str, str] = {}
    contexts: Mapping[str, str] = {}
    """Named contexts: a folder, a URL, `docker-image://NAME`, `oci-layout://FOLDER[:TAG][@DIGEST]`."""
    secrets: tuple[Secret, ...] = ()
    ssh: tuple[Ssh, ...] = ()
    platform: str | None = None
    """`linux/arm64`; None is this machine's."""
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    """The stages that are built anew."""
    pull: bool = False
    """Look whether registries have newer base images."""
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    outputs: tuple[Export, ...] = (Export(),)
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    """Of the manifests that outputs make: OCI archives and layouts, and what is pushed. There has to be one."""
    squash: bool = False
    network: str = field(default="default", validator=_is_network)
    """Of all RUN that say nothing themselves: `default`, `host` or `none`."""
    allow: tuple[str, ...] = field(default=(), validator=_are_allowed)
    """What RUN may ask for beyond the usual: `network.host`, `security.insecure`."""
    add_hosts: tuple[str, ...] = ()
    shm_size: int | None = None
    ulimits: tuple[str, ...] = ()
    """`NAME=SOFT[:HARD]`."""
    cgroup_parent: str = ""
    runtime: str | None = None
    """What runs the programs, as in `RunOptions`."""
    source_date_epoch: int | Literal["context"] | None = None
    """Seconds since 1970; None: what the variable SOURCE_DATE_EPOCH says, in the arguments or in the environment."""
    verify: bool = False
    """Do each step twice, and fail if that is not the same; times are those of the beginning then, or as asked for."""
    on_failure: Literal["remove", "shell", "checkpoint"] = "remove"
    """What becomes of the container whose program failed: it is removed, or left with a name, as it was then."""
