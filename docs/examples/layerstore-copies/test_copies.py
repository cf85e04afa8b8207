"""The driver `copies` does what every driver has to do."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from layerstore_copies import Copies

from layerstore.testing import DriverConformance, machine_for


class TestCopies(DriverConformance):
    """The kit."""

    @pytest.fixture
    def driver(self):
        return Copies


def test_any_life_of_a_store(backing):
    machine = machine_for("copies", backing("ext4"))
    run_state_machine_as_test(machine, settings=settings(max_examples=5, stateful_step_count=20, deadline=None))
