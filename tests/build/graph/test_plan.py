"""Which stages a target needs, and what names mean."""

import pytest

from layerstore.build.errors import BuildError
from layerstore.build.graph import plan
from layerstore.build.language import parse


def planned(text, **options):
    return plan(parse(text), **options)


def refused(text, **options):
    with pytest.raises(BuildError) as caught:
        planned(text, **options)
    return caught.value


THREE = """\
FROM debian AS base
FROM base AS unused
RUN never
FROM base AS tools
RUN --mount=from=docs,target=/d make
FROM scratch
COPY --from=tools /a /a
COPY --from=0 /b /b
COPY --from=other /c /c
"""


def test_only_what_the_target_needs_is_planned_and_in_order():
    made = planned(THREE)
    assert [stage.index for stage in made.stages] == [0, 2, 3]
    assert made.target == 3
    assert made[3].needs == {0, 2}
    assert made[2].needs == {0}
    assert [(base.kind, base.name) for base in made.images] == [
        ("image", "debian"),
        ("image", "docs"),
        ("image", "other"),
    ]


def test_a_target_is_named_or_numbered():
    assert planned(THREE, target="TOOLS").target == 2
    assert planned(THREE, target="1").target == 1
    error = refused(THREE, target="tool")
    assert error.message == 'target stage "tool" could not be found'
    assert error.remedy == "Did you mean tools?"


def test_a_name_is_the_earlier_stage_then_a_context_then_an_image():
    text = "FROM busybox AS busybox\nFROM busybox\nCOPY --from=ctx a b\nCOPY --from=alpine a b\n"
    made = planned(text, contexts={"ctx": "x"})
    assert [stage.base.kind for stage in made.stages] == ["image", "stage"]
    assert {name: base.kind for name, base in made[1].sources.items()} == {"ctx": "context", "alpine": "image"}


def test_a_named_context_stands_in_for_an_image_by_its_short_name():
    made = planned("FROM docker.io/library/alpine:latest\nRUN x\n", contexts={"alpine": "x"})
    assert (made[0].base.kind, made[0].base.name) == ("context", "alpine")
    assert len(made[0].stage.instructions) == 1


def test_a_stage_by_the_name_of_a_context_is_that_context_and_nothing_more():
    made = planned("FROM a AS dep\nRUN x\nFROM scratch\nCOPY --from=dep a b\n", contexts={"dep": "y"})
    assert made[0].base.kind == "context"
    assert made[0].stage.instructions == ()


def test_from_sees_global_arguments_and_those_of_the_platform_only():
    text = "ARG V=1\nARG B=debian:$V\nFROM --platform=$BUILDPLATFORM $B\nARG V=2\nFROM debian:${V:-none}\n"
    made = planned(text, platform_args={"BUILDPLATFORM": "linux/arm64"}, target="0")
    assert (made[0].base.name, made[0].base.platform) == ("debian:1", "linux/arm64")
    assert (
        planned(text, build_args={"V": "9"}, target="0", platform_args={"BUILDPLATFORM": "x"})[0].base.name
        == "debian:9"
    )
    assert planned(text.partition("FROM")[0] + "FROM debian:${V:-none}")[0].base.name == "debian:1"


def test_a_base_that_is_blank_is_refused_at_its_line():
    assert "base name ($X) should not be blank" in str(refused("FROM $X\n"))
    assert "empty platform value from expression $X" in str(refused("FROM --platform=$X a\n"))


def test_triggers_of_a_stage_bring_their_needs_to_the_stage_on_top():
    text = "FROM a AS files\nFROM b AS base\nONBUILD COPY --from=files x y\nFROM base\nFROM scratch\n"
    made = planned(text, target="2")
    assert [stage.index for stage in made.stages] == [0, 1, 2]
    assert made[2].stage.instructions[0].trigger
    assert made[1].needs == frozenset()


def test_triggers_of_an_image_are_planned_once_they_are_known():
    text = "FROM a AS files\nFROM image\n"
    assert [stage.index for stage in planned(text).stages] == [1]
    made = planned(text, triggers={1: ["COPY --from=files x y"]})
    assert [stage.index for stage in made.stages] == [0, 1]


def test_triggers_are_not_passed_on_to_grandchildren():
    made = planned("FROM a AS base\nONBUILD RUN x\nFROM base AS child\nFROM child\n")
    assert [len(stage.stage.instructions) for stage in made.stages] == [1, 1, 0]


def test_a_circle_is_refused_at_a_line_that_closes_it():
    text = "FROM a AS one\nCOPY --from=two x y\nFROM b AS two\nCOPY --from=one x y\n"
    error = refused(text)
    assert error.message == "circular dependency detected on stage: one: one → two → one"
    assert error.place.line == 4
    assert "circular dependency detected on stage: self" in str(refused("FROM a AS self\nCOPY --from=self x y\n"))


def test_a_stage_that_begins_later_is_refused_at_the_line_that_needs_it():
    error = refused("FROM a AS one\nCOPY --from=two x y\nFROM b AS two\n", target="one")
    assert 'cannot copy from stage "two", it needs to be defined before current stage "one"' in error.message
    assert error.place.line == 2


def test_a_number_that_no_stage_has_is_refused():
    assert "invalid stage index 7" in str(refused("FROM a\nCOPY --from=7 x y\n"))


def test_the_context_is_needed_only_if_something_takes_from_it():
    assert not planned("FROM a\nRUN x\nCOPY <<E /f\nx\nE\n").uses_context
    assert planned("FROM a\nCOPY x y\n").uses_context
    assert planned("FROM a\nRUN --mount=target=/src x\n").uses_context
    assert not planned("FROM a\nRUN --mount=type=cache,target=/c x\n").uses_context


def test_of_two_stages_of_one_name_the_nearer_one_above_is_meant():
    made = planned("FROM a AS x\nFROM b\nCOPY --from=x f g\nFROM c AS x\nFROM x\n", target="1")
    assert made[1].sources["x"].stage == 0
    assert planned("FROM a AS x\nFROM c AS x\nFROM x\n")[2].base.stage == 1


def test_a_thousand_stages_on_each_other_are_planned():
    text = "FROM a AS s0\n" + "".join(f"FROM s{number} AS s{number + 1}\n" for number in range(2000))
    assert len(planned(text).stages) == 2001
