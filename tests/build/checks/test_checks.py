"""BuildKit's 22 checks: what each finds, what it leaves alone, and how it is silenced."""

import pytest

from layerstore.build.checks import RULES, check, refuse, settings_of
from layerstore.build.errors import BuildError
from layerstore.build.graph import plan
from layerstore.build.language import parse, platform_args

PLATFORM = platform_args("linux/amd64", "linux/amd64")


def found(text, *, build_args=None, **options):
    """The rules that a text breaks, with their lines."""
    made = plan(parse(text), build_args=build_args, platform_args=PLATFORM, everything=True)
    warnings = check(made, build_args=build_args, platform_args=PLATFORM, **options)
    return [(warning.rule, warning.place.line) for warning in warnings]


BROKEN = {
    "FROM scratch AS Base\n": [("StageNameCasing", 1)],
    "FROM scratch as base\n": [("FromAsCasing", 1)],
    "from scratch AS base\n": [("FromAsCasing", 1)],
    "FROM scratch\nRUN a \\\n\n b\n": [("NoEmptyContinuation", 4)],
    "FROM scratch\nrun a\nUSER b\n": [("ConsistentInstructionCasing", 2)],
    "from scratch\nrun a\nUSER b\n": [("ConsistentInstructionCasing", 3)],
    "FROM scratch AS a\nFROM scratch AS a\n": [("DuplicateStageName", 2)],
    "FROM scratch AS context\nFROM scratch AS scratch\n": [("ReservedStageName", 1), ("ReservedStageName", 2)],
    "FROM scratch\nCMD a\nENTRYPOINT b\n": [("JSONArgsRecommended", 2), ("JSONArgsRecommended", 3)],
    "FROM scratch\nMAINTAINER me\n": [("MaintainerDeprecated", 2)],
    "ARG base\nFROM ${bsae:-scratch}\n": [("UndefinedArgInFrom", 2)],
    "FROM --platform=${PLATFROM:-linux/x} a\n": [("UndefinedArgInFrom", 1)],
    "FROM scratch\nWORKDIR a\nWORKDIR b\n": [("WorkdirRelativePath", 2)],
    "FROM scratch\nARG src=.\nCOPY $scr /x\n": [("UndefinedVar", 3)],
    "FROM scratch\nARG a=$b\n": [("UndefinedVar", 2)],
    "FROM scratch\nARG a\nCOPY <<E <<'F' /x/\n$a ${b:-c} \\$d '$e'\nE\n$f\nF\n": [
        ("UndefinedVar", 3),
        ("UndefinedVar", 3),
    ],
    'FROM scratch\nCMD ["a"]\nCMD ["b"]\n': [("MultipleInstructionsDisallowed", 2)],
    "FROM scratch\nHEALTHCHECK NONE\nHEALTHCHECK CMD x\nHEALTHCHECK NONE\n": [
        ("MultipleInstructionsDisallowed", 2),
        ("MultipleInstructionsDisallowed", 3),
    ],
    "FROM scratch\nENV a b\nLABEL a b\n": [("LegacyKeyValueFormat", 2), ("LegacyKeyValueFormat", 3)],
    "FROM --platform=$TARGETPLATFORM a\n": [("RedundantTargetPlatform", 1)],
    "FROM scratch\nARG API_KEY\nENV password=x git_token=y\n": [
        ("SecretsUsedInArgOrEnv", 2),
        ("SecretsUsedInArgOrEnv", 3),
        ("SecretsUsedInArgOrEnv", 3),
    ],
    "ARG TAG\nFROM debian:${TAG}\n": [("InvalidDefaultArgInFrom", 2)],
    "FROM --platform=linux/amd64 a\n": [("FromPlatformFlagConstDisallowed", 1)],
    "FROM scratch\nEXPOSE 80/TcP\n": [("ExposeProtoCasing", 2)],
    "FROM scratch\nEXPOSE 127.0.0.1:80:80 8080:80\n": [("ExposeInvalidFormat", 2), ("ExposeInvalidFormat", 2)],
}


@pytest.mark.parametrize("text", BROKEN)
def test_what_each_rule_finds(text):
    assert found(text) == BROKEN[text]


KEPT = [
    "FROM scratch AS base\n",
    "from scratch as base\nrun a\n",
    "FROM scratch\nRUN <<'E'\nenv\nE\n",
    "FROM scratch\nRUN a \\\n # a comment\n b\n",
    'FROM scratch\nSHELL ["/x"]\nCMD a\n',
    'FROM scratch AS a\nSHELL ["/x"]\nFROM a\nENTRYPOINT b\n',
    "ARG base=scratch\nFROM $base\n",
    "FROM scratch AS build\nFROM Build\n",
    "ARG BUILDPLATFORM=linux/amd64\nFROM --platform=$BUILDPLATFORM a\n",
    "FROM scratch\nWORKDIR /a\nWORKDIR b\n",
    "FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b\n",
    'FROM scratch\nARG a\nCOPY $a $PATH /x/\nRUN echo $undefined\nCMD ["$undefined"]\n',
    "FROM scratch AS a\nARG v=1\nFROM a\nENV x=$v\n",
    "FROM scratch\nENV a='$b' c=\\$d\nLABEL e='$f'\n",
    'FROM scratch AS a\nCMD ["a"]\nFROM a\nCMD ["b"]\n',
    "FROM scratch\nENV PUBLIC_KEY=x TOKEN_FILE=y monkey=z\nARG AUTH_VERSION\n",
    "ARG TAG=12\nFROM debian:${TAG}\n",
    "FROM registry.example:5000/a/b_c:1.2@sha256:" + "0" * 64 + "\n",
    "FROM --platform=linux/amd64 a AS build_amd64\n",
    "FROM --platform=$BUILDPLATFORM a\n",
    "FROM scratch\nEXPOSE 80/tcp 8000-8001\n",
    "# a comment of somebody\nFROM scratch AS base\n# another one\nARG v\n",
    "FROM image\nENV x=$of_the_image\n",
]


