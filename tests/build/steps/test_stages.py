"""Stages and what a build makes of the lines that change no file."""

from __future__ import annotations

import os
import threading

import pytest

from layerstore.build import BuildError, check
from support.building import Builder, Look, names_in


def test_ten_lines_are_not_ten_layers(make: Builder) -> None:
    built = make(
        "FROM base\nLABEL line=2\nENV LINE=3\nRUN echo 4 > /four\nWORKDIR /five\nCOPY six .\nEXPOSE 7\nUSER 8\n"
        'CMD ["nine"]\nSTOPSIGNAL SIGINT\n',
        {"six": "6"},
    )
    assert len(built.image.layers) == 4
    lines = built.image.history[1:]
    assert [line.created_by for line in lines] == [
        "LABEL line=2",
        "ENV LINE=3",
        "RUN /bin/sh -c echo 4 > /four # buildkit",
        "WORKDIR /five",
        "COPY six . # buildkit",
        "EXPOSE [7/tcp]",
        "USER 8",
        'CMD ["nine"]',
        "STOPSIGNAL SIGINT",
    ]
    assert [line.empty_layer for line in lines] == [True, True, False, False, False, True, True, True, True]
    config = built.image.config["config"]
    assert config["Cmd"] == ["nine"]
    assert config["WorkingDir"] == "/five"
    assert config["User"] == "8"


def test_a_stage_on_another_begins_with_its_environment(make: Builder, look: Look) -> None:
    built = make(
        "FROM base AS one\nENV A=env\nARG A=arg\nARG B=passed-on\nRUN echo $A > /one\nFROM one\nRUN echo $A $B > /two\n"
    )
    assert look(built, "/one") == "arg\n"
    assert look(built, "/two") == "env passed-on\n"
    assert built.image.history[-1].created_by.startswith("RUN |2 A=env B=passed-on ")


def test_a_folder_that_workdir_makes_belongs_to_a_number_as_user_and_group(make: Builder) -> None:
    built = make("FROM base\nUSER 4242\nWORKDIR /one\nUSER 4242:7\nWORKDIR /two\nUSER someone\nWORKDIR /three\n")
    with built.image.mount() as root:
        owners = [(found.st_uid, found.st_gid) for found in map(os.stat, (root / "one", root / "two", root / "three"))]
    assert owners == [(4242, 4242), (4242, 7), (1000, 1001)]


def test_workdir_from_the_root_is_kept_as_it_is_written(make: Builder, look: Look) -> None:
    built = make("FROM base\nWORKDIR /new/../made/\nRUN pwd > where\nCOPY f .\n", {"f": "f"})
    assert built.image.config["config"]["WorkingDir"] == "/new/../made/"
    assert built.image.history[1].created_by == "WORKDIR /new/../made/"
    assert look(built, "/made/where") == "/made\n"
    assert names_in(built, "/made") == {"where", "f"}
    assert "new" not in names_in(built)


def test_checks_bear_a_base_without_a_tag(make: Builder) -> None:
    context = make.context({"Dockerfile": "ARG TAG\nFROM base:${TAG}\n"})
    assert [warning.rule for warning in check(make.store, context)] == ["InvalidDefaultArgInFrom"]


def test_an_entrypoint_takes_the_command_of_the_base_away(make: Builder) -> None:
    assert make('FROM base\nENTRYPOINT ["e"]\n').image.config["config"].get("Cmd") is None
    assert make('FROM base\nCMD ["c"]\nENTRYPOINT ["e"]\n').image.config["config"]["Cmd"] == ["c"]


def test_triggers_run_first_in_the_image_that_is_built_on_theirs(make: Builder, look: Look) -> None:
    parent = make("FROM base\nONBUILD COPY . /app\nONBUILD RUN ls /app > /list\n", {"f": "f"}, tags=["parent"])
    assert parent.image.config["config"]["OnBuild"] == ["COPY . /app", "RUN ls /app > /list"]
    child = make("FROM parent\nRUN test -e /list\n", {"f": "f", "g": "g"})
    assert look(child, "/list").split() == ["Dockerfile", "f", "g"]
    assert "OnBuild" not in child.image.config["config"]


