"""What variables mean at each line, where BuildKit and others differ."""

import pytest

from layerstore.build.errors import BuildError
from layerstore.build.language import DEFAULT_PATH, Scope, environment, global_args, parse, platform_args


def lived(text, *, build_args=None, env=(), platform=None):
    """The expanded instructions of the last stage of a text, and the scope at its end."""
    dockerfile = parse(text)
    build_args = build_args or {}
    values = global_args(dockerfile, build_args, platform or {})
    scope = Scope.start(values, build_args, platform or {}, env, escape=dockerfile.escape)
    found = []
    for instruction in dockerfile.stages[-1].instructions:
        found.append(scope.expand(instruction))
        scope = scope.after(found[-1])
    return found, scope


def test_env_and_label_of_one_line_see_what_was_before_it():
    (_, env, label), _ = lived('FROM a\nENV v=1\nENV v=2 w=$v\nLABEL a=$v b="$w"\n')
    assert [(pair.name, pair.value) for pair in env.variables] == [("v", "2"), ("w", "1")]
    assert [(pair.name, pair.value) for pair in label.labels] == [("a", "2"), ("b", "1")]


def test_an_arg_sees_the_one_before_it_on_its_line():
    (arg,), _ = lived("FROM a\nARG p=2 q=$p\n")
    assert [(each.name, each.value) for each in arg.arguments] == [("p", "2"), ("q", "2")]


def test_a_global_arg_is_unknown_in_a_stage_until_it_is_declared():
    (before, _, after), scope = lived("ARG V=1\nFROM a\nENV x=$V\nARG V\nENV y=$V\n")
    assert before.variables[0].value == ""
    assert after.variables[0].value == "1"
    assert scope.args == {"V": "1"}


def test_build_args_win_over_defaults_and_need_a_declaration():
    (_, env), scope = lived("FROM a\nARG V=1\nENV x=$V y=$W\n", build_args={"V": "9", "W": "8"})
    assert [pair.value for pair in env.variables] == ["9", ""]
    assert scope.run_env["V"] == "9"
    assert "W" not in scope.run_env


def test_a_default_that_a_build_arg_replaces_is_not_read():
    lived("FROM a\nARG V=${X:?needed}\n", build_args={"V": "1"})
    with pytest.raises(BuildError, match="X: needed") as caught:
        lived("FROM a\nARG V=${X:?needed}\n")
    assert caught.value.place.line == 2


def test_a_stage_on_a_stage_has_its_arguments_too():
    _, scope = lived("FROM a\nARG V=1\nENV E=2\nCMD x\n")
    child = scope.child()
    assert child.args == {"V": "1"}
    assert (child.variables["V"], child.env["E"]) == ("1", "2")
    assert scope.command_given
    assert not child.command_given


def test_of_arg_and_env_the_last_one_counts_and_env_alone_stays_in_the_image():
    _, scope = lived("FROM a\nENV v=env\nARG v=arg\n")
    assert scope.run_env["v"] == "arg"
    assert scope.env["v"] == "env"
    _, scope = lived("FROM a\nARG v=arg\nENV v=env\n")
    assert scope.run_env["v"] == "env"
    assert "v" not in lived("FROM a\nARG v=arg\n")[1].env


def test_arguments_of_the_platform_need_an_arg_in_a_stage():
    platform = platform_args("linux/arm64/v8", "linux/amd64", stage="final")
    assert platform["TARGETPLATFORM"] == "linux/arm64/v8"
    assert (platform["TARGETOS"], platform["TARGETARCH"], platform["TARGETVARIANT"]) == ("linux", "arm64", "v8")
    assert (platform["BUILDARCH"], platform["BUILDVARIANT"], platform["TARGETSTAGE"]) == ("amd64", "", "final")
    (before, _, after), _ = lived("FROM a\nENV x=$TARGETARCH\nARG TARGETARCH\nENV y=$TARGETARCH\n", platform=platform)
    assert (before.variables[0].value, after.variables[0].value) == ("", "arm64")


def test_a_build_arg_replaces_an_argument_of_the_platform():
    dockerfile = parse("FROM $TARGETARCH\n")
    assert global_args(dockerfile, {"TARGETARCH": "x"}, {"TARGETARCH": "amd64"})["TARGETARCH"] == "x"


