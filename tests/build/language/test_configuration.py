"""What instructions make of the image's configuration and history, in BuildKit's words."""

import pytest

from layerstore.build.errors import BuildError
from layerstore.build.language import (
    DEFAULT_PATH,
    Scope,
    apply_config,
    begin_config,
    history_line,
    parse,
    program_of,
)
from layerstore.build.language.durations import duration, shown_duration


def built(lines, *, base=None, build_args=None):
    """The configuration after these lines, and the history that they leave."""
    config = begin_config(base)
    scope = Scope.start({}, build_args or {}, {}, config["Env"])
    history = []
    for instruction in parse(f"FROM a\n{lines}\n").stages[0].instructions:
        filled = scope.expand(instruction)
        history.append(history_line(filled, scope, config))
        config = apply_config(config, filled, command_given=scope.command_given)
        scope = scope.after(filled)
    return config, history


def test_an_image_on_nothing_has_a_path():
    assert begin_config(None) == {"Env": [f"PATH={DEFAULT_PATH}"]}
    assert begin_config({"Env": ["PATH=/x"], "OnBuild": ["RUN x"], "User": "u"}) == {"Env": ["PATH=/x"], "User": "u"}


def test_entrypoint_takes_away_the_command_of_the_base_alone():
    base = {"Cmd": ["base"], "Env": ["PATH=/"]}
    assert "Cmd" not in built('ENTRYPOINT ["e"]', base=base)[0]
    assert built('CMD ["c"]\nENTRYPOINT ["e"]', base=base)[0]["Cmd"] == ["c"]
    assert built('ENTRYPOINT ["e"]\nCMD ["c"]', base=base)[0]["Cmd"] == ["c"]
    assert built("USER u", base=base)[0]["Cmd"] == ["base"]
    assert built("ENTRYPOINT []", base=base)[0]["Entrypoint"] is None


def test_shell_is_what_the_shell_forms_behind_it_run_by():
    config, _ = built('CMD a\nSHELL ["/bin/bash", "-c"]\nENTRYPOINT b\n')
    assert config["Cmd"] == ["/bin/sh", "-c", "a"]
    assert config["Entrypoint"] == ["/bin/bash", "-c", "b"]
    (run,) = parse("FROM a\nRUN x  y\n").stages[0].instructions
    assert program_of(run, config).argv == ("/bin/bash", "-c", "x  y")
    assert program_of(run, {}).argv == ("/bin/sh", "-c", "x  y")


def test_everything_else_in_the_configuration():
    base = {"Env": ["PATH=/", "A=1", "B=2"], "Labels": {"x": "1"}, "ExposedPorts": {"1/tcp": {}}, "Volumes": {"/v": {}}}
    config, _ = built(
        "ENV B=3 C=4\nLABEL y=2\nEXPOSE 80 53/UDP 8000-8002\nVOLUME /w\nUSER u:g\nWORKDIR a\nWORKDIR ../b\n"
        "STOPSIGNAL SIGKILL\nHEALTHCHECK --retries=2 CMD x\nONBUILD RUN y\nMAINTAINER me",
        base=base,
    )
    assert config == {
        "Env": ["PATH=/", "A=1", "B=3", "C=4"],
        "Labels": {"x": "1", "y": "2"},
        "ExposedPorts": {f"{port}/tcp": {} for port in (1, 80, 8000, 8001, 8002)} | {"53/udp": {}},
        "Volumes": {"/v": {}, "/w": {}},
        "User": "u:g",
        "WorkingDir": "/b",
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["CMD-SHELL", "x"], "Retries": 2},
        "OnBuild": ["RUN y"],
    }
    assert base["Labels"] == {"x": "1"}


@pytest.mark.parametrize(
    ("port", "ports"),
    [
        ("80", ["80/tcp"]),
        ("80/SCTP", ["80/sctp"]),
        ("8080:80", ["80/tcp"]),
        ("127.0.0.1:8080:80/udp", ["80/udp"]),
        ("127.0.0.1::80", ["80/tcp"]),
        ("[::1]:8080:80", ["80/tcp"]),
        ("8000-8001:80", ["80/tcp"]),
        ("0", ["0/tcp"]),
    ],
)
def test_ports_as_buildkit_takes_them(port, ports):
    assert list(built(f"EXPOSE {port}")[0]["ExposedPorts"]) == ports


@pytest.mark.parametrize(
    "port", ["x", "80/icmp", "65536", "9-8", "1.2.3:1:80", "1-2:80-82", "", "8-", "-8", "80-90-91"]
)
def test_what_is_no_port_is_refused_with_its_line(port):
    with pytest.raises(BuildError, match=r"invalid|requires at least") as caught:
        built(f"EXPOSE {port}")
    assert caught.value.place.line == 2


@pytest.mark.parametrize("signal", ["SIGTERM", "term", "9", "RTMIN+3", "SIGRTMAX-1", "37"])
def test_signals_by_name_and_number(signal):
    assert built(f"STOPSIGNAL {signal}")[0]["StopSignal"] == signal


