"""From text to instructions: what each line says, and what is refused with its line."""

import time

import pytest

from layerstore.build.errors import BuildError
from layerstore.build.language import (
    Add,
    Arg,
    Argument,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    HealthCheck,
    Heredoc,
    OnBuild,
    Pair,
    Run,
    Shell,
    Volume,
    parse,
    with_triggers,
)


def only(line):
    """The one instruction of a stage."""
    return parse(f"FROM scratch\n{line}\n").stages[0].instructions[0]


def refused(text):
    with pytest.raises(BuildError) as caught:
        parse(text)
    return caught.value


def test_stages_have_names_numbers_and_what_is_between_them():
    dockerfile = parse("ARG V=1\nFROM debian:$V AS Build\nRUN make\nFROM --platform=$BUILDPLATFORM scratch\nCOPY a b\n")
    build, last = dockerfile.stages
    assert (build.index, build.name, build.base.image, build.base.alias_written) == (0, "build", "debian:$V", "Build")
    assert (last.index, last.name, last.shown, last.base.platform) == (1, None, "stage-1", "$BUILDPLATFORM")
    assert [type(each) for each in build.instructions] == [Run]
    assert [type(each) for each in last.instructions] == [Copy]
    assert dockerfile.global_args[0].arguments == (Argument("V", "1"),)


def test_directives_are_read_from_the_first_comments_alone():
    dockerfile = parse("# syntax=docker/dockerfile:1\n# ESCAPE = `\n# check=skip=all\n#\n# check=error=true\nFROM a\n")
    assert dockerfile.directives == {"syntax": "docker/dockerfile:1", "escape": "`", "check": "skip=all"}
    assert dockerfile.escape == "`"


def test_a_file_in_another_language_is_refused():
    for syntax in (
        "docker/dockerfile:1",
        "docker.io/docker/dockerfile-upstream:master",
        "host:5000/x/dockerfile@sha256:1",
    ):
        assert parse(f"# syntax={syntax}\nFROM a\n").directives["syntax"] == syntax
    error = refused("# syntax=example/other:1\nFROM a\n")
    assert "the frontend example/other:1 cannot be fetched here" in error.message
    assert error.place.line == 1


def test_a_directive_twice_or_another_escape_is_refused():
    assert "only one escape parser directive" in str(refused("# escape=`\n# escape=`\nFROM a\n"))
    assert "invalid escape token" in str(refused("# escape=x\nFROM a\n"))


def test_the_escape_letter_continues_lines():
    assert parse("# escape=`\nFROM a\nRUN dir `\n  C:\\\n").stages[0].instructions[0].command == "dir   C:\\"


def test_places_span_continuations_and_heredocs():
    first, second, third = parse("FROM a\nRUN x \\\n# c\n  y\nRUN <<E\nz\nE\nUSER u\n").stages[0].instructions
    assert (first.place.line, first.place.end, first.place.text) == (2, 4, "RUN x \\\n# c\n  y")
    assert (second.place.line, second.place.end) == (5, 7)
    assert (third.place.line, third.place.end, str(third.place)) == (8, 8, "Dockerfile:8")


def test_both_forms_of_commands():
    assert only("RUN a  b").command == "a  b"
    assert only('RUN ["a", "b c"]').command == ("a", "b c")
    assert only("RUN ['a']").command == "['a']"
    assert only("CMD a b") == Cmd(command="a b", place=only("CMD a b").place, original="CMD a b")
    assert only("CMD []").command == ()
    assert isinstance(only('ENTRYPOINT ["a"]'), Entrypoint)
    assert only('SHELL ["/bin/bash", "-c"]').words == ("/bin/bash", "-c")


def test_pairs_keep_their_quotes_until_they_are_expanded():
    assert only("ENV a=1 b='x y'").variables == (Pair("a", "1"), Pair("b", "'x y'"))
    assert only("ENV a b c").variables == (Pair("a", "b c", legacy=True),)
    assert only('LABEL "a b"=c').labels == (Pair('"a b"', "c"),)
    assert only("ARG a b=1 c=").arguments == (Argument("a"), Argument("b", "1"), Argument("c", ""))


