"""Image configurations: what is read from them, what is refused, what is made."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.digest import DiffID
from layerstore.errors import InvalidArchive
from layerstore.images import config as image_config

A, B, C = (DiffID("sha256:" + letter * 64) for letter in "abc")


def of(**facts: object) -> bytes:
    return json.dumps({"rootfs": {"type": "layers", "diff_ids": [A, B]}, **facts}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        of(rootfs=[]),
        of(rootfs={"type": "other", "diff_ids": []}),
        of(rootfs={"type": "layers", "diff_ids": ["sha256:12"]}),
        of(rootfs={"type": "layers", "diff_ids": [3]}),
        of(rootfs={"type": "layers", "diff_ids": "x"}),
        of(history={}),
        of(history=[1]),
        of(config=[]),
        of(created=5),
        b"[" * 100_000,
    ],
)
def test_what_is_no_config_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArchive):
        image_config.read(data)


def test_history_pairs_steps_with_layers() -> None:
    lines = [{"created_by": "a"}, {"created_by": "env", "empty_layer": True}, {"created_by": "b", "comment": "c"}]
    steps = image_config.history(image_config.read(of(history=lines)))
    assert [(step.created_by, step.diff_id, step.empty_layer) for step in steps] == [
        ("a", A, False),
        ("env", None, True),
        ("b", B, False),
    ]


@pytest.mark.parametrize("lines", [None, [], [{"created_by": "a"}], [{"created_by": str(n)} for n in range(5)]])
def test_every_layer_has_a_step_whatever_history_says(lines: list[dict[str, str]] | None) -> None:
    steps = image_config.history(image_config.read(of(history=lines)))
    assert [step.diff_id for step in steps if step.diff_id] == [A, B]


def test_derived_config_adds_one_layer_and_one_step() -> None:
    base = image_config.read(of(architecture="arm64", os="linux", variant="v8", author="she", history=[{}, {}], x=1))
    data = image_config.derive(
        base, new_layer=C, run_config={"Cmd": ["x"]}, created="2024-01-01T00:00:00Z", comment="m"
    )
    made = image_config.read(data)
    assert image_config.layers(made) == (A, B, C)
    assert (made["architecture"], made["variant"], made["author"]) == ("arm64", "v8", "she")
    assert made["history"] == [{}, {}, {"author": "she", "comment": "m", "created": "2024-01-01T00:00:00Z"}]
    assert made["config"] == {"Cmd": ["x"]}


def test_derived_config_without_a_layer_says_so() -> None:
    made = image_config.read(image_config.derive(None, new_layer=None, run_config={}, created="2024-01-01T00:00:00Z"))
    assert image_config.layers(made) == ()
    assert made["history"][-1]["empty_layer"] is True


def test_derived_config_accounts_for_layers_without_a_step() -> None:
    made = image_config.read(image_config.derive(image_config.read(of()), new_layer=C, run_config={}, created="x"))
    assert [step.diff_id for step in image_config.history(made)] == [A, B, C]


def test_equal_facts_give_equal_bytes() -> None:
    one = image_config.derive(None, new_layer=C, run_config={"b": 1, "a": 2}, created="t")
    two = image_config.derive(None, new_layer=C, run_config={"a": 2, "b": 1}, created="t")
    assert one == two


def test_source_date_epoch_is_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert image_config.now() == "1970-01-02T00:00:00Z"


@given(st.integers(min_value=0, max_value=4_000_000_000 * 10**9))
def test_timestamp_reads_back(ns: int) -> None:
    read = image_config.moment(image_config.timestamp(ns))
    assert read == datetime.fromtimestamp(ns // 10**9, UTC).replace(microsecond=ns % 10**9 // 1000)


@pytest.mark.parametrize("text", ["", "yesterday", "2024-13-01T00:00:00Z", "0000-01-01T00:00:00Z"])
def test_what_is_no_time_is_none(text: str) -> None:
    assert image_config.moment(text) is None
