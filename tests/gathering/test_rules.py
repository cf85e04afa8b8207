"""Patterns as moby's patternmatcher means them: held against a port of it, which passes BuildKit's own examples."""

from __future__ import annotations

import time

import pytest
from e2b_dockerfile_utils import PatternMatcher
from hypothesis import example, given
from hypothesis import strategies as st

from layerstore.build.context.ignore import rule_of, rules_of
from layerstore.gathering import Rules

PARTS = st.sampled_from(
    [
        "a",
        "b",
        "ab",
        "a.b",
        "*",
        "**",
        "a*",
        "*b",
        "?",
        "a?",
        "[ab]",
        "[^a]",
        "[a-c]x",
        "\\*",
        "**a",
        "a**",
        "***",
        "é",
        "[^é]",
    ]
)
PATTERNS = st.builds(
    lambda taken, slash, parts, end: taken + slash + "/".join(parts) + end,
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "./"]),
    st.lists(PARTS, min_size=1, max_size=4),
    st.sampled_from(["", "", "/", "/."]),
)
NAMES = st.sampled_from(["a", "b", "ab", "a.b", "bx", "*", "é", "xa", "\udcff", "a\nb", "]"])
PATHS = st.lists(NAMES, min_size=1, max_size=5).map("/".join)


@given(patterns=st.lists(PATTERNS, min_size=1, max_size=5), paths=st.lists(PATHS, min_size=1, max_size=8))
@example(patterns=["a", "!a/b", "a"], paths=["a/b", "a/b/a", "a"])
@example(patterns=["**a"], paths=["b/xa", "xa", "a/xa/b"])
@example(patterns=["a**"], paths=["a", "ab", "a\nb", "a/b"])
@example(patterns=["**/a*"], paths=["a\nb/a", "b/ab"])
@example(patterns=["**", "!a/**/b"], paths=["a", "a/b", "a/x/b", "b"])
def test_what_is_left_out_is_what_moby_leaves_out(patterns: list[str], paths: list[str]) -> None:
    judge, rules = PatternMatcher(patterns), rules_of(patterns)
    assert [rules.leaves_out(path) for path in paths] == [judge.matches(path) for path in paths]


@given(patterns=st.lists(PATTERNS, min_size=1, max_size=5), folder=PATHS, below=PATHS)
def test_a_folder_is_not_passed_by_if_something_in_it_is_taken_back(
    patterns: list[str], folder: str, below: str
) -> None:
    rules = rules_of(patterns)
    if rules.leaves_out(folder) and not rules.leaves_out(f"{folder}/{below}"):
        assert rules.may_keep_below(folder)


@pytest.mark.parametrize("pattern", ["[", "a[", "[]", "[a", "[a-", "[-a]", "[a-]", "a\\", "!", "[b-a]", "[\\"])
def test_patterns_that_cannot_be_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        rules_of([pattern])


@pytest.mark.parametrize("pattern", ["**/" * 60 + "x", "*a" * 200 + "b", "[a-z]*" * 100 + "9", "**/a*b**/c*" * 30])
def test_no_pattern_takes_longer_than_its_length_and_that_of_the_path(pattern: str) -> None:
    rules = rules_of([pattern])
    path = "/".join(["a" * 200] * 15)
    began = time.process_time()
    assert not rules.leaves_out(path)
    assert time.process_time() - began < 1


def test_more_patterns_than_anybody_needs_are_refused() -> None:
    with pytest.raises(ValueError, match="too many"):
        Rules([rule_of("x" * 1000)] * 2000)