def test_copy_and_add_with_all_that_they_have():
    copy = only("COPY --from=x --chown=a:b --chmod=u+x --link --parents --exclude=*.a --exclude=b src/ 'c d' /to/")
    assert isinstance(copy, Copy)
    assert (copy.sources, copy.target, copy.from_) == (("src/", "'c d'"), "/to/", "x")
    assert (copy.chown, copy.chmod, copy.link, copy.parents, copy.exclude) == ("a:b", "u+x", True, True, ("*.a", "b"))
    add = only("ADD --keep-git-dir=true --checksum=sha256:1 --unpack=false https://x/y /z")
    assert isinstance(add, Add)
    assert (add.keep_git_dir, add.checksum, add.unpack, add.link, add.from_) == (True, "sha256:1", False, False, None)
    assert only("ADD a b").unpack is None
    assert only('COPY ["a b", "c"]').sources == ("a b",)


def test_heredocs_of_copy_lose_their_tabs_and_those_of_run_keep_them():
    copy = only("COPY a <<X <<-'Y' /d/\n1\nX\n\t2 $v\n\tY")
    assert (copy.sources, copy.target) == (("a",), "/d/")
    assert copy.heredocs == (Heredoc("X", "1\n"), Heredoc("Y", "2 $v\n", expand=False, chomp=True))
    run = only("RUN cat <<-E\n\tx\n\tE")
    assert run.heredocs == (Heredoc("E", "\tx\n", chomp=True),)


def test_what_looks_like_a_heredoc_elsewhere_is_none():
    assert only("ENV a=<<E").variables == (Pair("a", "<<E"),)
    assert only('RUN ["cat", "<<E"]').command == ("cat", "<<E")
    assert only("RUN cat <<<E").command == "cat <<<E"


def test_onbuild_keeps_its_instruction_with_its_heredoc():
    first, second = parse("FROM a\nONBUILD RUN <<E\nx\nE\nonbuild  COPY . /app\n").stages[0].instructions
    assert first.expression == "RUN <<E\nx\nE"
    assert (first.place.line, first.place.end) == (2, 4)
    assert second.expression == "COPY . /app"
    assert (first.keyword, second.keyword) == ("ONBUILD", "onbuild")
    lower = parse("from a\nonbuild run <<e\nx\ne\n").stages[0].instructions[0]
    assert (lower.keyword, lower.expression) == ("onbuild", "run <<e\nx\ne")


def test_an_onbuild_within_a_heredoc_is_text():
    (run,) = parse("FROM a\nRUN <<E\nONBUILD RUN <<F\nE\n").stages[0].instructions
    assert run.heredocs[0].content == "ONBUILD RUN <<F\n"


def test_triggers_stand_at_the_front_and_at_the_place_of_from():
    stage = parse("FROM a\nFROM base\nUSER u\n").stages[1]
    trigger, user = with_triggers(stage, ["RUN x"]).instructions
    assert (trigger.command, trigger.trigger, trigger.place.line) == ("x", True, 2)
    assert not user.trigger
    with pytest.raises(BuildError, match="ONBUILD RUNN x: unknown instruction") as caught:
        with_triggers(stage, ["RUNN x"])
    assert caught.value.place.line == 2
    with pytest.raises(BuildError, match="single expression"):
        with_triggers(stage, ["RUN x\nRUN y"])


def test_healthchecks_are_in_nanoseconds():
    check = only("HEALTHCHECK --interval=1m30s --timeout=1.5s --start-period=5ms --retries=3 CMD curl x")
    assert isinstance(check, HealthCheck)
    assert check.test == ("CMD-SHELL", "curl x")
    assert (check.interval, check.timeout, check.start_period, check.retries) == (90 * 10**9, 1500000000, 5000000, 3)
    assert only('HEALTHCHECK CMD ["a"]').test == ("CMD", "a")
    assert only("HEALTHCHECK none").test == ("NONE",)


def test_comments_above_an_instruction_are_kept():
    text = "# syntax=dockerfile\n# about build\nFROM a AS build\n# one\n#\n# two\n\nRUN x\nRUN y\n"
    stage = parse(text).stages[0]
    assert stage.base.comments == ("about build",)
    assert [each.comments for each in stage.instructions] == [("two",), ()]


