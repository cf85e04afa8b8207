"""The C parts are given what nobody has thought of: libFuzzer looks for input that takes new ways through them.

By day with as many inputs as take a second or two, which finds what is easy to find; 20 million are `fuzz.night`'s.
What was found once lies in `found/`, a folder a target, and is tried first.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz import building, seeds
from layerstore.testing.filesystems import Filesystems
from support.shared import made_once

pytestmark = [pytest.mark.root, pytest.mark.tools("clang")]

NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
BY_DAY = {
    "headers": 100_000,
    "skeleton": 15_000,
    "unpack": 8_000,
    "changes": 10_000,
    "goflate": 2_500,
    "index": 30_000,
    "blocks": 60_000,
}
"""Inputs that are tried, as many on a machine that is busy as on an idle one."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_once(tmp_path_factory, "fuzzed", building.build)


@pytest.fixture
def place(filesystems: Filesystems) -> Iterator[Path]:
    made = filesystems.make("tmpfs", size=1 << 30)
    for name in ("making", "corpus", "work"):
        (made / name).mkdir()
    yield made
    filesystems.drop(made)


@pytest.mark.parametrize("target", building.TARGETS)
def test_no_input_breaks_a_c_part(target: str, programs: Path, place: Path) -> None:
    for number, seed in enumerate(seeds.of(target, place / "making")):
        (place / f"corpus/{number}").write_bytes(seed)
    found = building.HERE / "found" / target
    corpora = [str(place / "corpus"), *([str(found)] if found.exists() else [])]
    runs = BY_DAY[target] * (20 if NIGHTLY else 1)
    options = (f"-runs={runs}", "-print_final_stats=1", "-rss_limit_mb=2048", "-timeout=60", "-max_len=16384")
    done = subprocess.run(
        [programs / target, *options, *corpora],
        cwd=place / "work",
        env={**os.environ, "ASAN_OPTIONS": "quarantine_size_mb=16:detect_leaks=1"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]  # with the input, in base64
    tried = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert tried is not None
    assert int(tried[1]) >= runs
