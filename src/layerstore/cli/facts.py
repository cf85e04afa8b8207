"""What `layerstore version` says, from the standard library's cheapest parts."""

from __future__ import annotations

import os
import sys

from layerstore import __version__
from layerstore.architectures import in_go


def version() -> dict[str, str]:
    """The facts of `version`, by the names that templates use."""
    machine = os.uname()
    return {
        "Version": __version__,
        "PythonVersion": ".".join(map(str, sys.version_info[:3])),
        "Os": machine.sysname.lower(),
        "Arch": in_go(machine.machine)[0],
        "KernelVersion": machine.release,
    }


def version_line() -> str:
    """What `layerstore --version` prints."""
    return f"layerstore version {__version__}"


def version_text() -> str:
    """What `layerstore version` prints, laid out as docker does."""
    facts = version()
    lines = {
        "Version": facts["Version"],
        "Python version": facts["PythonVersion"],
        "Kernel version": facts["KernelVersion"],
        "OS/Arch": f"{facts['Os']}/{facts['Arch']}",
    }
    return "\n".join(["layerstore:", *(f" {name + ':':<18}{value}" for name, value in lines.items())])
