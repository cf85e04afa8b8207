"""A build as lines, as records and as a board."""

import json

from layerstore.build.errors import BuildError, Place
from layerstore.build.events import Begun, Ended, Output, Progress, Vertex, Warned
from layerstore.cli import output
from layerstore.cli.building.board import Board
from layerstore.cli.building.plain import Plain
from layerstore.cli.building.records import Records
from layerstore.cli.building.reports import report_failure, report_warnings
from layerstore.cli.building.views import view

PLACE = Place("Dockerfile", 2, 2, "RUN make")
FIRST, SECOND = Vertex(1, "[build 1/2] FROM debian"), Vertex(2, "[build 2/2] RUN make", PLACE)


def plain(*told):
    """The lines of events, each with the time at which it comes."""
    lines, clock = [], [0.0]
    view = Plain(lines.append, lambda: clock[0])
    for at, event in told:
        clock[0] = at
        view(event)
    return lines


def test_lines_are_in_buildkits_form():
    assert plain(
        (0, Begun(FIRST)),
        (0, Ended(FIRST, 0.04, cached=True)),
        (1, Begun(SECOND)),
        (1.5, Output(SECOND, "stdout", b"one\ntwo\n")),
        (2, Ended(SECOND, 1.04)),
    ) == [
        "#1 [build 1/2] FROM debian",
        "#1 CACHED",
        "",
        "#2 [build 2/2] RUN make",
        "#2 0.500 one",
        "#2 0.500 two",
        "#2 DONE 1.0s",
    ]


def test_steps_at_the_same_time_are_told_in_turn_under_their_titles():
    assert plain(
        (0, Begun(FIRST)),
        (0, Begun(SECOND)),
        (1, Output(FIRST, "stdout", b"a\n")),
        (1, Output(SECOND, "stderr", b"b\n")),
        (2, Ended(SECOND, 2.0, error="exit code 1\nmore")),
    ) == [
        *("#1 [build 1/2] FROM debian", "", "#2 [build 2/2] RUN make", "", "#1 [build 1/2] FROM debian", "#1 1.000 a"),
        *("", "#2 [build 2/2] RUN make", "#2 1.000 b", "#2 ERROR: exit code 1 more"),
    ]


def test_of_a_line_that_wrote_over_itself_the_last_is_kept():
    lines = plain((0, Begun(FIRST)), (0, Output(FIRST, "stdout", b"10%\r20%\r100%\r\n\xff\n")))
    assert lines[1:] == ["#1 0.000 100%", "#1 0.000 \ufffd"]


def test_how_far_it_is_is_told_once_a_second_and_at_the_end():
    steps = [(at / 10, Progress(FIRST, "sha256:abc", at * 1000, 30000)) for at in range(31)]
    lines = plain((0, Begun(FIRST)), *steps, (4, Progress(FIRST, "sha256:abc", 30000, 30000)))
    assert lines[1:] == [
        "#1 sha256:abc 0B / 30kB",
        "#1 sha256:abc 10kB / 30kB",
        "#1 sha256:abc 20kB / 30kB",
        "#1 sha256:abc 30kB done",
    ]


def test_a_step_that_was_given_up_did_not_fail():
    lines = plain((0, Begun(FIRST)), (1, Ended(FIRST, 1.0, error="Stopped")))
    assert lines[1:] == ["#1 CANCELED"]
    shown = board((0, Begun(FIRST)), (1, Ended(FIRST, 1.0, error="KeyboardInterrupt")))
    assert shown.lines(60, 24, 1.0)[1].startswith(" => CANCELED [build 1/2]")


def test_what_is_a_steps_own_progress_has_no_other_name():
    lines = plain((0, Begun(FIRST)), (1, Progress(FIRST, "#1", 4610, 4610)))
    assert lines[1:] == ["#1 4.61kB done"]


def test_warnings_have_their_rule_and_line():
    lines = plain((0, Warned("not meant", PLACE, "StageNameCasing", "https://x")), (0, Begun(FIRST)))
    assert lines == ["\nWARNING: StageNameCasing: not meant (Dockerfile:2)", "#1 [build 1/2] FROM debian"]


