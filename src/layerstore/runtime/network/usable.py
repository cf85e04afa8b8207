"""Which of the programs that connect a container can be used here: looked for, not tried."""

from __future__ import annotations

import os

from layerstore.runtime.network.kind import Kind

__all__ = ["first", "program", "refusal"]

_PACKAGES = {Kind.PASTA: "passt", Kind.SLIRP: "slirp4netns"}
_TUN = "/dev/net/tun"


def first() -> Kind:
    """The program to take where none was named: slirp4netns, which ends with its container by itself, else pasta."""
    return Kind.PASTA if program(Kind.SLIRP) is None and program(Kind.PASTA) is not None else Kind.SLIRP


def program(kind: Kind) -> str | None:
    """Where the program is."""
    import shutil  # few containers have a network of their own

    return shutil.which(kind.value, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def refusal(kind: Kind) -> tuple[str, str] | None:
    """Why a program cannot be used here, and the remedy; None if nothing is known against it."""
    if not kind.is_own:
        return None
    if program(kind) is None:
        return f"{kind.value} is not installed", f"Install it: `apt-get install {_PACKAGES[kind]}`."
    if not os.path.exists(_TUN):
        return f"there is no {_TUN}, which {kind.value} needs", "Load the kernel's module: `modprobe tun`."
    if not os.access(_TUN, os.R_OK | os.W_OK):
        return f"{_TUN} cannot be opened", "Run as root, or have its permissions changed (chmod 666)."
    return None
