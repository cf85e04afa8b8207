"""Sizes, times and tables, as docker 28 printed them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.cli import units
from layerstore.cli.table import aligned

FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("number", "three", "four"),
    [
        (0, "0B", "0B"),
        (999, "999B", "999B"),
        (1000, "1kB", "1kB"),
        (1220, "1.22kB", "1.22kB"),
        (10240, "10.2kB", "10.24kB"),
        (116668057, "117MB", "116.7MB"),
        (999_950, "1MB", "1MB"),
        (1_234_567_890, "1.23GB", "1.235GB"),
        (5 * 10**15, "5PB", "5PB"),
    ],
)
def test_size(number: int, three: str, four: str) -> None:
    assert (units.size(number), units.size(number, digits=4)) == (three, four)


@given(st.integers(0, 10**26))
def test_size_never_needs_an_exponent(number: int) -> None:
    assert "e" not in units.size(number)


def test_memory() -> None:
    assert [units.memory(n) for n in (512, 25_276_000_000)] == ["512B", "23.54GiB"]


@pytest.mark.parametrize(
    ("span", "words"),
    [
        ({"seconds": -5}, "Less than a second"),
        ({"seconds": 0.9}, "Less than a second"),
        ({"seconds": 1}, "1 second"),
        ({"seconds": 59}, "59 seconds"),
        ({"seconds": 60}, "About a minute"),
        ({"seconds": 119}, "About a minute"),
        ({"minutes": 2}, "2 minutes"),
        ({"minutes": 59}, "59 minutes"),
        ({"minutes": 60}, "About an hour"),
        ({"minutes": 90}, "2 hours"),
        ({"hours": 47}, "47 hours"),
        ({"hours": 48}, "2 days"),
        ({"days": 13}, "13 days"),
        ({"days": 14}, "2 weeks"),
        ({"days": 59}, "8 weeks"),
        ({"days": 60}, "2 months"),
        ({"days": 729}, "24 months"),
        ({"days": 731}, "2 years"),
    ],
)
def test_duration(span: dict[str, float], words: str) -> None:
    assert units.duration(timedelta(**span)) == words
    assert units.ago(NOW - timedelta(**span), now=NOW) == f"{words} ago"


def test_what_has_no_time_has_no_age() -> None:
    assert (units.ago(None), units.local(None), units.rfc3339(None)) == ("N/A", "N/A", "N/A")


def test_times_are_printed_in_docker_s_form(zone: Callable[[str], None]) -> None:
    then = datetime(2026, 11, 24, 11, 10, 37, 5, tzinfo=UTC)
    zone("UTC")
    assert units.local(then) == "2026-11-24 11:10:37 +0000 UTC"
    assert units.rfc3339(then) == "2026-11-24T11:10:37Z"
    zone("NST3:30")
    assert units.local(then) == "2026-11-24 07:40:37 -0330 NST"
    assert units.rfc3339(then) == "2026-11-24T07:40:37-03:30"
    zone("LMT-0:53:28")
    assert units.local(then) == "2026-11-24 12:04:05 +0053 LMT"
    assert units.rfc3339(then) == "2026-11-24T12:04:05+00:53"


@pytest.mark.parametrize("name", ["UTC", "<-12>12", "<+14>-14", "EST5EDT"])
def test_no_time_is_too_odd_to_be_printed(name: str, zone: Callable[[str], None]) -> None:
    zone(name)
    for then in (datetime.min, datetime.min + timedelta(days=1), datetime(987, 6, 5), datetime.max):
        aware = then.replace(tzinfo=UTC)
        assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} \S+", units.local(aware))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", units.rfc3339(aware))
        assert units.ago(aware).endswith(" ago")


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("24h", NOW - timedelta(days=1)),
        ("1h30m", NOW - timedelta(minutes=90)),
        ("1.5h", NOW - timedelta(minutes=90)),
        (".5h", NOW - timedelta(minutes=30)),
        ("1.h2us3µs4\u03bcs1000ns", NOW - timedelta(hours=1, microseconds=10)),
        ("1790000000", datetime.fromtimestamp(1790000000, UTC)),
        ("2026-01-02", datetime(2026, 1, 2, tzinfo=UTC)),
        ("2026-01-02T03:04", datetime(2026, 1, 2, 3, 4, tzinfo=UTC)),
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02t03:04:05.1234567891z", datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2026-01-02T03:04:05+01:00", datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)),
        ("0001-01-01T00:00:00+01:00", FIRST),
        ("9999-12-31T23:59:59-01:00", LAST.replace(microsecond=0)),
        ("soon", None),
        ("", None),
        ("2026-13-01", None),
        ("99999999999999h", FIRST),
        ("99999999999999999999", LAST),
        ("9" * 400, LAST),
        ("9" * 400 + "h", FIRST),
    ],
)
def test_until(text: str, then: datetime | None, zone: Callable[[str], None]) -> None:
    zone("UTC")
    assert units.until(text, now=NOW) == then


def test_a_time_without_a_zone_is_the_machine_s(zone: Callable[[str], None]) -> None:
    zone("EST5")
    assert units.until("2026-01-02T03:04:05") == datetime(2026, 1, 2, 8, 4, 5, tzinfo=UTC)
    assert units.until("0001-01-01") == FIRST
    assert units.until("9999-12-31T23:00") is not None


@given(st.text("0123456789-:.+TtZz hmsd") | st.text())
def test_no_text_is_too_odd_for_a_filter(text: str) -> None:
    then = units.until(text)
    assert then is None or FIRST <= then <= LAST


def test_short_names_and_cut_texts() -> None:
    assert units.short("sha256:6e2c90209a58e07ea09f") == "6e2c90209a58"
    assert units.short("201f16607fd851b64a8e") == "201f16607fd8"
    assert units.ellipsis("/bin/sh -c 'echo a very long command'", 20) == "/bin/sh -c 'echo a …"
    assert units.ellipsis("short", 5) == "short"
    assert units.one_line("RUN <<EOF\n\ta\r\nEOF") == "RUN <<EOF a EOF"


def test_columns_are_at_least_ten_wide_and_three_apart() -> None:
    lines = [
        "REPOSITORY\tTAG\tIMAGE ID\tSIZE",
        "localhost:5000/x/y\tlatest\t6e2c90209a58\t117MB",
        "a\t1\t6e2c90209a58\t",
    ]
    assert list(aligned(lines)) == [
        "REPOSITORY           TAG       IMAGE ID       SIZE",
        "localhost:5000/x/y   latest    6e2c90209a58   117MB",
        "a                    1         6e2c90209a58   ",
    ]


def test_lines_without_cells_stay_as_they_are() -> None:
    assert list(aligned(["REPOSITORY", "a", "a\tb"])) == ["REPOSITORY", "a", "a         b"]
    assert list(aligned([])) == []
