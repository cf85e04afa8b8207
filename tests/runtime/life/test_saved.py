"""Options as a row keeps them."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerstore import ConfigError
from layerstore.runtime.life.saved import from_json, to_json
from layerstore.runtime.life.signals import number_of
from layerstore.runtime.options import RunOptions


@given(st.from_type(RunOptions))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_options_of_any_kind_come_back_as_they_were(options: RunOptions) -> None:
    assert from_json(to_json(options)) == options


def test_what_is_the_default_is_not_written() -> None:
    assert json.loads(to_json(RunOptions(args=("true",), remove=True))) == {"args": ["true"], "remove": True}


def test_what_a_later_version_has_written_is_left_out() -> None:
    assert from_json('{"args":["true"],"novel":1}') == RunOptions(args=("true",))


@pytest.mark.parametrize(
    ("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), (2, 2), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)]
)
def test_signals_have_names_and_numbers(text: str | int, number: int) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize("text", ["", "SIGNOPE", "0", "65", "RTMIN+99"])
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid signal"):
        number_of(text)
