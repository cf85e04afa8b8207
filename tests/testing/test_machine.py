"""Random lives of a store, of each driver, on each filesystem it works on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from layerstore.testing import machine_for
from testing.drivers import CASES, Case

pytestmark = pytest.mark.root

EXAMPLES = 10 if os.environ.get("HYPOTHESIS_PROFILE", "steady") == "steady" else settings().max_examples
"""Of each driver, in all its modes and on all its filesystems together."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_life_of_a_store(case: Case, backing: Callable[[str], Path]) -> None:
    share = sum(other.driver == case.driver for other in CASES)
    machine = machine_for(case.driver, backing(case.filesystem), options=case.options, limits=case.limits)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=-(-EXAMPLES // share), stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
        ),
    )
