"""A bundle's config.json, by docker's defaults and the OCI runtime spec: pure functions over values.

`make` puts it together of what its neighbours say: `process` (with `users`, `capabilities`), `mounting`, `devices`,
`resources`, `security` (with `seccomp`, and `calls` as data), `etc`. `host` reads the facts of the machine,
`values` are what else has to be known; `traces` are the mount points that a tree lacks, `program` tells whether it has
the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerstore.imports import on_demand

if TYPE_CHECKING:
    from layerstore.runtime.bundle.beneath import text as text_of
    from layerstore.runtime.bundle.etc import NAMES as FILES
    from layerstore.runtime.bundle.etc import texts, write
    from layerstore.runtime.bundle.host import HostFacts, Node
    from layerstore.runtime.bundle.host import read as read_host
    from layerstore.runtime.bundle.length import require as require_short
    from layerstore.runtime.bundle.making import make
    from layerstore.runtime.bundle.process import command, directory, for_exec
    from layerstore.runtime.bundle.program import unfit as unfit_program
    from layerstore.runtime.bundle.traces import Trace, plan_folder, resolve
    from layerstore.runtime.bundle.traces import erase as erase_traces
    from layerstore.runtime.bundle.traces import make as make_traces
    from layerstore.runtime.bundle.traces import plan as plan_traces
    from layerstore.runtime.bundle.users import User
    from layerstore.runtime.bundle.users import find as find_user
    from layerstore.runtime.bundle.values import Bind, Network, Place

__all__ = [
    "FILES",
    "Bind",
    "HostFacts",
    "Network",
    "Node",
    "Place",
    "Trace",
    "User",
    "command",
    "directory",
    "erase_traces",
    "find_user",
    "for_exec",
    "make",
    "make_traces",
    "plan_folder",
    "plan_traces",
    "read_host",
    "require_short",
    "resolve",
    "text_of",
    "texts",
    "unfit_program",
    "write",
]

__getattr__ = on_demand(
    __name__,
    {
        "beneath": ("text as text_of",),
        "etc": ("NAMES as FILES", "texts", "write"),
        "host": ("HostFacts", "Node", "read as read_host"),
        "making": ("make",),
        "length": ("require as require_short",),
        "process": ("command", "directory", "for_exec"),
        "program": ("unfit as unfit_program",),
        "traces": (
            "Trace",
            "resolve",
            "erase as erase_traces",
            "make as make_traces",
            "plan as plan_traces",
            "plan_folder",
        ),
        "users": ("User", "find as find_user"),
        "values": ("Bind", "Network", "Place"),
    },
)
