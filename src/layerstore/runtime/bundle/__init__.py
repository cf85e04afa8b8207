"""A bundle's config.json, by docker's defaults and the OCI runtime spec: pure functions over values.

`make` puts it together of what its neighbours say: `process` (with `users`, `capabilities`), `mounting`, `devices`,
`resources`, `security` (with `seccomp`, and `calls` as data), `etc`. `host` reads the facts of the machine,
`values` are what else has to be known.
"""

from layerstore.runtime.bundle.etc import texts, write
from layerstore.runtime.bundle.host import HostFacts, Node
from layerstore.runtime.bundle.host import read as read_host
from layerstore.runtime.bundle.making import make
from layerstore.runtime.bundle.process import command, for_exec
from layerstore.runtime.bundle.users import User
from layerstore.runtime.bundle.users import find as find_user
from layerstore.runtime.bundle.values import Bind, Network, Place

__all__ = [
    "Bind",
    "HostFacts",
    "Network",
    "Node",
    "Place",
    "User",
    "command",
    "find_user",
    "for_exec",
    "make",
    "read_host",
    "texts",
    "write",
]