def test_proxies_are_in_the_environment_of_run_in_both_cases_and_decide_nothing():
    _, scope = lived("FROM a\nENV x=1\n", build_args={"http_proxy": "http://p", "OTHER": "1"})
    assert scope.run_env["http_proxy"] == scope.run_env["HTTP_PROXY"] == "http://p"
    assert "HTTP_PROXY" not in scope.key_env
    assert "OTHER" not in scope.run_env
    assert scope.args == {}
    _, declared = lived("FROM a\nARG HTTP_PROXY\n", build_args={"HTTP_PROXY": "http://p"})
    assert declared.key_env["HTTP_PROXY"] == "http://p"
    assert declared.args == {"HTTP_PROXY": "http://p"}


def test_a_base_without_a_path_gets_one():
    assert environment([]) == {"PATH": DEFAULT_PATH}
    assert environment(["PATH=/x", "A=b=c", "E"]) == {"PATH": "/x", "A": "b=c", "E": ""}


def test_quotes_and_escapes_go_with_expansion():
    text = "FROM a\nENV v='x y' w=\"$v\" e=\\$v q='$v'\nCOPY \"a b\" $PATH/\nWORKDIR /$v\n"
    (env, copy, workdir), _ = lived(text, env={"v": "1", "PATH": "/p"})
    assert [pair.value for pair in env.variables] == ["x y", "1", "$v", "$v"]
    assert (copy.sources, copy.target) == (("a b",), "/p/")
    assert workdir.path == "/x y"


def test_the_operators_of_buildkit():
    words = {
        "${v:-d}": "abcabc",
        "${u:-d}": "d",
        "${e:-d}": "d",
        "${e-d}": "",
        "${v:+d}": "d",
        "${u+d}": "",
        "${v#a*c}": "abc",
        "${v##a*c}": "",
        "${v%b*}": "abca",
        "${v%%b*}": "a",
        "${v/b/x}": "axcabc",
        "${v//b/x}": "axcaxc",
        "${v//b/}": "acac",
    }
    scope = Scope.start({}, {}, {}, {"v": "abcabc", "e": ""})
    assert {word: scope.word(word) for word in words} == words


def test_what_an_operator_refuses_is_told_with_the_line():
    with pytest.raises(BuildError, match="x: set x") as caught:
        lived('FROM a\nENV y="${x:?set x}"\n')
    assert caught.value.place.line == 2
    with pytest.raises(BuildError, match="unsupported modifier"):
        lived("FROM a\nWORKDIR ${x^y}\n")


def test_commands_stay_as_they_are():
    text = 'FROM a\nENV v=1\nRUN echo $v\nCMD $v\nENTRYPOINT ["$v"]\nSHELL ["$v"]\nHEALTHCHECK CMD $v\nONBUILD RUN $v\n'
    (_, run, cmd, entrypoint, shell, health, onbuild), _ = lived(text)
    assert (run.command, cmd.command, entrypoint.command, shell.words) == ("echo $v", "$v", ("$v",), ("$v",))
    assert (health.test[1], onbuild.expression) == ("$v", "RUN $v")


def test_the_words_that_are_expanded():
    text = (
        "FROM a\nENV v=1 s='8 9'\nEXPOSE $v $s/udp\nVOLUME /$v\nUSER $v:$v\nSTOPSIGNAL $v\n"
        "COPY --chown=$v --chmod=$v --exclude=$v $v /$v\nADD --checksum=$v https://x /\n"
    )
    (_, expose, volume, user, signal, copy, add), _ = lived(text)
    assert expose.ports == ("8", "9/udp", "1")
    assert (volume.paths, user.user, signal.signal) == (("/1",), "1:1", "1")
    assert (copy.chown, copy.chmod, copy.sources, copy.target) == ("1", "1", ("1",), "/1")
    assert copy.exclude == ("$v",)
    assert add.checksum == "1"


