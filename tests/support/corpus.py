"""The corpus of Dockerfiles, and what BuildKit made of it: recorded, for it is no package of Debian's.

`tests/build/buildkit.json` has for each case the config and the history of BuildKit's image and, where nothing is
installed, how its tree differs from that of the base. The commit of BuildKit is in it, too.
"""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from layerstore.testing.trees import Entry, Tree

__all__ = ["CORPUS", "SAID", "TAGS", "bases_of", "context_of", "recorded", "said_of", "tree_of"]

CORPUS = Path(__file__).parents[1] / "build/corpus"
RECORD = CORPUS.with_name("buildkit.json")

TAGS = {"busybox": "busybox:latest", "debian": "debian:bookworm"}

SAID = (
    *("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels"),
    *("OnBuild", "Shell", "StopSignal", "User", "Volumes", "WorkingDir"),
)
"""What a config says of how the image is run."""


def context_of(case: Path, target: Path) -> Path:
    """A case's files with the modes that they have in every checkout, whatever its umask is."""
    shutil.copytree(case, target, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & stat.S_IXUSR else 0o644)
    return target


def bases_of(case: Path) -> list[str]:
    """The names of the images that it begins from."""
    text = (case / "Dockerfile").read_text()
    return [name for name in TAGS if name in text]


def said_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of how the image is run, in one form."""
    run = config.get("config") or {}
    said = {name: run.get(name) or None for name in SAID}
    labels = {name: value for name, value in (said["Labels"] or {}).items() if name != "io.buildah.version"}
    return {**said, "Labels": labels or None, "WorkingDir": said["WorkingDir"] or "/"}


def tree_of(tree: Tree, base: Tree) -> dict[str, list[Any] | None]:
    """How a tree differs from its base's: facts by path, None for what is gone."""
    changed = {path: _facts(entry) for path, entry in sorted(tree.items()) if path and _differs(entry, base.get(path))}
    return {**changed, **{path: None for path in sorted(base) if path not in tree}}


@cache
def recorded() -> Mapping[str, Mapping[str, Any]]:
    """By case: `said` and `history`, and `tree` where nothing is installed."""
    cases: Mapping[str, Mapping[str, Any]] = json.loads(RECORD.read_text())["cases"]
    return cases


def _differs(entry: Entry, base: Entry | None) -> bool:
    return base is None or _facts(entry) != _facts(base)


def _facts(entry: Entry) -> list[Any]:
    content = entry.target or entry.sha256[:16]
    return [entry.type, f"{entry.mode:o}", entry.uid, entry.gid, content, len(entry.names)]