def test_records_are_json_by_the_names_of_the_events():
    lines = []
    view = Records(lines.append, lambda: 5.0)
    for event in (
        Begun(SECOND),
        Output(SECOND, "stderr", b"caf\xc3\xa9\n"),
        Output(SECOND, "stdout", b"\xff\n"),
        Progress(SECOND, "x", 1, None),
        Ended(SECOND, 1.5, error="no"),
        Warned("m", PLACE, "R", "u"),
    ):
        view(event)
    assert [json.loads(line) for line in lines] == [
        {"event": "begun", "time": 5.0, "vertex": 2, "title": SECOND.title, "file": "Dockerfile", "line": 2, "end": 2},
        {"event": "output", "time": 5.0, "vertex": 2, "stream": "stderr", "text": "café\n"},
        {"event": "output", "time": 5.0, "vertex": 2, "stream": "stdout", "data": "/wo="},
        {"event": "progress", "time": 5.0, "vertex": 2, "what": "x", "done": 1, "total": None},
        {"event": "ended", "time": 5.0, "vertex": 2, "seconds": 1.5, "cached": False, "error": "no"},
        {
            "event": "warned",
            "time": 5.0,
            "rule": "R",
            "message": "m",
            "url": "u",
            "file": "Dockerfile",
            "line": 2,
            "end": 2,
        },
    ]


def board(*told):
    shown = Board(0.0)
    for at, event in told:
        shown.take(event, at)
    return shown


def test_a_board_has_what_ended_above_what_goes_on():
    shown = board(
        (0, Begun(SECOND)),
        (0, Begun(FIRST)),
        (1, Output(SECOND, "stdout", b"".join(b"line %d\n" % number for number in range(9)))),
        (1, Progress(SECOND, "layer", 5000, 10000)),
        (1, Ended(FIRST, 0.5, cached=True)),
        (1, Warned("x")),
    )
    assert shown.lines(40, 24, 2.0) == [
        "[+] Building 2.0s (1/2), 1 warning",
        " => CACHED [build 1/2] FROM debian  0.5s",
        " => [build 2/2] RUN make            2.0s",
        " => => layer 5kB / 10kB",
        *(f" => => # line {number}" for number in range(3, 9)),
    ]


def test_a_board_ends_with_what_became_of_it():
    shown = board((0, Begun(FIRST)), (1, Ended(FIRST, 1.0)))
    assert shown.lines(60, 24, 1.0)[0] == "[+] Built 1.0s (1/1)"
    shown.take(Begun(SECOND), 1.0)
    shown.take(Ended(SECOND, 1.0, error="no"), 2.0)
    assert shown.lines(60, 24, 2.0)[0] == "[+] FAILED 2.0s (2/2)"


def test_a_board_fits_its_terminal_and_moves_no_cursor():
    many = [(0, Begun(Vertex(number, f"step {number} " + "x" * 100))) for number in range(50)]
    shown = board(*many, (0, Output(Vertex(49, ""), "stdout", b"\x1b[2J\ttab\x07\n")))
    for width in (1, 5, 20, 80):
        lines = shown.lines(width, 10, 1.0)
        assert len(lines) == 10
        assert all(len(line) <= width for line in lines)
    assert lines[-1] == " => => #  [2J    tab "


def test_a_failure_shows_output_lines_reason_and_remedy(capsys):
    report_failure(BuildError("process failed: exit code: 3", place=PLACE, remedy="Mend it.", output=b"a\nb\n"))
    assert capsys.readouterr().err.split("\n") == [
        *("------", "a", "b", "------", "Dockerfile:2", "-" * 20, "   2 | >>> RUN make", "-" * 20),
        *("layerstore: process failed: exit code: 3", "Mend it.", ""),
    ]


def test_of_much_output_the_end_is_repeated(capsys):
    report_failure(BuildError("no", output=b"".join(b"%d\n" % number for number in range(1000))))
    shown = capsys.readouterr().err.split("\n")
    assert (len(shown), shown[1], shown[25]) == (29, "975", "999")


def test_checks_are_told_with_their_pages_and_counted(capsys):
    report_warnings([])
    assert capsys.readouterr().out == "Check complete, no warnings found.\n"
    report_warnings([Warned("not meant", PLACE, "Rule", "https://x")])
    out = capsys.readouterr().out
    assert "WARNING: Rule - https://x\nnot meant\nDockerfile:2\n" in out
    assert out.endswith("Check complete, 1 warning has been found!\n")


def test_a_terminal_has_a_board_if_its_cursor_can_go_back(monkeypatch):
    monkeypatch.setattr(output, "is_quiet", lambda: False)
    monkeypatch.setenv("TERM", "dumb")
    with view("auto") as told:
        assert isinstance(told, Plain)
    monkeypatch.setenv("TERM", "xterm")
    with view("auto") as told:
        assert not isinstance(told, Plain)
    monkeypatch.setattr(output, "is_quiet", lambda: True)
    with view("auto") as told:
        assert isinstance(told, Plain)
    with view("json") as told:
        assert isinstance(told, Records)