def test_health_and_volumes_are_in_the_config(make: Builder, look: Look) -> None:
    built = make(
        "FROM base\nHEALTHCHECK --interval=5m --retries=2 CMD true || exit 1\nRUN mkdir /data && echo 1 > /data/x\n"
        "VOLUME /data /logs\nRUN echo 2 > /data/y\n"
    )
    config = built.image.config["config"]
    assert config["Healthcheck"] == {"Test": ["CMD-SHELL", "true || exit 1"], "Interval": 300 * 10**9, "Retries": 2}
    assert config["Volumes"] == {"/data": {}, "/logs": {}}
    assert look(built, "/data/y") == "2\n", "later changes below a volume are kept"


def test_a_stage_that_nothing_needs_is_not_built(make: Builder) -> None:
    make("FROM base AS unneeded\nRUN exit 1\nFROM base AS wanted\nRUN true\nFROM wanted\nRUN echo\n")
    assert not any("exit 1" in title for title in make.begun)
    make("FROM base AS first\nRUN echo > /x\nFROM base\nRUN exit 1\n", target="first")
    assert make.done == ["RUN echo > /x"]


def test_independent_stages_run_at_the_same_time(make: Builder) -> None:
    wait = "for i in $(seq 100); do [ -e /c/{} ] && break; sleep 0.1; done; test -e /c/{}"
    mount = "--mount=type=cache,id=meet,target=/c"
    make(
        f"FROM base AS a\nRUN {mount} echo > /c/a; {wait.format('b', 'b')}; echo > /a\n"
        f"FROM base AS b\nRUN {mount} echo > /c/b; {wait.format('a', 'a')}; echo > /b\n"
        "FROM base\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    )


def test_the_first_failure_ends_the_others(make: Builder) -> None:
    with pytest.raises(BuildError, match="exit code: 7"):
        make(
            "FROM base AS a\nRUN sleep 60\nFROM base AS b\nRUN sleep 0.3; exit 7\n"
            "FROM base\nCOPY --from=a /etc /a\nCOPY --from=b /etc /b\n"
        )
    assert not [thread.name for thread in threading.enumerate() if "stage" in thread.name]


def test_a_stage_on_a_stage_has_its_variables_and_its_user(make: Builder, look: Look) -> None:
    built = make(
        "FROM base AS one\nARG A=1\nENV E=2\nUSER someone\nWORKDIR /w\n"
        "FROM one\nRUN echo $A $E $(id -u) $PWD > /tmp/said\n"
    )
    assert look(built, "/tmp/said") == "1 2 1000 /w\n"


def test_a_working_directory_belongs_to_the_user(make: Builder) -> None:
    built = make("FROM base\nUSER someone\nWORKDIR /made/here\nWORKDIR deeper\nWORKDIR /etc\n")
    with built.image.mount() as root:
        for path in ("made", "made/here", "made/here/deeper"):
            found = (root / path).stat()
            assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1000, 1001, 0o755)
    assert [line.empty_layer for line in built.image.history[-3:]] == [False, False, True]


def test_nothing_is_a_base_too(make: Builder, look: Look) -> None:
    built = make("FROM scratch\nCOPY a /\nWORKDIR /w\nMAINTAINER me\n", {"a": "a"})
    assert names_in(built) == {"a", "w"}
    assert built.image.author == "me"
    assert look(built, "/a") == "a"
    assert built.image.config["config"]["Env"][0].startswith("PATH=")


def test_an_image_of_metadata_alone_has_the_layers_of_its_base(make: Builder) -> None:
    built = make("FROM base\nENV A=b\n", tags=["meta:1", "meta:2"], labels={"l": "v"})
    assert built.image.layers == make.store.image("base").layers
    assert built.image.parent == make.store.image("base").id
    assert sorted(built.image.tags) == ["meta:1", "meta:2"]
    assert built.image.config["config"]["Labels"] == {"l": "v"}


