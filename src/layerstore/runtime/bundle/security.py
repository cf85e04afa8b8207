"""`--security-opt`, read: what of a sandbox is altered or left out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from layerstore import ConfigError
from layerstore.runtime.bundle import seccomp
from layerstore.runtime.bundle.host import HostFacts
from layerstore.values import frozen

__all__ = ["MASKED", "READ_ONLY", "Security", "profile", "read"]

MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
"""What tells too much of the host: docker's (moby, oci/defaults.go)."""

READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""What would alter the host."""


@frozen
class Security:
    """What the options say. `seccomp`: "" is the default, `unconfined` none, else a file or a profile itself."""

    seccomp: str = ""
    apparmor: str = ""
    no_new_privileges: bool = False
    system_paths: bool = True
    """Parts of /proc and /sys are masked or read-only."""


def read(options: Sequence[str]) -> Security:
    """Raises `ConfigError` for what is none of docker's, or cannot be had here."""
    filters = armor = ""
    no_new_privileges, system_paths = False, True
    for option in options:
        name, separator, value = option.partition("=")
        if not separator:  # the older form
            name, separator, value = option.partition(":")
        if name == "no-new-privileges":
            if value not in ("", "true", "false"):
                raise _refused(option, "it is no-new-privileges, or that with =true or =false")
            no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            filters = "" if value == "builtin" else value
        elif name == "apparmor" and value:
            armor = value
        elif name == "systempaths" and value == "unconfined":
            system_paths = False
        elif name == "label" and value == "disable":
            pass  # there are none
        elif name == "label" and value:
            raise _refused(option, "SELinux labels are not given to containers: only label=disable is known")
        else:
            raise _refused(
                option,
                "known are seccomp=, apparmor=, no-new-privileges, systempaths=unconfined and label=disable",
            )
    return Security(filters, armor, no_new_privileges, system_paths)


def _refused(option: str, remedy: str) -> ConfigError:
    return ConfigError(f"invalid --security-opt: {option!r}", remedy=f"{remedy[0].upper()}{remedy[1:]}.")


def profile(security: Security, capabilities: Collection[str], host: HostFacts) -> dict[str, Any] | None:
    """The seccomp profile; None: there is none. A file is read."""
    if security.seccomp == "unconfined":
        return None
    if not host.seccomp:
        if security.seccomp:
            raise ConfigError(
                "seccomp is not enabled in your kernel, cannot run a custom seccomp profile",
                remedy="Leave --security-opt seccomp out, or say seccomp=unconfined.",
            )
        return None
    if not security.seccomp:
        return seccomp.default(capabilities, host)
    if security.seccomp.lstrip().startswith("{"):
        return seccomp.read(security.seccomp, "--security-opt", capabilities, host)
    try:
        with open(security.seccomp, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"opening seccomp profile ({security.seccomp}) failed: {why}",
            remedy="Name a file with a profile, or seccomp=unconfined.",
            path=security.seccomp,
        ) from None
    return seccomp.read(text, security.seccomp, capabilities, host)
