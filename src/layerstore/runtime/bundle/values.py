"""What a bundle is made of beside an image's config and the options: values alone."""

from __future__ import annotations

from collections.abc import Mapping

from layerstore.values import frozen

__all__ = ["Bind", "Network", "Place"]


@frozen
class Bind:
    """A folder or file of the host that is seen in the container: a bind, a volume, the tree of an image."""

    source: str
    """An absolute path of the host."""
    target: str
    read_only: bool = False
    recursive: bool = True
    """Mounts below `source` are seen, too."""
    propagation: str = ""
    """`private`, `slave`, `shared`, each with `r` before it or not; "" is `rprivate`."""


@frozen
class Network:
    """How a container is connected. `namespace`: None is the host's, "" a new one, else the path of one."""

    namespace: str | None = None
    address: str = ""
    """The container's own address, if it has one that others can reach."""
    gateway: str = ""
    """The address by which it reaches the host: what `host-gateway` of `--add-host` means."""
    nameservers: tuple[str, ...] = ()
    """Those that it can reach, if the host's are not among them."""
    joined: bool = False
    """The namespace is another container's, and so are its name and its files in /etc:"""
    files: Mapping[str, str] = {}
    """what these say there, by `hosts`, `hostname` and `resolv.conf`."""


@frozen
class Place:
    """Where a container runs.

    `root` is the path of its tree as the runtime will see it, `tree` a descriptor of it as it can be read now. `files`
    is the folder that has its `hosts`, `hostname` and `resolv.conf`; None: it sees those of its image. `cgroup` is the
    path of its cgroup, or `slice:prefix:name` where systemd keeps them; "" is `<parent>/<id>`. `namespaces` are those
    that it shares, as paths, by their kind (`pid`, `ipc`, `uts`); "" is the host's. `shm` is the folder that is its
    /dev/shm if that is shared.
    """

    id: str
    root: str
    tree: int
    files: str | None = None
    network: Network = Network()
    cgroup: str = ""
    namespaces: Mapping[str, str] = {}
    shm: str = ""
