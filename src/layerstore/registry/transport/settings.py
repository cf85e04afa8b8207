"""What daemon.json and the environment say of registries, as values. Whoever talks to one is given these."""

from __future__ import annotations

import os
from pathlib import Path

from attrs import field

from layerstore.access import Access
from layerstore.config import Config, Proxies
from layerstore.limits import Limits
from layerstore.values import frozen

__all__ = ["Settings"]

_AS_MANY_AS_THERE_ARE = 64


def _certificate_folders() -> tuple[Path, ...]:
    """Where docker's and containers/image's certs.d are. The user's own comes first, as in containers/image."""
    home = os.environ.get("HOME")
    own = (Path(home, ".config/containers/certs.d"),) if home and os.path.isabs(home) else ()
    return (*own, Path("/etc/containers/certs.d"), Path("/etc/docker/certs.d"))


@frozen
class Settings:
    """How registries are reached. Times are seconds."""

    insecure: tuple[str, ...] = ()
    """daemon.json's `insecure-registries`."""
    mirrors: tuple[str, ...] = ()
    """daemon.json's `registry-mirrors`: base URLs, asked in this order before Docker Hub."""
    downloads: int = 3
    uploads: int = 5
    attempts: int = 5
    """How often one request is made before its failure is an error: at least 1."""
    proxies: Proxies = field(factory=Proxies)
    limits: Limits = field(factory=Limits)
    certificate_folders: tuple[Path, ...] = ()
    """Folders as docker's certs.d; the first in which a registry has a folder counts."""
    verify: bool | None = None
    """False: no certificate is checked, and plain HTTP is tried, for any registry (skopeo's --tls-verify=false).
    True: certificates of all are checked. None: as `insecure` says, as docker."""
    heeds_policy: bool = False
    """What registries.conf and policy.json forbid is not pulled, and what is, from where registries.conf says."""
    access: Access = field(factory=Access)
    """Credentials and certificates of one call."""
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    """How long a server may be silent, and how long the head of its reply may take in all."""
    slowest: int = 256
    """Bytes per second that a server has to send over any `read_timeout` while it is waited for."""
    pause: float = 0.5
    """Before the first repetition of a request; doubled with each, and jittered."""
    longest_pause: float = 60.0
    """The longest that a registry's Retry-After is heeded; a longer one is an error that says until when."""
    unrelated_timeout: float = 5.0
    """For what only saves a connection: reading the rest of a reply that nobody wants."""

    @classmethod
    def of(cls, config: Config, *, verify: bool | None = None) -> Settings:
        """The settings of a daemon.json, with certs.d where docker and containers/image have it."""
        from layerstore.registry.transport.registries import insecure_hosts

        return cls(
            insecure=(*config.insecure_registries, *(() if config.ignore_policy else insecure_hosts())),
            heeds_policy=not config.ignore_policy,
            mirrors=tuple(url.rstrip("/") for url in config.registry_mirrors),
            downloads=config.max_concurrent_downloads or _AS_MANY_AS_THERE_ARE,
            uploads=config.max_concurrent_uploads or _AS_MANY_AS_THERE_ARE,
            attempts=config.max_download_attempts,
            proxies=config.proxies,
            limits=config.limits,
            certificate_folders=_certificate_folders(),
            verify=config.access.verify if verify is None else verify,
            access=config.access,
        )