def test_bytes_that_are_no_utf8_do_not_matter_in_a_comment():
    dockerfile = parse(b"\xef\xbb\xbf# caf\xe9\nFROM a\r\nRUN x \\\r\n y\r\n")
    assert dockerfile.stages[0].instructions[0].command == "x  y"
    assert parse("FROM a\nRUN <<E\n\udce9\nE\n").stages[0].instructions[0].heredocs[0].content == "\ufffd\n"


REFUSED = {
    "": "file with no instructions",
    "# a comment\n": "file with no instructions",
    "ARG a\n": "dockerfile contains no stages to build",
    "RUN x\n": "no build stage in current context",
    "FROM a b\n": "FROM requires either one or three arguments",
    "FROM a AS 1b\n": "invalid name for build stage",
    "FROM a\nENV a\n": "ENV must have two arguments",
    "FROM a\nENV a=1 b\n": "Must be of the form: name=value",
    "FROM a\nENV =1\n": "ENV names can not be blank",
    "FROM a\nARG =1\n": "ARG names can not be blank",
    "FROM a\nCOPY x\n": "COPY requires at least two arguments, but only one was provided",
    "FROM a\nCOPY x <<E\nE\n": "COPY cannot accept a heredoc as a destination",
    "FROM a\nCOPY --from=$x a b\n": "variable expansion is not supported for --from",
    "FROM a\nRUN <<E\nx\n": "unterminated heredoc",
    "FROM a\nRUN\n": "RUN requires at least one argument",
    "FROM a\nRUN --network=hots x\n": "unsupported network mode",
    "FROM a\nUSER\n": "USER requires exactly one argument",
    "FROM a\nVOLUME\n": "VOLUME requires at least one argument",
    'FROM a\nVOLUME [""]\n': "VOLUME specified can not be an empty string",
    "FROM a\nSHELL sh -c\n": "SHELL requires the arguments to be in JSON form",
    "FROM a\nONBUILD\n": "ONBUILD requires at least one argument",
    "FROM a\nONBUILD ONBUILD RUN x\n": "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed",
    "FROM a\nONBUILD FROM b\n": "FROM isn't allowed as an ONBUILD trigger",
    "FROM a\nONBUILD maintainer b\n": "MAINTAINER isn't allowed as an ONBUILD trigger",
    "FROM a\nHEALTHCHECK x\n": "Unknown type",
    "FROM a\nHEALTHCHECK CMD\n": "Missing command after HEALTHCHECK CMD",
    "FROM a\nHEALTHCHECK NONE x\n": "HEALTHCHECK NONE takes no arguments",
    "FROM a\nHEALTHCHECK --interval=1us CMD x\n": "cannot be less than 1ms",
    "FROM a\nHEALTHCHECK --interval=x CMD x\n": "not a duration",
    "FROM a\nHEALTHCHECK --retries=-1 CMD x\n": "--retries is no number that can be",
    "FROM a\nRUN x\0\n": "has a zero byte",
    'FROM a\nCMD ["a", 1]\n': "Only strings are supported in JSON arrays",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_is_refused_with_buildkits_reason(text):
    error = refused(text)
    assert REFUSED[text] in error.message
    lines = text.split("\n")
    if len(lines) > 1 and not text.startswith("#"):
        shown = 1 if len(lines) == 2 else 2
        assert error.place is not None
        assert error.place.line == shown
        assert f"{shown:4} | >>> {lines[shown - 1]}" in str(error)


NEAREST = {
    "FRM a\n": "Did you mean FROM?",
    "FROM a\nENTRYPOIN x\n": "Did you mean ENTRYPOINT?",
    "FROM a\nCOPY --form=x a b\n": "Did you mean --from?",
    "FROM a\nRUN --mont=type=cache x\n": "Did you mean --mount?",
    "FROM --plattform=x a\n": "Did you mean --platform?",
    "FROM a\nRUN --mount=typ=cache x\n": "Did you mean type=?",
    "FROM a\nRUN --mount=type=cahce x\n": "Did you mean cache?",
    "FROM a\nRUN --mount=type=cache,sharing=lock x\n": "Did you mean locked?",
    "FROM a\nRUN --network=hots x\n": "Did you mean host?",
    "FROM a\nENV --x a=b\n": "ENV has no flags.",
    "FROM a\nCOPY --qqqq a b\n": "COPY has --chmod, --chown, --exclude, --from, --link, --parents.",
}


@pytest.mark.parametrize("text", NEAREST)
def test_what_nobody_knows_names_the_nearest(text):
    assert refused(text).remedy == NEAREST[text]


def test_json_that_is_nested_too_deeply_is_an_error_and_no_crash():
    assert "nested too deeply" in str(refused("FROM a\nRUN " + "[" * 200_000))


def test_a_flag_twice_or_without_a_value_is_refused():
    assert "duplicate flag specified: --from" in str(refused("FROM a\nCOPY --from=x --from=y a b\n"))
    assert "missing a value on flag: --from" in str(refused("FROM a\nCOPY --from a b\n"))
    assert "expecting boolean value for flag --link, not: maybe" in str(refused("FROM a\nCOPY --link=maybe a b\n"))


def test_types_of_the_rest():
    assert isinstance(only("VOLUME /a /b"), Volume)
    assert only("VOLUME /a /b").paths == ("/a", "/b")
    assert isinstance(only("ONBUILD RUN x"), OnBuild)
    assert isinstance(only("ENV a=b"), Env)
    assert isinstance(only("ARG a"), Arg)
    assert isinstance(only('SHELL ["a"]'), Shell)
    assert only("EXPOSE 80 53/udp").ports == ("53/udp", "80")
    assert only("WORKDIR /a b").path == "/a b"
    assert only("STOPSIGNAL 9").signal == "9"
    assert only("MAINTAINER me <a@b>").author == "me <a@b>"
    assert only("USER a:b").user == "a:b"


@pytest.mark.parametrize(
    "text",
    [
        "FROM a\nRUN " + "x" * 5_000_000 + "\n",
        "FROM a\nRUN x" + " \\\n y" * 50_000,
        "# c\n" * 200_000 + "FROM a\n",
        "FROM a\nRUN <<E\n" + "x\n" * 500_000 + "E\n",
        "FROM a\n" + "ONBUILD RUN <<E\nx\nE\n" * 2_000,
        "FROM a\nCOPY " + "--exclude=x " * 20_000 + "a b\n",
    ],
    ids=["long line", "continuations", "comments", "heredoc", "onbuild", "flags"],
)
def test_a_huge_file_is_read_in_time(text):
    began = time.process_time()
    assert parse(text).stages
    assert time.process_time() - began < 10


def test_no_public_name_is_hidden_by_a_module_of_the_same_name():
    import types

    import layerstore.build.building
    from layerstore.build import language

    assert layerstore.build.building.build
    assert [name for name in language.__all__ if isinstance(getattr(language, name), types.ModuleType)] == []


def test_a_place_is_shown_among_the_lines_around_it():
    text = "FROM a\nRUN 1\nRUN 2\nRUN 3 \\\n  more\nRUN 4\nRUN 5\n"
    _, second, third, _, last = parse(text).stages[0].instructions
    ruler = "-" * 20
    assert second.place.shown.split("\n") == [
        *("Dockerfile:3", ruler, "   1 |     FROM a", "   2 |     RUN 1", "   3 | >>> RUN 2", "   4 |     RUN 3 \\"),
        *("   5 |       more", ruler),
    ]
    assert third.place.shown.split("\n")[2:-1] == [
        *("   3 |     RUN 2", "   4 | >>> RUN 3 \\", "   5 | >>>   more", "   6 |     RUN 4"),
    ]
    assert last.place.shown.split("\n")[2:-1] == ["   5 |       more", "   6 |     RUN 4", "   7 | >>> RUN 5"]


def test_a_place_of_many_and_long_lines_is_shown_in_part():
    (run,) = parse("FROM a\nRUN <<E\n" + "x" * 1000 + "\n" + "y\n" * 1000 + "E\n").stages[0].instructions
    shown = run.place.shown.split("\n")
    assert len(shown) == 44
    assert shown[2:5] == ["   1 |     FROM a", "   2 | >>> RUN <<E", f"   3 | >>> {'x' * 400}…"]
    assert shown[22:24] == ["     | 964 more lines", " 985 | >>> y"]
    assert shown[-2] == "1004 | >>> E"
