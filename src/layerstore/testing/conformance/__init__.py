"""`DriverConformance`: what every storage driver has to do, as a class of tests to subclass.

::

    class TestMyDriver(DriverConformance):
        @pytest.fixture
        def driver(self):
            return MyDriver

`home` is a folder on ext4 unless the subclass has a fixture of that name, `options` an instance of the driver's options
class. What a driver's `Capabilities` do not claim is not asked of it. The behaviours are those of moby's graphtest, of
containerd's suite for snapshotters, and of this project; trees and changes are compared with `ModelTree`, to the last
attribute. Only the interface is used: a driver is known by what it does.
"""

from __future__ import annotations

from layerstore.testing.conformance.breaking import Breaking
from layerstore.testing.conformance.containers import Containers
from layerstore.testing.conformance.contract import Contract
from layerstore.testing.conformance.copies import Copies
from layerstore.testing.conformance.examples import BASE, EDITS, STACKS
from layerstore.testing.conformance.finding import Finding
from layerstore.testing.conformance.layers import Layers
from layerstore.testing.conformance.power_cuts import PowerCuts
from layerstore.testing.conformance.probing import Probing
from layerstore.testing.conformance.removal import Removal
from layerstore.testing.conformance.sealing import Sealing
from layerstore.testing.conformance.segments import Segments
from layerstore.testing.conformance.telling import Telling
from layerstore.testing.conformance.together import Together

__all__ = ["BASE", "EDITS", "STACKS", "DriverConformance"]


class DriverConformance(
    Probing,
    Layers,
    Containers,
    Finding,
    Sealing,
    Segments,
    Copies,
    Removal,
    Telling,
    Together,
    Contract,
    Breaking,
    PowerCuts,
):
    """The tests. A subclass has a fixture `driver`, the class to be tested; `home` and `options` if it wants."""
