"""What `build` takes, from words to `BuildOptions`, and what it shows: as lines, as records, as a board that changes.

Nothing here knows a store. `values` is what the values of options mean, `board` what a terminal shows; both are pure.
"""

from layerstore.cli.building.assembly import build_options_of, build_options_taken
from layerstore.cli.building.classic import CHECKS, classic_options_taken, notices
from layerstore.cli.building.records import failure_record
from layerstore.cli.building.reports import report_failure, report_warnings
from layerstore.cli.building.views import VIEWS, view

__all__ = [
    "CHECKS",
    "VIEWS",
    "build_options_of",
    "build_options_taken",
    "classic_options_taken",
    "failure_record",
    "notices",
    "report_failure",
    "report_warnings",
    "view",
]
