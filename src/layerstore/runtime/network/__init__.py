"""How a container is connected: as the host, not at all, as another container, or by a program in user space.

`mode` says what `--network` means, `ports` which ports are published, `slirp4netns` and `pasta` how these programs are
told, `link` starts one beside a container and ends it, `usable` tells which of them work here, `addresses` what it has
come to. A bridge is not made: it takes a daemon that owns addresses, firewall rules and names, which are the host's and
not a store's.
"""

from layerstore.runtime.network.kind import Kind
from layerstore.runtime.network.mode import Mode, parse

__all__ = ["Kind", "Mode", "parse"]
