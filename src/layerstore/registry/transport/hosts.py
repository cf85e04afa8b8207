"""Where a registry is: its URL, the mirrors that are asked before it, and how far its word is trusted.

The rules are docker's (moby, daemon/pkg/registry: config.go and service_v2.go): HTTPS with a checked certificate; but
what `insecure-registries` or loopback addresses cover is not checked, and may speak plain HTTP.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from attrs import evolve

from layerstore.errors import ConfigError
from layerstore.reference import HUB, Reference, registry_at
from layerstore.registry.transport import registries
from layerstore.registry.transport.settings import Settings
from layerstore.values import frozen

__all__ = [
    "HUB",
    "Endpoint",
    "Source",
    "Trust",
    "certificates_of",
    "endpoints",
    "is_insecure",
    "sources",
    "tls_context",
]

_HUB_HOST = "registry-1.docker.io"
_LOOPBACK = ("127.0.0.0/8", "::1/128")


@frozen
class Endpoint:
    """One server that has a registry's content.

    `registry` is the host that names of images have (`docker.io`), `base` the URL before `/v2/`. Without `verify` its
    certificate is not checked; where it is `plain`, HTTP is spoken where the server knows no HTTPS.
    """

    registry: str
    base: str
    verify: bool = True
    plain: bool = False
    is_mirror: bool = False

    @property
    def host(self) -> str:
        """`registry-1.docker.io`, `localhost:5000`: the part of the URL that says which server."""
        return urlsplit(self.base).netloc

    @property
    def name(self) -> str:
        """What it is called in messages, and what credentials for it are kept under."""
        return self.host if self.is_mirror else self.registry


def endpoints(settings: Settings, registry: str) -> tuple[Endpoint, ...]:
    """Where `registry` is read from: mirrors first, the registry itself last. Only the last is ever written to."""
    found = []
    if registry == HUB:
        for url in settings.mirrors:
            is_free = is_insecure(settings, urlsplit(url).netloc)
            # A mirror's scheme is what its URL says: who writes http:// means it.
            found.append(Endpoint(registry, url, verify=not is_free, plain=url.startswith("http://"), is_mirror=True))
    host = _HUB_HOST if registry == HUB else registry
    is_free = is_insecure(settings, registry)
    return (*found, Endpoint(registry, f"https://{host}", verify=not is_free, plain=is_free))


@frozen
class Source:
    """Where a repository is read from: a server, and the repository's name there."""

    endpoint: Endpoint
    path: str


def sources(settings: Settings, wanted: Reference, *, is_image: bool = True) -> tuple[Source, ...]:
    """Where an image is read from: mirrors first, what is no mirror last; where registries.conf says, if it does.

    `is_image`: see `registries.places_of`. Raises `ConfigError`.
    """
    own = endpoints(settings, wanted.domain)
    places = registries.places_of(wanted, is_image=is_image) if settings.heeds_policy else None
    if places is None:
        return tuple(Source(endpoint, wanted.path) for endpoint in own)
    found = [Source(endpoint, wanted.path) for endpoint in own[:-1]]
    for place in places:
        endpoint = endpoints(settings, place.domain)[-1]
        if place.insecure and settings.verify is None:
            endpoint = evolve(endpoint, verify=False, plain=True)
        found.append(Source(endpoint, place.path))
    return tuple(found)


def is_insecure(settings: Settings, registry: str) -> bool:
    """Whether `registry` (`host` or `host:port`) need not prove who it is, as docker decides it.

    Networks of `insecure-registries` are compared with the addresses that the name has; loopback is always in them.
    """
    if settings.verify is not None:
        return not settings.verify
    networks = []
    for entry in settings.insecure:
        name = entry.removeprefix("http://").removeprefix("https://")
        try:
            networks.append(ipaddress.ip_network(name, strict=False) if "/" in name else None)
        except ValueError:
            raise ConfigError(
                f"insecure-registries: {entry!r} is neither a host nor a network",
                remedy="A host looks like registry.example:5000, a network like 10.0.0.0/8.",
            ) from None
        if name.lower() == registry.lower():
            return True
    wanted = [network for network in networks if network is not None]
    host = _host_of(registry)
    if host.lower() == "localhost":
        return True
    addresses = _addresses(host, ask=bool(wanted))
    covering = (*wanted, *map(ipaddress.ip_network, _LOOPBACK))
    return any(address in network for address in addresses for network in covering)


def certificates_of(settings: Settings, host: str) -> Path | None:
    """The folder with certificates for `host` (`registry.example:5000`), where there is one."""
    if settings.access.certificates is not None and registry_at(host) == registry_at(settings.access.host):
        return settings.access.certificates
    for folder in settings.certificate_folders:
        own = folder / host
        if own.is_dir():
            return own
    return None


@frozen
class Trust:
    """What TLS with a host rests on. Hosts with equal ones can share a context: to read the authorities takes 10 ms."""

    verify: bool
    own: Path | None
    """The host's folder in certs.d."""
    registry: Path | None
    """That of the registry on whose behalf the host is talked to: its authorities hold for its token service and for
    where it redirects to, as in docker."""

    @classmethod
    def of(cls, settings: Settings, host: str, registry_host: str, *, verify: bool) -> Trust:
        """What is known of `host` when it is talked to for `registry_host`."""
        registry = None if host == registry_host else certificates_of(settings, registry_host)
        return cls(verify, certificates_of(settings, host), registry)


def tls_context(trust: Trust) -> ssl.SSLContext:
    """How TLS is spoken: with the system's authorities, and what certs.d has.

    `*.crt` there are authorities, `NAME.cert` with `NAME.key` is shown to the server. Raises `ConfigError` for files
    that are none.
    """
    if trust.verify:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for folder in (trust.registry, trust.own):
        for file in () if folder is None else sorted(folder.iterdir()):
            if file.suffix == ".crt" or folder == trust.own:
                _load(context, file)
    return context


def _load(context: ssl.SSLContext, file: Path) -> None:
    try:
        if file.suffix == ".crt":
            context.load_verify_locations(file)
        elif file.suffix == ".cert":
            context.load_cert_chain(file, _key_of(file), password=_no_password)
        elif file.suffix == ".key" and not file.with_suffix(".cert").exists():
            raise ConfigError(
                f"{file}: there is no certificate to this key",
                remedy=f"Put it beside as {file.with_suffix('.cert').name}: .crt is for authorities.",
                path=file,
            )
    except (OSError, ValueError) as error:  # SSLError is an OSError
        raise ConfigError(
            f"{file}: {getattr(error, 'reason', None) or getattr(error, 'strerror', None) or error}",
            remedy="It has to be readable, and PEM: a certificate, or the key that belongs to it, unencrypted.",
            path=file,
        ) from None


def _key_of(certificate: Path) -> Path:
    key = certificate.with_suffix(".key")
    if not key.exists():
        raise ConfigError(
            f"{certificate}: there is no key to this certificate",
            remedy=f"Put it beside as {key.name}; an authority's certificate ends in .crt.",
            path=certificate,
        )
    return key


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def _host_of(registry: str) -> str:
    if registry.startswith("["):
        return registry[1:].partition("]")[0]
    return registry.partition(":")[0]


def _addresses(host: str, *, ask: bool) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """What `host` is; the name service is asked only where that decides something."""
    try:
        return [ipaddress.ip_address(host)]
    except ValueError:
        pass
    if not ask:
        return []
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
