"""How many examples of a property: few by day, as many as the profile says by night."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
"""Is everything to be tried, however long it takes?"""

_USUAL = 100
"""What a profile has that says nothing of it."""


def by_day(examples: int, **more: Any) -> settings:
    """Settings for a property whose examples are dear: no more than so many, unless a profile asks for more."""
    loaded = settings().max_examples
    return settings(max_examples=loaded if loaded > _USUAL else min(loaded, examples), **more)
