"""Two runs beside each other: what changed, and whether that is more than noise. Pure.

The rule is one sentence, and a user is told it: a change counts when the Mann-Whitney test gives chance less than 1 in
100, and the medians are at least 3 % apart. With five rounds on each side that means that every run of the one side was
faster than every run of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import Final

from layerstore.bench.figures import Summary, rank_test
from layerstore.bench.results import BARE, Figure, Key, Results
from layerstore.values import frozen

__all__ = ["CHANCE", "LEAST_SHIFT", "Comparison", "Difference", "Verdict", "compare", "verdict_of"]

CHANCE: Final = 0.01
LEAST_SHIFT: Final = 0.03


class Verdict(Enum):
    """What may be said of a change."""

    FASTER = "faster"
    SLOWER = "slower"
    NOISE = "no change beyond noise"
    TOO_FEW = "too few rounds to tell"


@frozen
class Difference:
    """One figure then and now. `factor`: the new median as a multiple of the old; `chance`: the test's answer."""

    key: Key
    subject: str
    old: Summary
    new: Summary
    factor: float
    chance: float
    verdict: Verdict


@frozen
class Comparison:
    """All changes; what only one side has; and why the two may not be alike."""

    old_started: str
    changes: tuple[Difference, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def real(self) -> tuple[Difference, ...]:
        """Those that are more than noise, the greatest first."""
        found = [change for change in self.changes if change.verdict in (Verdict.FASTER, Verdict.SLOWER)]
        return tuple(sorted(found, key=lambda change: max(change.factor, 1 / change.factor), reverse=True))


def verdict_of(old: Sequence[float], new: Sequence[float], factor: float) -> tuple[float, Verdict]:
    """The chance, and the verdict."""
    chance = rank_test(old, new)
    # Even the clearest outcome, all of one side below all of the other, must be rarer than CHANCE.
    clearest = rank_test(range(len(old)), range(len(old), len(old) + len(new)))
    if clearest >= CHANCE:
        return chance, Verdict.TOO_FEW
    if chance >= CHANCE or max(factor, 1 / factor) < 1 + LEAST_SHIFT:
        return chance, Verdict.NOISE
    return chance, Verdict.FASTER if factor < 1 else Verdict.SLOWER


def compare(old: Results, new: Results) -> Comparison:
    """What changed from `old` to `new`."""
    before = {(figure.key, figure.subject): figure for figure in old.figures}
    after = {(figure.key, figure.subject): figure for figure in new.figures}
    changes = [_change(before[place], figure) for place, figure in after.items() if place in before]
    return Comparison(
        old_started=old.started,
        changes=tuple(changes),
        only_old=tuple(_named(figure) for place, figure in before.items() if place not in after),
        only_new=tuple(_named(figure) for place, figure in after.items() if place not in before),
        warnings=tuple(_warnings(old, new, changes)),
    )


def _change(old: Figure, new: Figure) -> Difference:
    factor = _factor(old.summary.median, new.summary.median)
    chance, verdict = verdict_of(old.seconds, new.seconds, factor)
    return Difference(new.key, new.subject, old.summary, new.summary, factor, chance, verdict)


def _factor(old: float, new: float) -> float:
    """A clock may give zero for what takes next to no time."""
    tiny = 1e-9
    return max(new, tiny) / max(old, tiny)


def _named(figure: Figure) -> str:
    return " ".join(part for part in (figure.workload, figure.variant, figure.cache, figure.subject) if part)


def _warnings(old: Results, new: Results, changes: Sequence[Difference]) -> list[str]:
    warnings = []
    for what in ("image", "scale"):
        if old.settings.get(what) != new.settings.get(what):
            was, now = old.settings.get(what), new.settings.get(what)
            warnings.append(f"Not the same work: the {what} was {was}, and is {now}.")
    for name, then, today in (("Machine", old.machine, new.machine), ("Filesystem", old.filesystem, new.filesystem)):
        for fact in then:
            if fact in today and then[fact] != today[fact] and fact not in _PASSING:
                warnings.append(f"{name}: {fact} was {then[fact]}, and is {today[fact]}.")
    bare = [change for change in changes if change.subject == BARE]
    moved = [change for change in bare if change.verdict in (Verdict.FASTER, Verdict.SLOWER)]
    if moved:
        warnings.append(
            f"The bare filesystem itself changed in {len(moved)} of {len(bare)} figures: there it is the machine, or "
            "what else ran on it, and the drivers' changes of the same size are no merit or fault of theirs."
        )
    counted = [change for change in changes if change.verdict is not Verdict.TOO_FEW]
    if len(counted) >= 50:
        warnings.append(
            f"Of {len(counted)} figures, chance alone makes about {round(len(counted) * CHANCE) or 1} look changed."
        )
    return warnings


_PASSING: Final = frozenset(("folder", "free", "load"))
"""Facts that differ from run to run, and mean nothing."""
