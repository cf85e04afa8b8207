"""Image configurations: what is read from them, what is refused, what is made."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.digest import DiffID
from layerstore.errors import ConfigError, InvalidArchive
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
        of(author=5),
        *(of(rootfs={"type": "layers", "diff_ids": wrong}) for wrong in ("", 0, False, {})),
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


def test_what_is_empty_is_kept_as_it_is() -> None:
    base = image_config.read(of(architecture="", author="she", **{"os.features": []}))
    for author, kept in [(None, "she"), ("", None), ("he", "he")]:
        made = json.loads(image_config.derive(base, new_layer=C, run_config={}, created="x", author=author))
        assert (made["architecture"], made["os.features"], made.get("author")) == ("", [], kept)


def test_equal_facts_give_equal_bytes() -> None:
    one = image_config.derive(None, new_layer=C, run_config={"b": 1, "a": 2}, created="t")
    two = image_config.derive(None, new_layer=C, run_config={"a": 2, "b": 1}, created="t")
    assert one == two


def test_source_date_epoch_is_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert image_config.now() == "1970-01-02T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "-62135596800")
    assert image_config.now() == "0001-01-01T00:00:00Z"


@given(st.integers(min_value=0, max_value=4_000_000_000 * 10**9))
def test_timestamp_reads_back(ns: int) -> None:
    read = image_config.moment(image_config.timestamp(ns))
    assert read == datetime.fromtimestamp(ns // 10**9, UTC).replace(microsecond=ns % 10**9 // 1000)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("2026-11-24T11:10:37Z", datetime(2026, 11, 24, 11, 10, 37, tzinfo=UTC)),
        ("2026-11-24t11:10:37z", datetime(2026, 11, 24, 11, 10, 37, tzinfo=UTC)),
        ("2026-11-24T11:10:37.5Z", datetime(2026, 11, 24, 11, 10, 37, 500_000, tzinfo=UTC)),
        ("2026-11-24T11:10:37.1234567891011Z", datetime(2026, 11, 24, 11, 10, 37, 123_456, tzinfo=UTC)),
        ("2026-11-24T12:10:37+01:00", datetime(2026, 11, 24, 11, 10, 37, tzinfo=UTC)),
        ("2026-11-24T07:40:37.000001-03:30", datetime(2026, 11, 24, 11, 10, 37, 1, tzinfo=UTC)),
        ("2026-11-24T11:10:37-00:00", datetime(2026, 11, 24, 11, 10, 37, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T18:59:60.25-05:00", datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        ("0001-01-01T00:00:01Z", datetime(1, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("9999-12-31T23:59:59.999999999Z", datetime.max.replace(tzinfo=UTC)),
        ("9999-12-31T23:59:60Z", datetime.max.replace(tzinfo=UTC)),
        ("9999-12-31T23:00:00-05:00", datetime.max.replace(tzinfo=UTC)),
        # What Go writes for a time that was never set, and what is before it.
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T01:00:00+01:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("0000-01-01T00:00:00Z", None),
        ("", None),
        ("yesterday", None),
        ("2024-13-01T00:00:00Z", None),
        ("2024-02-30T00:00:00Z", None),
        ("2024-01-01T24:00:01Z", None),
        ("2024-01-01T00:00:61Z", None),
        ("2024-01-01T00:00:00", None),
        ("2024-01-01T00:00:00+24:00", None),
        ("2024-01-01T00:00:00.Z", None),
        ("2024-01-01 00:00:00Z", None),
        ("２024-01-01T00:00:00Z", None),
    ],
)
def test_a_time_is_what_rfc_3339_says(text: str, then: datetime | None) -> None:
    assert image_config.moment(text) == then


@given(st.text("0123456789-:.+TtZz") | st.text())
def test_no_text_is_too_odd_for_a_time(text: str) -> None:
    then = image_config.moment(text)
    assert then is None or then.tzinfo is UTC


@pytest.mark.parametrize("created", [None, 5, 1.5, True, {}, [], "", "yesterday", "\ud800", "0001-01-01T00:00:00Z"])
def test_a_config_without_a_time_is_a_config(created: object) -> None:
    config = image_config.read(of(created=created, history=[{"created": created}]))
    assert image_config.moment(image_config.created_of(config)) is None
    assert [step.created_at for step in image_config.history(config)] == [None, None]


def test_halves_of_surrogate_pairs_are_read_as_go_reads_them() -> None:
    config = image_config.read(of(author="\ud83d\ude00 \ud800", config={"Labels": {"\udc00": "\udfff"}}))
    assert (config["author"], config["config"]) == ("\U0001f600 \ufffd", {"Labels": {"\ufffd": "\ufffd"}})


@pytest.mark.parametrize("epoch", ["soon", "1.5", "253402300800", "9" * 40])
def test_a_source_date_epoch_that_is_no_time_is_refused(epoch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", epoch)
    with pytest.raises(ConfigError, match="which is no time"):
        image_config.now()
