"""What a step is known by: a digest of all that decides what comes of it, and of nothing else. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from layerstore import ChainID

__all__ = ["VERSION", "step_key"]

VERSION = 1
"""Of what a key is made of. It goes up when the same words come to mean something else: then no old key fits."""


def step_key(
    parent: ChainID | None,
    instruction: str,
    values: Mapping[str, str],
    inputs: Sequence[str] = (),
    *,
    epoch: int | None = None,
) -> str:
    """The key of a step: 64 hex digits.

    `parent` is what it stands on; None is nothing, or (`COPY --link`) that it does not matter. `instruction` is what is
    done, after expansion and in one spelling; `values` are what else it sees (environment, user, working directory,
    shell, platform); `inputs` are digests of the content that it reads, in the order in which it names it. `epoch`:
    the latest time that may be in its result, in seconds since 1970. Secrets, caches, and times of inputs are in none
    of these.
    """
    parts = [VERSION, parent, instruction, sorted(values.items()), list(inputs), epoch]
    # Escaped as ASCII, so that a value with bytes that are no UTF-8 (surrogates) has a key, too.
    return hashlib.sha256(json.dumps(parts, separators=(",", ":")).encode()).hexdigest()
