"""What the options of docker's driver `local` mean: a filesystem that stands for the volume's own folder, and a size.

Pure but for one thing: the name of an NFS server is looked up, for the kernel takes numbers only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from layerstore import options as converters
from layerstore.errors import ConfigError
from layerstore.values import frozen

__all__ = ["VolumeMount", "checked", "mount_of", "size_of"]

DRIVER = "local"
"""The only driver."""

_NEEDS = {"type": ("device",), "device": ("type",), "o": ("device", "type"), "size": ()}
"""The options that there are, and which others each of them takes, as docker's driver has it."""


@frozen
class VolumeMount:
    """How a container gets a volume, in the words of a runtime's `mounts`: `type`, `source` and `options`.

    Mostly a bind mount of the volume's folder. A volume with a `device` is mounted by each container for itself, in its
    own mount namespace, so nothing of it is left when the container ends.
    """

    type: str
    source: str
    options: tuple[str, ...] = ()


def checked(driver: str, options: Mapping[str, str]) -> dict[str, str]:
    """The options of a new volume, if they can be had. Raises `ConfigError`."""
    if driver != DRIVER:
        raise ConfigError(
            f"there is no volume driver {driver!r}",
            remedy="Volumes are folders of this store, as docker's driver `local` makes them: leave the driver out.",
        )
    for name in options:
        if name not in _NEEDS:
            raise ConfigError(
                f"volumes have no option {name!r}",
                remedy="There are type, device and o, as mount(8) has them, and size.",
            )
    for name in options:
        for other in _NEEDS[name]:
            if not options.get(other):
                raise ConfigError(
                    f"the option {name} of a volume needs the option {other}", remedy=f"Give {other}, too."
                )
    size = size_of(options)
    if size is not None and "device" in options:
        raise ConfigError(
            "the size of a device cannot be limited", remedy="Give the size to what mounts it: of a tmpfs, o=size=100m."
        )
    return dict(options)


def size_of(options: Mapping[str, str]) -> int | None:
    """The limit in bytes. Raises `ConfigError`."""
    try:
        size = converters.size(options.get("size"))
    except ValueError as error:
        raise ConfigError(f"{options['size']!r} is not {error}") from None
    if size == 0:
        raise ConfigError("a volume of size 0 could hold nothing", remedy="Give the bytes that it may hold, as 10G.")
    return size


def mount_of(options: Mapping[str, str], folder: Path) -> VolumeMount:
    """How a volume with these options is mounted; `folder` is its own."""
    if "device" not in options:
        return VolumeMount("bind", str(folder), ("rbind",))
    words = tuple(_resolved(word) for word in options.get("o", "").split(",") if word)
    kind = options["type"]
    if "bind" in words or "rbind" in words:
        kind = "bind"
    return VolumeMount(kind, options["device"], words)


def _resolved(word: str) -> str:
    """`addr=` with the number of a host that has a name."""
    name, _, host = word.partition("=")
    if name != "addr":
        return word
    import socket  # for the one kind of volume that has a host, not for every command

    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(
            f"the address of {host}, on which a volume lies, cannot be found: {error.args[-1]}",
            remedy="Name it by its number (addr=192.0.2.1), or see to it that the name can be looked up.",
        ) from None
    return f"addr={found[0][4][0]}"
