"""A pytest plugin for runs on an instrumented build: fewer examples, and no limit of address space, of which the
sanitizer reserves terabytes."""

from __future__ import annotations

import resource

from hypothesis import Phase, settings


def pytest_configure() -> None:
    settings.register_profile(
        "sanitized",
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        phases=set(Phase) - {Phase.shrink},
    )
    settings.load_profile("sanitized")
    resource.setrlimit = lambda *_: None  # a limit is what the plain run is for
