"""A pytest plugin for runs on an instrumented build: fewer examples, and no limit of address space, of which the
sanitizer reserves terabytes. By day one case in so many of each test, by night all of them."""

from __future__ import annotations

import os
import resource
from collections import Counter

import pytest
from hypothesis import Phase, settings

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
EACH = 1 if NIGHTLY else 30


def pytest_configure() -> None:
    settings.register_profile(
        "sanitized",
        max_examples=15 if NIGHTLY else 5,
        deadline=None,
        derandomize=True,
        database=None,
        phases=set(Phase) - {Phase.shrink},
    )
    settings.load_profile("sanitized")
    resource.setrlimit = lambda *_: None  # a limit is what the plain run is for


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out all but the first of each test's cases, and each thirtieth after it."""
    seen: Counter[str] = Counter()
    chosen: list[pytest.Item] = []
    left_out: list[pytest.Item] = []
    for item in items:
        test = item.nodeid.partition("[")[0]
        (left_out if seen[test] % EACH else chosen).append(item)
        seen[test] += 1
    config.hook.pytest_deselected(items=left_out)
    items[:] = chosen
