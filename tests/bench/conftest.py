"""Results of a run that never was, to compare and to show."""

from __future__ import annotations

import random

import pytest

from layerstore.bench.results import BARE, Failure, Figure, Refused, Results, Subject
from layerstore.bench.workloads import WORKLOADS

HOSTILE = '<script src="https://example.org/x.js">&"\''


@pytest.fixture
def results() -> Results:
    """Two drivers and the bare filesystem at every workload, with names that want to break a page."""
    chance = random.Random(3)
    figures = []
    for workload in WORKLOADS:
        for cache in workload.caches:
            for variant in workload.variants or ("",):
                for place, subject in enumerate((BARE, "alpha", "beta")):
                    seconds = tuple(0.001 * (place + 1) * (1 + chance.random() / 10) for _ in range(5))
                    space = (4096 * (place + 1),) * 5 if workload.space else ()
                    figures.append(Figure(workload.name, variant, cache, subject, 1, seconds, space))
    return Results(
        started="2026-11-24T12:00:00+0000",
        seconds=321.0,
        machine={"kernel": "6.18", "processor": HOSTILE, "cores": "2", "memory": "4 GiB"},
        filesystem={"type": "ext4", "folder": f"/mnt/{HOSTILE}", "medium": "solid-state disk"},
        settings={
            "rounds": 5,
            "seed": 1,
            "scale": 1.0,
            "caches": ["warm", "cold"],
            "workloads": [workload.name for workload in WORKLOADS],
            "image": f"{HOSTILE}.tar",
            "image_layers": 8,
            "image_bytes": 100_000_000,
            "large_file": 64 << 20,
            "chmod_files": 2000,
        },
        subjects=(
            Subject(BARE, None),
            Subject("alpha", "alpha", (), (("Backing", HOSTILE),)),
            Subject("beta", "beta", (f"beta.x={HOSTILE}",)),
        ),
        refused=(Refused("gamma", f"no {HOSTILE}", "Find some."),),
        figures=tuple(figures),
        failures=(Failure("lookups", "500 layers", "warm", "beta", f"too deep {HOSTILE}"),),
        notes=(HOSTILE,),
        order=((0, "load", "warm", (BARE, "beta", "alpha")),),
    )
