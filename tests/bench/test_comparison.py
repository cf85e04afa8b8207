"""Two runs beside each other: what is a change, and what is noise."""

from __future__ import annotations

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from layerstore.bench.advice import verdicts
from layerstore.bench.comparison import Verdict, compare, verdict_of
from layerstore.bench.figures import summary
from layerstore.bench.results import BARE, Results

timings = st.lists(st.floats(1e-6, 1e3), min_size=5, max_size=12)


def scaled(results: Results, subject: str, factor: float) -> Results:
    """The same run, with one subject slower by a factor."""
    return evolve(
        results,
        figures=tuple(
            evolve(figure, seconds=tuple(one * factor for one in figure.seconds))
            if figure.subject == subject
            else figure
            for figure in results.figures
        ),
    )


def test_a_run_against_itself_shows_no_change(results: Results) -> None:
    found = compare(results, results)
    assert {change.verdict for change in found.changes} == {Verdict.NOISE}
    assert not found.real
    assert not found.only_old
    assert not found.only_new
    assert [warning for warning in found.warnings if "chance alone" not in warning] == []


def test_what_became_slower_is_told_apart_from_the_rest(results: Results) -> None:
    found = compare(results, scaled(results, "alpha", 2))
    assert found.real
    assert {change.subject for change in found.real} == {"alpha"}
    assert {change.verdict for change in found.real} == {Verdict.SLOWER}
    assert len(found.real) == sum(figure.subject == "alpha" for figure in results.figures)
    back = compare(scaled(results, "alpha", 2), results)
    assert {change.verdict for change in back.real} == {Verdict.FASTER}


def test_three_rounds_are_too_few_to_tell(results: Results) -> None:
    short = evolve(results, figures=tuple(evolve(one, seconds=one.seconds[:3]) for one in results.figures))
    found = compare(short, scaled(short, "alpha", 9))
    assert {change.verdict for change in found.changes} == {Verdict.TOO_FEW}


@given(timings, timings)
def test_a_verdict_turns_round_with_its_sides(old: list[float], new: list[float]) -> None:
    factor = summary(new).median / summary(old).median
    turned = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    verdict = verdict_of(old, new, factor)[1]
    assert verdict_of(new, old, 1 / factor)[1] is turned.get(verdict, verdict)


@given(st.lists(st.floats(1, 2), min_size=5, max_size=9))
def test_a_shift_of_one_percent_is_never_a_change(values: list[float]) -> None:
    assert verdict_of(values, [value * 1.01 for value in values], 1.01)[1] is Verdict.NOISE


def test_a_machine_that_changed_is_named(results: Results) -> None:
    other = evolve(
        scaled(results, BARE, 3),
        machine={**results.machine, "kernel": "7.0", "load": "9"},
        settings={**results.settings, "scale": 0.5},
    )
    warnings = " ".join(compare(results, other).warnings)
    assert "kernel was 6.18, and is 7.0" in warnings
    assert "the scale was 1.0, and is 0.5" in warnings
    assert "The bare filesystem itself changed" in warnings
    assert "load" not in warnings


def test_what_one_side_lacks_is_listed(results: Results) -> None:
    without = evolve(results, figures=tuple(one for one in results.figures if one.workload != "load"))
    assert compare(results, without).only_old
    assert all(name.startswith("load ") for name in compare(results, without).only_old)
    assert compare(without, results).only_new == compare(results, without).only_old


def test_advice_takes_the_fastest_and_leaves_out_what_somebody_could_not_do(results: Results) -> None:
    found = verdicts(results)
    assert {verdict.topic.name for verdict in found} == {
        "containers", "writing", "building", "reading", "images", "space",
    }  # fmt: skip
    assert {verdict.best for verdict in found} == {("alpha",)}
    slow = scaled(results, "alpha", 100)
    without = evolve(
        slow, figures=tuple(one for one in slow.figures if (one.workload, one.subject) != ("lookups", "beta"))
    )
    reading = next(verdict for verdict in verdicts(without) if verdict.topic.name == "reading")
    assert reading.best == ("beta",)
    assert reading.lacking == ("beta",)


def test_one_driver_alone_gets_no_advice(results: Results) -> None:
    assert verdicts(evolve(results, subjects=results.subjects[:2])) == []
