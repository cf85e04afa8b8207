"""The JSON: what is written is read again, fits the schema in docs, and a damaged file is refused in words."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from layerstore.bench.results import BARE, Failure, Figure, Refused, Results, Subject, parse, read, to_json
from layerstore.errors import ConfigError

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "bench.schema.json").read_text())

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
facts = st.dictionaries(text, text, max_size=3)
seconds = st.lists(st.floats(0, 1e6), min_size=1, max_size=4).map(tuple)
figures = st.builds(
    Figure, text, text, st.sampled_from(["warm", "cold"]), text, st.integers(1, 9), seconds,
    st.lists(st.integers(-(2**50), 2**50), max_size=3).map(tuple),
)  # fmt: skip
made = st.builds(
    Results,
    started=text,
    seconds=st.floats(0, 1e6),
    machine=facts,
    filesystem=facts,
    settings=st.just({
        "rounds": 1, "seed": 1, "scale": 1, "caches": ["warm"], "workloads": [], "image": "made", "large_file": 1,
        "chmod_files": 0,
    }),
    subjects=st.lists(st.builds(Subject, text, text | st.none(), st.lists(text, max_size=2).map(tuple),
                                st.lists(st.tuples(text, text), max_size=2).map(tuple)), max_size=3).map(tuple),
    refused=st.lists(st.builds(Refused, text, text, text), max_size=2).map(tuple),
    figures=st.lists(figures, max_size=4).map(tuple),
    failures=st.lists(st.builds(Failure, text, text, text, text, text), max_size=2).map(tuple),
    notes=st.lists(text, max_size=2).map(tuple),
    order=st.lists(st.tuples(st.integers(0, 9), text, text, st.lists(text, max_size=2).map(tuple)), max_size=2)
    .map(tuple),
)  # fmt: skip


@given(made)
def test_what_is_written_is_read_again_and_fits_the_schema(results: Results) -> None:
    written = to_json(results)
    jsonschema.validate(json.loads(written), SCHEMA)
    assert parse(written) == results


def test_the_schema_is_one_and_refuses(results: Results) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    content = json.loads(to_json(results))
    content["figures"][0]["seconds"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, SCHEMA)


@given(made, st.data())
def test_a_damaged_file_is_an_error_of_ours_or_still_results(results: Results, data: st.DataObject) -> None:
    content = json.loads(to_json(results))
    target: Any = content
    while isinstance(target, dict | list) and target:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(target[key], dict | list) or data.draw(st.booleans()):
            target[key] = data.draw(st.none() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({}))
            break
        target = target[key]
    with suppress(ConfigError):
        assert parse(json.dumps(content)).subjects is not None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "it is no JSON object"),
        ("{}", "no results of `layerstore bench`"),
        ('{"kind": "layerstore-bench", "version": 2}', "version 2 of the format; this layerstore reads version 1"),
    ],
)
def test_other_files_are_refused(content: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse(content, "old.json")


def test_a_negative_time_is_refused(results: Results) -> None:
    with pytest.raises(ConfigError, match="negative"):
        parse(to_json(evolve(results, figures=(evolve(results.figures[0], seconds=(-1.0,)),))))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "old.json")


def test_ratios_are_to_the_bare_filesystem(results: Results) -> None:
    for key in results.measured():
        found = results.at(key)
        assert results.ratio(found[BARE]) is None
        assert results.ratio(found["alpha"]) == pytest.approx(2, rel=0.1)
