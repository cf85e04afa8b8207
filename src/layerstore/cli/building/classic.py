"""Options of `build` that docker takes and does not follow: of the classic builder, of attestations; and of podman's.

BuildKit has none of the limits that the classic builder's containers had, and no containers between steps; so docker
takes these options for the sake of old scripts, in silence or with a warning. What is asked for and cannot be had,
attestations and the calls that say what a Dockerfile has, is refused in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from layerstore.cli.building.values import attestation, call, form, without
from layerstore.cli.run_options import many, one, switch
from layerstore.cli.run_options import values as run_values

__all__ = ["CHECKS", "classic_options_taken", "notices"]

F = TypeVar("F", bound=Callable[..., Any])

CHECKS: Final = ("check", "lint")
"""Values of `--call` that are `--check`."""

_VAIN: Final = "Does nothing: taken as docker takes it"

_WARNED: Final = {
    "isolation": "isolation flag is deprecated with BuildKit.",
    "security_opt": 'security-opt flag is deprecated. "RUN --security=insecure" should be used with BuildKit.',
}
"""In buildx's words; it says nothing of the others."""

_OPTIONS: Final = (
    one(
        "--call",
        read=call,
        metavar="METHOD",
        default="build",
        text="What is done: build, or check, as --check (default: build)",
    ),
    many("--attest", read=attestation, metavar="type=TYPE,disabled=true", text=_VAIN, hidden=True),
    one("--provenance", read=without, metavar="false", text=_VAIN, hidden=True),
    one("--sbom", read=without, metavar="false", text=_VAIN, hidden=True),
    switch("--compress", text=_VAIN, hidden=True),
    one("--cpu-period", read=run_values.whole, metavar="N", text=_VAIN, hidden=True),
    one("--cpu-quota", read=run_values.whole, metavar="N", text=_VAIN, hidden=True),
    one("-c", "--cpu-shares", read=run_values.whole, metavar="N", text=_VAIN, hidden=True),
    one("--cpuset-cpus", metavar="LIST", text=_VAIN, hidden=True),
    one("--cpuset-mems", metavar="LIST", text=_VAIN, hidden=True),
    switch("--force-rm", text=_VAIN, hidden=True),
    one("--isolation", metavar="NAME", text=_VAIN, hidden=True),
    one("-m", "--memory", metavar="BYTES", text=_VAIN, hidden=True),
    one("--memory-swap", metavar="BYTES", text=_VAIN, hidden=True),
    one("--jobs", read=run_values.whole, metavar="N", text=_VAIN, hidden=True),
    switch("--layers", text=_VAIN, hidden=True),
    one("--format", read=form, metavar="oci", text=_VAIN, hidden=True),
    switch("--rm", text=_VAIN, hidden=True),
    many("--security-opt", metavar="OPTION", text=_VAIN, hidden=True),
)


def classic_options_taken(function: F) -> F:
    """Give a command of click's these options."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def notices(given: Mapping[str, Any]) -> list[str]:
    """What is to be told of those that were given."""
    return [text for name, text in _WARNED.items() if given[name]]
