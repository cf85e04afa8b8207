"""What a walk through faults needs: see support/faults.py."""

from __future__ import annotations

import pytest

from support.faults import Faults


@pytest.fixture(scope="session")
def faults() -> Faults:
    """Faults at will. Only in a process that test_faults.py has started."""
    return Faults()
