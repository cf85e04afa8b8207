"""The values of --cache-from and --cache-to, and what a hostile cache can say of itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from layerstore import ChainID, ConfigError, InvalidArchive
from layerstore.build.cache import Spec, parse_spec
from layerstore.build.cache.documents import FIELD, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("host/app:1", Spec("registry", "host/app:1")),
        ("type=registry,ref=host/app", Spec("registry", "host/app")),
        ("type=local,src=/a b/c", Spec("local", "/a b/c")),
        ('type=local,"src=/a,b"', Spec("local", "/a,b")),
        ("type=store,src=x", Spec("store", "x")),
        ("type=inline,ref=host/app", Spec("registry", "host/app")),
    ],
)
def test_where_a_cache_is_asked(text: str, expected: Spec) -> None:
    assert parse_spec(text, to=False) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=inline", Spec("inline", "")),
        ("type=registry,ref=x,mode=max,image-manifest=true", Spec("registry", "x", is_max=True)),
        ("type=local,dest=x,compression=zstd", Spec("local", "x", compression="zstd")),
        ("type=local,dest=x,compression=uncompressed", Spec("local", "x", compression="none")),
        ("type=store,dest=x,ignore-error=true", Spec("store", "x", is_optional=True)),
    ],
)
def test_where_a_cache_is_given(text: str, expected: Spec) -> None:
    assert parse_spec(text, to=True) == expected


@pytest.mark.parametrize(
    ("text", "to", "words"),
    [
        ("type=s3,bucket=x", True, "the type s3 is not supported"),
        ("type=registri,ref=x", True, "the type registri is not known"),
        ("type=local,dest=x", False, "local has no attribute 'dest'"),
        ("type=local", True, "local needs dest="),
        ("type=registry,ref=x,mode=all", True, "mode is min or max"),
        ("type=inline,mode=max", True, "an image has its own steps alone"),
        ("type=local,dest=x,compression=lz4", True, "there is no compression 'lz4'"),
        ("type=local,x", True, "'x' is not NAME=VALUE"),
    ],
)
def test_what_is_wrong_is_told(text: str, words: str, *, to: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec(text, to=to)
    assert words in caught.value.message


def test_the_nearest_type_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_spec("type=registri,ref=x", to=True)
    assert "Is registry meant?" in str(caught.value)


JSON = some.recursive(
    some.none() | some.booleans() | some.integers() | some.text(),
    lambda inner: some.lists(inner) | some.dictionaries(some.text(), inner),
)


@given(JSON, JSON, JSON)
def test_no_document_does_more_than_to_be_refused(levels: object, steps: object, rootfs: object) -> None:
    config = {FIELD: {"version": 1, "layers": levels, "steps": steps}, "rootfs": rootfs}
    try:
        document = read(json.dumps(config).encode(), "it")
    except InvalidArchive:
        return
    for step in document.steps.values():
        if step.layer is not None:
            document.stack(step.layer)


def test_layers_that_stand_on_each_other_are_no_stack() -> None:
    levels = {"x": {"diff_id": "sha256:1", "parent": "y"}, "y": {"diff_id": "sha256:2", "parent": "x"}}
    config = {FIELD: {"version": 1, "layers": levels, "steps": []}, "rootfs": {}}
    assert read(json.dumps(config).encode(), "it").stack(ChainID("x")) is None
