"""Filters: docker's names, and docker's meanings of them."""

from __future__ import annotations

import click
import pytest

from layerstore.cli import filters


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("foo/bar", True),
        ("foo/bar:baz", True),
        ("foo/*", True),
        ("foo/*:b*", True),
        ("f?o/ba[rz]", True),
        ("docker.io/foo/bar", True),
        ("*", False),
        ("bar", False),
        ("foo/bar:b", False),
        ("foo", False),
    ],
)
def test_a_pattern_fits_name_and_tag_or_the_name_alone(pattern: str, fits: bool) -> None:  # noqa: FBT001 - a case
    assert filters.matches_reference(pattern, "foo/bar", "baz") is fits


def test_a_pattern_may_spell_out_docker_hub() -> None:
    assert filters.matches_reference("docker.io/library/debian", "debian", "12")
    assert filters.matches_reference("library/debian:12", "debian", "12")


@pytest.mark.parametrize("pattern", ["[z-a]", "[", "[]", "[a", "[^", "debian\\"])
def test_a_broken_pattern_is_wrong_usage(pattern: str) -> None:
    with pytest.raises(click.UsageError, match="not a pattern"):
        filters.matches_reference(pattern, "debian", "12")


@pytest.mark.parametrize(
    ("expression", "fits"), [("web", True), ("^web$", True), ("^/web", True), ("w.b", True), ("^eb", False)]
)
def test_a_container_s_name_fits_an_expression(expression: str, fits: bool) -> None:  # noqa: FBT001 - a case
    assert filters.matches_name(expression, "web") is fits


def test_a_broken_expression_is_wrong_usage() -> None:
    with pytest.raises(click.UsageError, match="regular expression"):
        filters.matches_name("(", "web")


def test_labels_have_to_be_there_all() -> None:
    labels = {"a": "1", "b": ""}
    assert filters.has_labels(labels, ["a", "a=1", "b", "b="])
    assert not filters.has_labels(labels, ["a=2"])
    assert not filters.has_labels(labels, ["a", "c"])


def test_truth_and_time() -> None:
    assert filters.truth("dangling", "TRUE")
    assert not filters.truth("dangling", "0")
    with pytest.raises(click.UsageError, match="dangling is true or false, not 'maybe'"):
        filters.truth("dangling", "maybe")
    with pytest.raises(click.UsageError, match="until is a time"):
        filters.time("until", "maybe")
