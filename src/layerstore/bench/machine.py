"""Facts about the machine, the filesystem and the programs: what the figures depend on. Nothing is changed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from layerstore.kernel.files import can_reflink, filesystem_type

__all__ = ["facts", "filesystem"]

_GIB: Final = 1 << 30


def facts() -> dict[str, str]:
    """The machine and the versions, for people."""
    from layerstore import __version__

    found = {
        "kernel": platform.release(),
        "system": _system(),
        "processor": _processor(),
        "cores": str(os.cpu_count() or 1),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / _GIB:.0f} GiB",
        "load": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "layerstore": __version__,
        "python": platform.python_version(),
    }
    for tool in ("tar", "cp"):
        found[tool] = _version(tool)
    return found


def filesystem(folder: Path) -> dict[str, str]:
    """The filesystem that a folder lies on."""
    room = os.statvfs(folder)
    mountpoint, source, options = _mount_of(folder)
    return {
        "type": filesystem_type(folder),
        "folder": str(folder.parent),
        "mounted at": mountpoint,
        "device": source,
        "medium": _medium(folder),
        "options": options,
        "size": f"{room.f_blocks * room.f_frsize / _GIB:.1f} GiB",
        "free": f"{room.f_bavail * room.f_frsize / _GIB:.1f} GiB",
        "shares blocks": "yes" if can_reflink(folder) else "no",
    }


def _system() -> str:
    with suppress(OSError):
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    return "Linux"


def _processor() -> str:
    with suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.machine()


def _version(tool: str) -> str:
    try:
        text = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return "not installed"
    return text.splitlines()[0].strip() if text else "unknown"


def _mount_of(folder: Path) -> tuple[str, str, str]:
    """Mountpoint, device, and options, as the kernel tells them."""
    real = os.path.realpath(folder)
    best = ("/", "unknown", "")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as table:
        for line in table:
            fields, _, rest = line.rstrip("\n").partition(" - ")
            place = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields.split(" ")[4])
            kind, source, options = [*rest.split(" "), "", "", ""][:3]
            if (real == place or real.startswith(place.rstrip("/") + "/")) and len(place) >= len(best[0]) and kind:
                best = (place, source, f"{fields.split(' ')[5]} {options}".strip())
    return best


def _medium(folder: Path) -> str:
    """What kind of device it is, as far as the kernel knows."""
    number = os.stat(folder).st_dev
    place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not place.exists():
        # btrfs and the like have numbers of their own: their device is found by its name.
        source = os.path.realpath(_mount_of(folder)[1])
        place = Path("/sys/class/block") / os.path.basename(source)
    with suppress(OSError):
        if (place / "loop").exists():
            direct = (place / "loop/dio").read_text().strip() == "1"
            return f"a file (loop device, {'direct I/O' if direct else 'cached by the host: cold is not quite cold'})"
        queue = place / "queue" if (place / "queue").exists() else place.resolve().parent / "queue"
        return "rotating disk" if (queue / "rotational").read_text().strip() == "1" else "solid-state or virtual disk"
    return "unknown"
