"""The ways to connect a container."""

from __future__ import annotations

from enum import Enum

__all__ = ["Kind"]


class Kind(Enum):
    """How a container is connected."""

    HOST = "host"
    """It has the host's network."""
    NONE = "none"
    """It has a loopback device alone."""
    CONTAINER = "container"
    """It has another container's network."""
    PASTA = "pasta"
    """By `pasta`, which copies the host's addresses."""
    SLIRP = "slirp4netns"
    """By `slirp4netns`, which has addresses of its own (10.0.2.0/24)."""

    @property
    def is_own(self) -> bool:
        """Has the container a network of its own that reaches out, whose ports can be published?"""
        return self in (Kind.PASTA, Kind.SLIRP)