@pytest.mark.parametrize("signal", ["SIGNONE", "0", "65", "-1", "RTMIN+99", "BLOCK"])
def test_what_is_no_signal_is_refused(signal):
    with pytest.raises(BuildError, match="Invalid signal"):
        built(f"STOPSIGNAL {signal}")


def test_working_directories_are_absolute_and_as_they_are_written_from_the_root():
    for path, found in {
        "/": "/",
        "//a": "//a",
        "../../x": "/x",
        "/a/./b/": "/a/./b/",
        "''": "/base",
        ".": "/base",
    }.items():
        assert (
            built(f"WORKDIR {path}", base={"WorkingDir": "/base" if path in "''." else "/"})[0]["WorkingDir"] == found
        )


def test_history_in_buildkits_words():
    lines = {
        "ENV a=1 b='x y'": "ENV a=1 b=x y",
        "LABEL a=b": "LABEL a=b",
        "ARG p q=2 r": "ARG p=9 q=2 r",
        "RUN echo $a": "RUN |3 p=9 q=2 r= /bin/sh -c echo $a # buildkit",
        'RUN ["echo", "a b"]': "RUN |3 p=9 q=2 r= echo a b # buildkit",
        "COPY --from=x --link --chown=1:2 --chmod=755 a b /c/": "COPY --chown=1:2 --chmod=755 a b /c/ # buildkit",
        "COPY --parents a /c/": "COPY --parents a /c/ # buildkit",
        "ADD https://x/y /c/": "ADD https://x/y /c/ # buildkit",
        "COPY <<E /f\nx\nE": "COPY <<E /f # buildkit",
        "WORKDIR x": "WORKDIR /x",
        "EXPOSE 81 80/udp": "EXPOSE [80/udp 81/tcp]",
        "VOLUME /a /b": "VOLUME [/a /b]",
        "USER u": "USER u",
        "STOPSIGNAL TERM": "STOPSIGNAL TERM",
        'CMD ["a", "b\\"\\n\\u0001"]': 'CMD ["a" "b\\"\\n\\x01"]',
        "ENTRYPOINT x": 'ENTRYPOINT ["/bin/sh" "-c" "x"]',
        "ENTRYPOINT []": "ENTRYPOINT []",
        "HEALTHCHECK --interval=90s CMD x y": "HEALTHCHECK {Test:[CMD-SHELL x y] Interval:1m30s Timeout:0s "
        "StartPeriod:0s StartInterval:0s Retries:0}",
        "MAINTAINER me": "MAINTAINER me",
        "ONBUILD RUN x": None,
        'SHELL ["/bin/bash", "-c"]': "SHELL [/bin/bash -c]",
        "RUN x": "RUN |3 p=9 q=2 r= /bin/bash -c x # buildkit",
    }
    _, history = built("\n".join(lines), build_args={"p": "9", "unused": "1", "http_proxy": "http://secret"})
    assert dict(zip(lines, history, strict=True)) == lines


def test_history_shows_an_argument_as_the_command_saw_it():
    assert built("ARG v=1\nENV v=2\nRUN x")[1][-1] == "RUN |1 v=2 /bin/sh -c x # buildkit"


def run(text):
    (found,) = parse(f"FROM a\n{text}\n").stages[0].instructions
    return program_of(found, {})


def test_a_heredoc_alone_is_what_the_shell_runs():
    assert run("RUN <<E\nx\ny\nE").argv == ("/bin/sh", "-c", "x\ny\n")
    assert run("RUN <<-E\n\tx\n\tE").argv == ("/bin/sh", "-c", "x\n")


def test_a_heredoc_with_a_shebang_is_a_file_that_is_run():
    program = run("RUN <<E\n#!/usr/bin/env python3\nprint()\nE")
    assert program.argv == ("/bin/sh", "-c", "/dev/pipes/E")
    assert (program.script.name, program.script.content) == ("E", "#!/usr/bin/env python3\nprint()\n")


def test_heredocs_beside_other_words_are_the_shells():
    assert run("RUN python3 <<E\nx\nE").argv == ("/bin/sh", "-c", "python3 <<E\nx\nE")
    assert run("RUN cat <<A <<'B' >f\n1\nA\n2\nB").argv == ("/bin/sh", "-c", "cat <<A <<'B' >f\n1\nA\n2\nB")
    assert run("RUN <<A cat\n1\nA").argv == ("/bin/sh", "-c", "<<A cat\n1\nA")


def test_durations_as_go_writes_and_reads_them():
    shown = {
        0: "0s",
        1: "1ns",
        1500: "1.5µs",
        2_000_000: "2ms",
        10**9: "1s",
        90_500_000_000: "1m30.5s",
        3600 * 10**9: "1h0m0s",
        25 * 3600 * 10**9 + 1: "25h0m0.000000001s",
    }
    for nanoseconds, text in shown.items():
        assert shown_duration(nanoseconds) == text
        assert duration(text) == nanoseconds
    assert duration("1.5h.5m") == 5430 * 10**9
    for text in ("", "1", "s", "1x", "-1s", "1 s", "9999999999h", "1s" * 100):
        with pytest.raises(ValueError, match="a duration"):
            duration(text)
