"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container: texts, which are mounted and never in a layer."""

from __future__ import annotations

import os
from collections.abc import Mapping

from layerstore import ConfigError
from layerstore.runtime.bundle.host import HostFacts
from layerstore.runtime.bundle.values import Network
from layerstore.runtime.options import RunOptions

__all__ = ["NAMES", "hostname_of", "texts", "write"]

NAMES = ("hosts", "hostname", "resolv.conf")

_LOOPBACK = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hostname_of(options: RunOptions, host: HostFacts, id: str, network: Network) -> str:
    """The container's name for itself: what was asked for, the host's if its network is, else 12 digits of its ID."""
    if options.uts == "host":
        if options.hostname is not None:
            raise ConfigError(
                "conflicting options: hostname and the UTS mode", remedy="Leave out --hostname, or --uts host."
            )
        return host.name
    if network.joined:
        _require_own(options.hostname, "hostname and the network mode", "--hostname")
        return network.files.get("hostname", "").strip() or id[:12]
    if options.hostname is not None:
        return options.hostname
    return host.name if network.namespace is None else id[:12]


def texts(options: RunOptions, host: HostFacts, id: str, network: Network) -> Mapping[str, str]:
    """The three files, by their names in /etc. Raises `ConfigError` for a host or server that is no address."""
    hostname = hostname_of(options, host, id, network)
    if network.joined:
        dns = options.dns or options.dns_search or options.dns_options
        _require_own(dns, "dns and the network mode", "--dns")
        _require_own(options.add_hosts, "custom host-to-IP mapping and the network mode", "--add-host")
        return {"hosts": _LOOPBACK, "resolv.conf": "", **network.files, "hostname": f"{hostname}\n"}
    return {
        "hosts": _hosts(options, host, hostname, network),
        "hostname": f"{hostname}\n",
        "resolv.conf": _resolv_conf(options, host, network),
    }


def write(folder: int, files: Mapping[str, str]) -> None:
    """Write them into a folder, which is a descriptor; they can be read by all."""

    def opened(name: str, flags: int) -> int:
        return os.open(name, flags, 0o644, dir_fd=folder)

    for name, text in files.items():
        with open(name, "w", encoding="utf-8", errors="surrogateescape", opener=opened) as file:
            os.fchmod(file.fileno(), 0o644)
            file.write(text)


def _require_own(given: object, words: str, flag: str) -> None:
    """What belongs to another container cannot be told for this one."""
    if given:
        raise ConfigError(
            f"conflicting options: {words}", remedy=f"Leave out {flag}: it is as in the container whose network it is."
        )


def _hosts(options: RunOptions, host: HostFacts, hostname: str, network: Network) -> str:
    shared = network.namespace is None
    text = (host.hosts if shared else "") or _LOOPBACK
    if not text.endswith("\n"):
        text += "\n"
    for entry in options.add_hosts:
        name, separator, address = entry.partition("=")
        if not separator:
            name, _, address = entry.partition(":")
        address = address.strip("[]")
        if address == "host-gateway":
            address = network.gateway or ("127.0.0.1" if shared else "")
            if not address:
                raise ConfigError(
                    "unable to derive the IP value for host-gateway: this container's network does not reach the host",
                    remedy="Leave --add-host out, or choose another --network.",
                )
        if not name or not _is_address(address):
            raise ConfigError(f"invalid IP address in add-host: {address!r}", remedy="Give --add-host NAME:ADDRESS.")
        text += f"{address}\t{name}\n"
    if not shared or options.hostname is not None:
        full = f"{hostname}.{options.domainname} {hostname}" if options.domainname else hostname
        # Debian's line for who has a name and no address of their own.
        text += f"{network.address or '127.0.1.1'}\t{full}\n"
    return text


def _resolv_conf(options: RunOptions, host: HostFacts, network: Network) -> str:
    """The host's, without servers that this container cannot reach; what the options say instead of its parts."""
    source, private = host.resolv_conf, network.namespace is not None
    if private and host.stub_resolv_conf and not _reachable(_values(source, "nameserver")):
        source = host.stub_resolv_conf
    servers = _values(source, "nameserver")
    if options.dns:
        for server in options.dns:
            if not _is_address(server):
                raise ConfigError(f"{server!r} is not an ip address", remedy="Give --dns the address of a server.")
        servers = list(options.dns)
    elif network.nameservers:
        servers = list(network.nameservers)
    elif private:
        servers = _reachable(servers)
    search = options.dns_search or tuple(_values(source, "search")) or tuple(_values(source, "domain"))
    search = () if "." in search else search  # docker's word for none
    flags = options.dns_options or tuple(_values(source, "options"))
    lines = [f"nameserver {server}" for server in servers]
    lines += [f"search {' '.join(search)}"] if search else []
    lines += [f"options {' '.join(flags)}"] if flags else []
    return "".join(f"{line}\n" for line in lines)


def _values(text: str, keyword: str) -> list[str]:
    """What a keyword is followed by. Of `search` and `domain`, the last line counts; the others add up."""
    lines = [words[1:] for line in text.splitlines() if (words := line.split()) and words[0] == keyword and words[1:]]
    if keyword in ("search", "domain"):
        lines = lines[-1:]
    return [word for words in lines for word in words]


def _reachable(servers: list[str]) -> list[str]:
    return [server for server in servers if not _is_loopback(server)]


def _is_loopback(server: str) -> bool:
    import ipaddress  # as long as all else here, and most containers need none of it

    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return True
