"""Whatever a Dockerfile says: it is read and carried out on values, or refused in words. Nothing else happens."""

from hypothesis import given
from hypothesis import strategies as some

from layerstore.build.checks import check
from layerstore.build.errors import BuildError
from layerstore.build.graph import plan
from layerstore.build.language import Scope, apply_config, begin_config, history_line, parse, program_of
from layerstore.build.language.instructions import Run

SPELLED = (
    "FROM RUN COPY ADD ENV ARG LABEL EXPOSE VOLUME USER WORKDIR CMD ENTRYPOINT SHELL STOPSIGNAL HEALTHCHECK ONBUILD "
    "MAINTAINER from AS scratch a b $a ${a:-b} ${a#*} ${a/b/c} ${ \" ' \\ ` = a=b 'a=b' [\"a\"] [ ] { , <<E <<-'E' E # "
    "--from=a --mount=type=cache,target=/x --mount=from=b --chown=a --link --platform=$a --interval=1s NONE 80 80/udp "
    "1-99999 / .. \t \r \ufeff \udcff \0 é # syntax=a check=skip=all escape=` \\\n \n"
)
WORDS = SPELLED.split(" ")
TEXTS = some.lists(some.sampled_from(WORDS), max_size=40).map(" ".join)
PIECES = some.lists(
    some.one_of(
        some.just("FROM scratch\n"),
        some.just("FROM a AS b\n"),
        some.builds("{} {}\n".format, some.sampled_from(WORDS[:18]), TEXTS),
        some.builds("RUN <<E\n{}\nE\n".format, TEXTS),
        some.builds("ONBUILD RUN <<E\n{}\nE\n".format, TEXTS),
    ),
    max_size=8,
).map("".join)


@given(some.one_of(TEXTS, PIECES, PIECES.map("FROM scratch\n{}".format), some.text()))
def test_any_text_is_read_or_refused(text):
    refused = None
    try:
        dockerfile = parse(text)
        made = plan(dockerfile, everything=True)
        check(made)
    except BuildError as error:
        refused = error
    if refused is not None:
        assert refused.message
        assert str(refused)
        return
    for stage in made.stages:
        carry_out(stage.stage.instructions, made.global_args, dockerfile.escape)


def carry_out(instructions, values, escape):
    """All that a build does with them but for files."""
    config = begin_config(None)
    scope = Scope.start(values, {}, {}, config["Env"], escape=escape)
    for instruction in instructions:
        place = instruction.place
        try:
            filled = scope.expand(instruction)
            line = history_line(filled, scope, config)
            config = apply_config(config, filled, command_given=scope.command_given)
        except BuildError as error:
            place = error.place
            break
        finally:
            assert place == instruction.place
        if isinstance(filled, Run):
            assert program_of(filled, config).argv
        assert line is None or line.startswith(filled.NAME)
        assert scope.shown(filled)
        (line or "").encode()  # nothing in it that JSON could not have
        scope = scope.after(filled)


@given(some.text(alphabet="ab$*#%/{}:-+?'\"\\` \t<=é\n"), some.dictionaries(some.sampled_from("ab"), some.text("ab*/")))
def test_any_word_is_expanded_or_refused(text, variables):
    scope = Scope.start({}, {}, {}, variables)
    try:
        found = scope.word(text)
    except ValueError as error:
        found = str(error)
    assert found or not text or any(letter in text for letter in "$\"'\\")
