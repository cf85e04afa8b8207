"""One volume, as its users hold it; what a container is to have, and what it has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerstore.driver import Usage, usage_of
from layerstore.images.config import timestamp
from layerstore.values import frozen
from layerstore.volumes import backing
from layerstore.volumes.backing import VolumeMount
from layerstore.volumes.rows import Made
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.volumes.volumes import Volumes

ANONYMOUS = "com.docker.volume.anonymous"
"""The label that docker gives to a volume that nobody named."""

DATA = "_data"
"""In a volume's folder: what containers see."""


@frozen
class Attachment:
    """What a container is to have: a volume at a place. `volume` None is a new one that has no name.

    A volume that is not there is made. One that is empty is given what the image has at that place, with the folder's
    owner and mode, unless `no_copy`.
    """

    target: str
    volume: str | None = None
    read_only: bool = False
    no_copy: bool = False


@in_words("volume {0.name}")
class Volume:
    """A volume. Its facts are those of when it was looked up, and never change."""

    def __init__(self, volumes: Volumes, made: Made) -> None:
        self._volumes = volumes
        self._made = made

    @property
    def name(self) -> str:
        """Its name; of an anonymous one 64 hex digits."""
        return self._made.name

    @property
    def is_anonymous(self) -> bool:
        """Was it made for one container, without a name?"""
        return self._made.anonymous

    @property
    def created(self) -> str:
        """When it was made, as RFC 3339 has it."""
        return timestamp(self._made.created)

    @property
    def labels(self) -> Mapping[str, str]:
        """Its labels; of an anonymous one docker's label for that is among them."""
        return {**({ANONYMOUS: ""} if self.is_anonymous else {}), **self._made.labels}

    @property
    def driver(self) -> str:
        """`local`."""
        return backing.DRIVER

    @property
    def options(self) -> Mapping[str, str]:
        """What it was made with: `type`, `device`, `o`, `size`."""
        return self._made.options

    @property
    def size_limit(self) -> int | None:
        """How many bytes it may hold."""
        return backing.size_of(self._made.options)

    @property
    def mountpoint(self) -> Path:
        """Its folder on the host: `<data-root>/volumes/<name>/_data`."""
        return self._volumes.folder / self.name / DATA

    @property
    def mount(self) -> VolumeMount:
        """How a container gets it. Raises `ConfigError` if it lies on a host whose address cannot be found."""
        return backing.mount_of(self._made.options, self.mountpoint)

    @property
    def containers(self) -> list[str]:
        """The names of the containers that use it, the oldest first."""
        return [name for _, name in self._volumes.users(self.name)]

    def usage(self) -> Usage:
        """What its folder occupies. A device that stands for it does not count."""
        return usage_of(self.mountpoint)

    def remove(self) -> None:
        """Remove it with all that is in it. Raises `InUse`, `NotFound`."""
        self._volumes.remove(self.name)

    def inspect(self) -> dict[str, Any]:
        """What is known of it, in docker's words."""
        return {
            "CreatedAt": self.created,
            "Driver": self.driver,
            "Labels": dict(self.labels) or None,
            "Mountpoint": str(self.mountpoint),
            "Name": self.name,
            "Options": dict(self.options) or None,
            "Scope": "local",
        }

    def __repr__(self) -> str:
        return f"<Volume {self.name}>"


@frozen
class Use:
    """What a container has: a volume at a place of its tree."""

    target: str
    volume: Volume
    read_only: bool

    def inspect(self) -> dict[str, Any]:
        """It in docker's words, one of `Mounts` of a container."""
        return {
            "Type": "volume",
            "Name": self.volume.name,
            "Source": str(self.volume.mountpoint),
            "Destination": self.target,
            "Driver": self.volume.driver,
            "Mode": "ro" if self.read_only else "",
            "RW": not self.read_only,
            "Propagation": "",
        }
