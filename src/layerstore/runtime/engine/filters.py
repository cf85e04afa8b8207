"""Seccomp filters that crun has made, kept until the next boot: making one takes longer than all else of a start.

crun has a cache of its own, on filesystems with fs-verity alone. It takes a filter that is there from an annotation
(crun(1), `run.oci.seccomp_bpf_data`), and leaves what it has used in its folder of the container, `seccomp.bpf`.
"""

from __future__ import annotations

import base64
import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from layerstore import read_own
from layerstore.runtime.engine.engines import Engine
from layerstore.runtime.engine.verbs import Verbs
from layerstore.values import frozen

__all__ = ["Learning", "give_filter"]

_ANNOTATION = "run.oci.seccomp_bpf_data"
_LEFT = "seccomp.bpf"


@frozen
class Learning:
    """A filter that is not known yet: it is taken from what the engine leaves while the container lives."""

    kept: Path
    """Where it will be found by the next."""
    taken: Path
    """Where it lies until it is certain that the engine has written all of it."""

    def take(self, verbs: Verbs, container: str) -> bool:
        """Take hold of it, if it is there by now, whole or not; False if there is none yet."""
        try:
            os.link(verbs.root / container / _LEFT, self.taken)
        except FileExistsError:
            return True
        except OSError:
            return False
        return True

    def keep(self) -> None:
        """What was taken is whole, for the container's program has been started: let others find it."""
        with suppress(OSError):
            self.kept.parent.mkdir(mode=0o700, exist_ok=True)
            self.taken.rename(self.kept)


def give_filter(config: dict[str, Any], engine: Engine, kept: Path, folder: Path) -> Learning | None:
    """Put the filter that a config.json asks for into it, if it is known in `kept`. Else: how it can be learnt.

    `folder` is the container's. None too where there is no filter, or an engine that would not take it.
    """
    section = config.get("linux", {}).get("seccomp")
    annotations = config.get("annotations") or {}
    if not section or os.path.basename(engine.path) != "crun" or _ANNOTATION in annotations:
        return None
    try:
        made = os.stat(engine.path)
    except OSError:
        return None  # whoever launches it will say so
    told = json.dumps([section, engine.path, made.st_ino, made.st_size, made.st_mtime_ns], sort_keys=True)
    learning = Learning(kept / sha256(told.encode()).hexdigest(), folder / _LEFT)
    try:
        known = read_own(learning.kept)
    except OSError:
        return learning
    config["annotations"] = {**annotations, _ANNOTATION: base64.b64encode(known).decode()}
    return None