@pytest.mark.parametrize("text", KEPT)
def test_what_is_left_alone(text):
    assert found(text) == []


def test_there_are_22_and_each_has_its_page():
    assert len(RULES) == 22
    assert RULES["JSONArgsRecommended"].url.endswith("/rule/json-args-recommended/")
    assert RULES["FromPlatformFlagConstDisallowed"].url.endswith("/from-platform-flag-const-disallowed/")
    assert RULES["SecretsUsedInArgOrEnv"].url.endswith("/secrets-used-in-arg-or-env/")
    covered = {rule for rules in BROKEN.values() for rule, _ in rules}
    assert set(RULES) - covered == {"InvalidBaseImagePlatform", "CopyIgnoredFile", "InvalidDefinitionDescription"}


def test_a_base_of_another_platform_is_told():
    text = "FROM a\n"
    assert found(text, platforms={0: ("linux/arm64", "linux/amd64")}) == [("InvalidBaseImagePlatform", 1)]


def test_variables_of_the_base_are_known_if_its_configuration_is():
    text = "FROM image\nENV x=$V y=$W\n"
    assert found(text, configs={0: {"Env": ["V=1"]}}) == [("UndefinedVar", 2)]


@pytest.mark.parametrize("line", ["EXPOSE 70000", "ENV a=${b:?}", "COPY --chmod=9 a b", "COPY a b c"])
def test_a_line_that_cannot_be_built_is_refused_where_its_base_is_known(line):
    text = f"FROM image\nRUN a\n{line}\n"
    assert found(text) == []
    with pytest.raises(BuildError) as caught:
        found(text, configs={0: {}})
    assert caught.value.place.line == 3


@pytest.mark.parametrize(
    ("ignore", "lines"),
    [
        (["secret"], [2, 3]),
        (["*"], [2, 3, 4, 5]),
        (["sub"], [5]),
        (["*", "!secret"], []),
        ([".*"], []),
        (["# secret", "", "[bad"], []),
    ],
)
def test_copying_what_is_ignored_is_told(ignore, lines):
    copies = "COPY secret /\nADD ./secret /x\nCOPY . /\nCOPY /sub/file /\nCOPY --from=a secret /\nADD https://x /\n"
    text = f"FROM scratch\n{copies}"
    assert found(text, ignore=ignore) == [("CopyIgnoredFile", line) for line in lines]


def test_descriptions_are_checked_only_if_somebody_asks():
    described = "# v this is v\nARG v\n# Base is it\nFROM scratch AS base\n# what\nARG a b\n#\nARG c\n"
    text = f"# check=experimental={{}}\n{described}"
    assert found(text.format("all")) == [("InvalidDefinitionDescription", 5), ("InvalidDefinitionDescription", 7)]
    assert found(text.format("InvalidDefinitionDescription")) == found(text.format("all"))
    assert found(described) == []


def test_a_rule_is_silenced_for_the_file_or_for_one_instruction():
    text = "FROM scratch as Base\nMAINTAINER me\nENV password=x\n"
    assert len(found(text)) == 4
    assert found(f"# check=skip=all\n{text}") == []
    assert found(f"# check=skip=FromAsCasing,StageNameCasing\n{text}") == [
        ("MaintainerDeprecated", 3),
        ("SecretsUsedInArgOrEnv", 4),
    ]
    text = text.replace("ENV", "# check=skip=SecretsUsedInArgOrEnv // it is none\nENV") + "ENV token=y\n"
    assert [rule for rule, _ in found(text)][-1:] == ["SecretsUsedInArgOrEnv"]
    assert found(text)[-1] == ("SecretsUsedInArgOrEnv", 5)


def test_findings_are_errors_if_the_file_says_so():
    text = "# check=error=true;skip=FromAsCasing\nFROM scratch as Base\n"
    dockerfile = parse(text)
    warnings = check(plan(dockerfile))
    with pytest.raises(BuildError, match="lint violation found for rules: StageNameCasing") as caught:
        refuse(dockerfile, warnings)
    assert caught.value.place.line == 2
    refuse(dockerfile, [])
    refuse(parse("FROM scratch as Base\n"), warnings)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("skp=all", r"invalid check option \"skp\" \(did you mean skip\?\)"),
        ("error=perhaps", "neither true nor false"),
        ("all", 'invalid check option "all"'),
    ],
)
def test_options_that_are_not_understood_are_refused_with_their_line(text, reason):
    with pytest.raises(BuildError, match=reason) as caught:
        settings_of(parse(f"# check={text}\nFROM scratch\n"))
    assert caught.value.place.line == 1


def test_a_suggestion_comes_with_what_is_undefined():
    made = plan(parse("FROM scratch\nARG version=1\nENV v=$verison\n"))
    assert check(made)[0].message == "$verison is not defined (did you mean $version?)"