def test_equal_builds_with_an_epoch_are_one_image(make: Builder) -> None:
    text = "FROM base\nRUN echo > /x; mkdir /d; rm /bin/yes\nCOPY f /d/\nWORKDIR /w/v\nCOPY <<E /h\nh\nE\n"
    first = make(text, {"f": "f"}, source_date_epoch=1_600_000_000)
    second = make(text, {"f": "f"}, source_date_epoch=1_600_000_000, no_cache=True)
    assert first.image.id == second.image.id
    assert first.image.created == "2020-09-13T12:26:40Z"
    assert make.done
    third = make(text, build_args={"SOURCE_DATE_EPOCH": "1600000000"})
    assert third.image.id == first.image.id


def test_a_squashed_build_has_one_layer_on_its_base(make: Builder, look: Look) -> None:
    text = "FROM base\nRUN echo 1 > /x && echo > /gone\nRUN rm /gone && echo 2 > /y\nENV A=b\n"
    built = make(text, squash=True, tags=["flat"])
    base = make.store.image("base")
    assert built.image.layers[: len(base.layers)] == base.layers
    assert len(built.image.layers) == len(base.layers) + 1
    assert look(built, "/x") == "1\n"
    assert make.store.image("flat").id == built.image.id
    assert {image.id for image in make.store.images()} == {base.id, built.image.id}
    assert make("FROM base\nENV A=b\n", squash=True, tags=["same"]).image.tags == ("same:latest",)


def test_a_build_in_which_all_is_known_gives_the_image_that_there_is(make: Builder) -> None:
    text = "FROM base AS one\nENV A=b\nRUN echo > /x\nFROM one\nLABEL c=d\nCOPY f /\nRUN true\nCMD e\n"
    first = make(text, {"f": "f"}, tags=["same"])
    again = make(text, tags=["same"])
    assert again.image.id == first.image.id
    assert len(make.store.images()) == 2
    lines = first.image.history[1:]
    assert all(line.created for line in lines)
    assert [line.created for line in lines] == sorted(line.created for line in lines)
    assert first.image.created == lines[-1].created == lines[-2].created
    anew = make(text, no_cache=True, tags=["same"])
    assert anew.image.id != first.image.id


def test_an_image_of_metadata_alone_has_the_time_of_its_base(make: Builder) -> None:
    built = make("FROM base\nENV A=b\n")
    assert built.image.created == make.store.image("base").created
    assert make("FROM base\nENV A=b\n").image.id == built.image.id
    with_epoch = make("FROM base\nENV A=b\n", source_date_epoch=0)
    assert with_epoch.image.created == with_epoch.image.history[-1].created == "1970-01-01T00:00:00Z"


def test_steps_are_numbered_as_buildkit_does(make: Builder) -> None:
    make("FROM scratch AS one\nCOPY f /\nFROM one\nCOPY f /g\nENV A=b\nCOPY f /h\n", {"f": "f"})
    assert [title for title in make.begun if title.startswith("[") and "internal" not in title] == [
        "[one 1/1] COPY f /",
        "[stage-1 1/2] COPY f /g",
        "[stage-1 2/2] COPY f /h",
    ]
    make("FROM base\n" + "".join(f"WORKDIR /{n}\n" for n in range(9)), {})
    titles = [title for title in make.begun if title.startswith("[") and "internal" not in title]
    assert (titles[0], titles[-1]) == ("[ 1/10] FROM base", "[10/10] WORKDIR /8")


def test_an_image_that_is_not_to_be_had_is_told_with_what_is_like_it(make: Builder) -> None:
    make.store.image("base").tag("127.0.0.1:1/team/app")
    with pytest.raises(BuildError, match="failed to resolve source metadata") as caught:
        make("FROM 127.0.0.1:1/team/aap\n")
    assert caught.value.remedy is not None
    assert caught.value.remedy.startswith("Did you mean 127.0.0.1:1/team/app? The store has no image")
    with pytest.raises(BuildError) as caught:
        make("FROM 127.0.0.1:1/team/app\n", platform="linux/riscv64")
    assert caught.value.remedy is not None
    assert "Did you mean" not in caught.value.remedy
