"""The kit kills faults: each of the list is put into a copy of the sources, and the kit has to fail on it.

By day a few; by night all, and what is said to be alive has to be, or else its reason is wrong.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

from testing.broken import ROOT, Broken
from testing.mutants import KINDS, Mutant, all_mutants

pytestmark = pytest.mark.root

MUTANTS = all_mutants()
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

BY_DAY = (
    "overlay2-ext4: seal forgets the fsync of the home",
    "overlay2-ext4: removed in place",
    "vfs-ext4: a create that failed leaves its copy",
)
CHOSEN = [mutant for mutant in MUTANTS if NIGHTLY or str(mutant) in BY_DAY]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    return Broken(tmp_path_factory.mktemp("broken"))


@pytest.mark.parametrize("mutant", CHOSEN, ids=str)
def test_the_kit_kills_it(mutant: Mutant, broken: Broken) -> None:
    verdict = broken.judge(mutant, whole=NIGHTLY)

    assert verdict.killed != bool(mutant.alive), f"{mutant}\n{verdict.says}"


def test_the_list_is_in_order() -> None:
    assert [name for name, count in Counter(map(str, MUTANTS)).items() if count > 1] == []
    assert {mutant.kind for mutant in MUTANTS} == {*KINDS}
    assert {*BY_DAY} <= {*map(str, MUTANTS)}
    assert [str(mutant) for mutant in MUTANTS if (ROOT / mutant.file).read_text().count(mutant.old) != 1] == []
    assert sum(bool(mutant.alive) for mutant in MUTANTS) * 10 <= len(MUTANTS)
