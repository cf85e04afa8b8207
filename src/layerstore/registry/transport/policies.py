"""What containers/image's files forbid: registries.conf blocks, policy.json rejects, or wants signatures.

docker knows neither file. Of policy.json(5) is heeded what is accepted, and what is rejected; signatures are not
verified here, so what needs one is refused, and never pulled in silence.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from layerstore.errors import ConfigError, Denied
from layerstore.reference import Reference
from layerstore.registry.transport import registries
from layerstore.registry.transport.machine import IGNORE, read, stamp
from layerstore.registry.transport.words import printable

__all__ = ["require_allowed"]

_ACCEPT: Final = "insecureAcceptAnything"


def require_allowed(wanted: Reference) -> None:
    """Raise `Denied` for an image that registries.conf or policy.json keeps from being pulled.

    Raises `ConfigError` for one of these files that cannot be understood: what it forbids is not known then.
    """
    blocking = registries.blocking(wanted)
    if blocking is not None:
        file, prefix = blocking
        raise Denied(f"{_name(wanted)} is blocked by {file}: {printable(prefix)}", remedy=IGNORE)
    policy = _policy_file()
    if policy is not None:
        _require_trusted(wanted, policy, _json(policy))


# ---- policy.json


def _policy_file() -> Path | None:
    home = os.environ.get("HOME", "")
    places = [Path(home, ".config/containers/policy.json")] if os.path.isabs(home) else []
    return next((file for file in (*places, Path("/etc/containers/policy.json")) if os.path.exists(file)), None)


def _json(file: Path) -> Mapping[str, Any]:
    return _read_json(file, stamp(file))


@lru_cache(maxsize=8)
def _read_json(file: Path, _: object) -> Mapping[str, Any]:
    try:
        content = json.loads(read(file))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: no JSON object", remedy=f"Mend it. {IGNORE}", path=file)
    return content


def _require_trusted(wanted: Reference, file: Path, policy: Mapping[str, Any]) -> None:
    transports = policy.get("transports")
    scopes = transports.get("docker") if isinstance(transports, dict) else None
    scopes = scopes if isinstance(scopes, dict) else {}
    scope = next((one for one in _scopes(wanted) if one in scopes), None)
    rules = policy.get("default") if scope is None else scopes[scope]
    where = f"{file} ({'default' if scope is None else printable(scope) or 'docker'})"
    if not isinstance(rules, list) or not rules:
        raise ConfigError(f"{where}: no rules", remedy=f"Mend it: it is a list of rules. {IGNORE}", path=file)
    for rule in rules:
        kind = rule.get("type") if isinstance(rule, dict) else None
        if kind == "reject":
            raise Denied(f"{_name(wanted)} is rejected by {where}", remedy=IGNORE)
        if kind != _ACCEPT:
            raise Denied(
                f"{_name(wanted)} needs a signature by {where} ({printable(str(kind))}), and none is verified here",
                remedy=f"Pull it with podman, and load it: `podman save IMAGE | layerstore load`. {IGNORE}",
            )


def _scopes(wanted: Reference) -> Iterator[str]:
    """What rules for an image may be under, the most precise first (policy.json(5), docker)."""
    yield wanted.full if wanted.digest is None else f"{wanted.name}@{wanted.digest}"
    parts = wanted.name.split("/")
    for count in range(len(parts), 0, -1):
        yield "/".join(parts[:count])
    labels = wanted.domain.partition(":")[0].split(".")
    for at in range(1, len(labels)):
        yield f"*.{'.'.join(labels[at:])}"
    yield ""


def _name(wanted: Reference) -> str:
    return printable(wanted.familiar)