def test_a_heredoc_is_expanded_if_its_name_is_not_quoted():
    (_, copy), _ = lived("FROM a\nENV v=1\nCOPY <<A <<'B' /d/\n\"$v\" '$v' \\$v\nA\n$v\nB\n")
    assert [heredoc.content for heredoc in copy.heredocs] == ["\"1\" '1' $v\n", "$v\n"]


def test_mounts_are_read_with_their_variables_filled_in():
    (_, run), _ = lived("FROM a\nARG m=cache t=/c u=7\nRUN --mount=type=$m,target=$t,uid=$u,from=x y\n")
    (mount,) = run.mounts
    assert (mount.type, mount.target, mount.id, mount.uid, mount.from_) == ("cache", "/c", "/c", 7, "x")
    with pytest.raises(BuildError, match="invalid value x for uid") as caught:
        lived("FROM a\nARG u=x\nRUN --mount=type=cache,target=/c,uid=$u y\n")
    assert caught.value.place.line == 3


def test_progress_shows_values_but_no_secrets():
    text = 'FROM a\nENV v=1 S=public\nrun --mount=type=secret,id=k,env=S echo "$v" $S $u\nRUN <<E\nfirst\nsecond\nE\n'
    (_, run, heredoc), scope = lived(text)
    assert scope.shown(run) == 'RUN --mount=type=secret,id=k,env=S echo "1" **** $u'
    assert scope.shown(heredoc) == "RUN <<E (first...)"
    (tabbed,), scope = lived("FROM a\nrun\tmake\n")
    assert scope.shown(tabbed) == "RUN\tmake"


@pytest.mark.parametrize(
    ("line", "letter"), [("WORKDIR ${a:^}", "$"), ('WORKDIR "a', "quote"), ('COPY ["q\\"q", "/"]', "quote")]
)
def test_what_has_to_be_escaped_is_named(line, letter):
    with pytest.raises(BuildError) as caught:
        lived(f"FROM a\n{line}\n")
    assert caught.value.remedy.startswith(f"Escape a {letter} that")


def test_values_that_would_explode_are_refused():
    with pytest.raises(BuildError, match="more than 4 MiB") as caught:
        lived("FROM a\n" + "ENV v=$v$v$v$v-\n" * 40)
    assert 10 < caught.value.place.line < 20
    with pytest.raises(BuildError, match=r"too many \* in a pattern"):
        lived("FROM a\nENV v=" + "a" * 200 + "\nENV w=${v/" + "a*" * 30 + "b/x}\n")
    (*_, env), _ = lived("FROM a\nENV v=" + "a" * 200 + "b\nENV w=${v/a*b/x}\n")
    assert env.variables[0].value == "x"


def test_arguments_of_many_kinds_meet():
    text = (
        'ARG one="x y" two=box\nARG three="$two-z"\nFROM busy$two\nARG three four="1 2" one\n'
        'ARG given\nARG empty=\nENV given "it is ${given:-nothing}"\nENV cut ${given%%t*}\n'
    )
    _, scope = lived(text)
    assert global_args(parse(text), {}, {})["three"] == "box-z"
    assert [scope.variables[name] for name in ("one", "three", "four")] == ["x y", "box-z", "1 2"]
    assert (scope.variables["given"], scope.variables["cut"]) == ("it is nothing", "i")
    assert scope.variables["empty"] == ""
    assert scope.args["given"] is None
    assert lived(text, build_args={"given": ""})[1].variables["given"] == "it is nothing"
    assert lived(text, build_args={"given": "x"})[1].variables["given"] == "it is x"
    assert "given" not in lived("FROM a\nARG given\n")[1].run_env


def test_an_argument_that_is_declared_again_keeps_its_place_and_value():
    _, scope = lived("FROM a\nARG a=1\nARG b=2\nARG a=3\nARG b\n")
    assert list(scope.args) == ["a", "b"]
    assert (scope.variables["a"], scope.variables["b"]) == ("3", "2")


def test_a_global_argument_may_be_required():
    with pytest.raises(BuildError, match="V: say which") as caught:
        global_args(parse('ARG V=${V:?"say which"}\nFROM a:$V\n'), {}, {})
    assert caught.value.place.line == 1
    assert global_args(parse('ARG V=${V:?"say which"}\nFROM a:$V\n'), {"V": "1"}, {})["V"] == "1"
