"""What one call says of registries: podman's `--creds`, `--authfile`, `--tls-verify`, `--cert-dir`. Values alone."""

from __future__ import annotations

from pathlib import Path

from attrs import field

from layerstore.values import frozen

__all__ = ["Access"]


@frozen
class Access:
    """How registries are reached by one call, beside what a daemon.json says for all of them.

    What goes on when that call has ended, as lazy layers do, knows nothing of it.
    """

    verify: bool | None = None
    """`--tls-verify`: False checks no certificate and may speak plain HTTP, True checks all; None: as the file says."""
    auth_file: Path | None = None
    """`--authfile`: looked into for credentials, and nothing else is."""
    host: str = ""
    """The registry that what follows is for, and no other: `registry.example:5000`."""
    username: str = ""
    password: str = field(default="", repr=False)
    """`--creds`, in the place of whatever is kept."""
    certificates: Path | None = None
    """`--cert-dir`: a folder as that of one host in certs.d, in its place."""
