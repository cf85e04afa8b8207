"""`build` as it is called: what it prints, what it writes, what it leaves when it fails or is interrupted."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from layerstore.build.events import Warned
from layerstore.cli.building import report_warnings
from support import images
from support.building import busybox

ID = re.compile(r"sha256:[0-9a-f]{64}")


@pytest.fixture
def based(run, tmp_path):
    """`based("FROM base\\nRUN true")`: a folder with that Dockerfile; the store has the image `base`."""
    layer = busybox()
    config = images.config([layer], config={"Env": ["PATH=/bin"]})
    archive = images.docker_archive(tmp_path / "base.tar", [layer], ["base:latest"], image_config=config)
    run("load", "-i", str(archive))

    def folder(text, **files):
        place = tmp_path / "context"
        place.mkdir(exist_ok=True)
        (place / "Dockerfile").write_text(text)
        for name, content in files.items():
            (place / name).write_text(content)
        return str(place)

    return folder


def test_an_image_is_built_named_and_told(run, based):
    context = based("FROM base\nARG V=1\nLABEL v=$V\nRUN echo $V > /v\nCOPY file /\n", file="x")
    result = run("build", "-t", "app:1", "-t", "other", "--build-arg", "V=2", context)
    assert result.stdout == ""
    assert re.search(r"^#\d+ \[3/3\] COPY file /$", result.stderr, re.MULTILINE)
    assert re.search(r"^#\d+ DONE \d+\.\ds$", result.stderr, re.MULTILINE)
    assert run("images", "-q", "app:1").stdout == run("images", "-q", "other").stdout != ""
    assert run("inspect", "--format", "{{.Config.Labels.v}}", "app:1").stdout == "2\n"
    assert re.search(r"^#\d+ CACHED$", run("build", "--build-arg", "V=2", context).stderr, re.MULTILINE)


def test_what_is_read_of_a_context_is_told_in_buildkit_s_words(run, based):
    text = "FROM base\nCOPY one /\nCOPY two /\n"
    context = based(text, one="12345", two="123", three="not asked for", **{".dockerignore": "*.log\n"})
    time.sleep(0.1)  # what was altered a moment ago is not remembered
    told = re.sub(r"^#\d+ ", "", run("build", context).stderr, flags=re.MULTILINE).splitlines()
    assert told[:2] == [
        "[internal] load build definition from Dockerfile",
        f"transferring dockerfile: {len(text)}B done",
    ]
    at = told.index("[internal] load .dockerignore")
    assert told[at + 1] == "transferring context: 6B done"
    assert told[at + 2].startswith("DONE")
    assert [line for line in told if line == "[internal] load build context"] == ["[internal] load build context"] * 2
    amounts = [line for line in told[at + 3 :] if line.startswith("transferring context: ")]
    assert [line for line in amounts if line.endswith("done")] == [
        "transferring context: 5B done",
        "transferring context: 3B done",
    ]
    # What was read once is not read again.
    told = run("build", context).stderr
    assert told.count("[internal] load build context") == 1
    assert re.search(r"^#\d+ transferring context: 0B done$", told, re.MULTILINE)


def test_quiet_prints_the_id_and_nothing_else(run, based, tmp_path):
    context = based("FROM base\nENV a=b\n")
    result = run("build", "-q", "--iidfile", str(tmp_path / "id"), "--metadata-file", str(tmp_path / "meta"), context)
    assert result.stderr == ""
    identity = result.stdout.strip()
    assert ID.fullmatch(identity)
    assert (tmp_path / "id").read_text() == identity
    assert json.loads((tmp_path / "meta").read_text())["containerimage.config.digest"] == identity
    assert sorted(name for name in os.listdir(tmp_path) if name.startswith(("id", "meta"))) == ["id", "meta"]


def test_what_docker_takes_in_vain_is_taken_and_told_in_its_words(run, based):
    context = based("FROM base\nENV a=b\n")
    assert run("build", "-q", "--rm=true", "--force-rm", "-m", "1g", "--provenance=false", context).stderr == ""
    told = run("build", "-q", "--isolation", "hyperv", "--security-opt=seccomp=x", context).stderr
    assert told.splitlines() == [
        "WARNING: isolation flag is deprecated with BuildKit.",
        'WARNING: security-opt flag is deprecated. "RUN --security=insecure" should be used with BuildKit.',
    ]
    for flag, words in {
        "--provenance=true": 'invalid argument "true" for "--provenance" flag: no attestations are made here',
        "--sbom=true": "no attestations are made here",
        "--call=targets": "is not done here: it is build or check",
    }.items():
        assert words in run("build", flag, context, code=2).stderr
    assert "--force-rm" not in run("build", "--help").output


def test_a_call_to_check_is_a_check(run, based):
    context = based("FROM base AS Base\n")
    for call in ("check", "lint"):
        assert "StageNameCasing" in run("build", f"--call={call}", context, code=1).output
    assert run("build", "--call=check", based("FROM base\n")).exit_code == 0


def test_of_what_is_for_the_cache_alone_no_image_is_left(run, based):
    context = based("FROM base\nRUN echo hi > /it\n")
    run("build", "-t", "app", "-o", "type=cacheonly", context)
    assert run("images", "-q").stdout.count("\n") == 1
    assert re.search(r"^#\d+ CACHED$", run("build", "-t", "app", context).stderr, re.MULTILINE)
    run("build", "-t", "other", "--output=type=cacheonly", context)  # equal to one that somebody wants
    assert run("images", "--format", "{{.Repository}}").stdout.split() == ["app", "base"]


def test_records_are_json_lines(run, based):
    shown = run("build", "--progress=json", based("FROM base\nRUN echo hi\n")).stderr
    records = [json.loads(line) for line in shown.splitlines()]
    begun = [record["vertex"] for record in records if record["event"] == "begun"]
    assert begun == list(range(1, len(begun) + 1))
    assert "hi\n" in [record.get("text") for record in records if record["event"] == "output"]


def test_a_failure_is_a_record_among_records(run, based):
    for text, expected in {
        "FROM base\nRUN exit 7\n": {"exit_code": 7, "line": 2},
        "FROM base\nRUM x\n": {"exit_code": None, "line": 2, "remedy": "Did you mean RUN?"},
    }.items():
        lines = run("build", "--progress=json", based(text), code=1).stderr.splitlines()
        records = [json.loads(line) for line in lines]
        assert records[-1]["event"] == "failed"
        assert records[-1]["message"]
        assert {name: records[-1][name] for name in expected} == expected
    lines = run("build", "--progress=json", "/no/such/folder", code=1).stderr.splitlines()
    assert json.loads(lines[-1])["event"] == "failed"


def test_a_failure_shows_output_line_and_exit_code(run, based):
    context = based("FROM base\nRUN echo before\nRUN echo said; exit 7\n")
    result = run("build", context, code=1)
    shown = result.stderr
    assert "Dockerfile:3\n" in shown
    assert "   3 | >>> RUN echo said; exit 7\n" in shown
    assert any("exit code: 7" in line for line in shown.splitlines()[-2:])
    assert "\nsaid\n" in shown


def test_a_dockerfile_that_is_wrong_names_the_line_and_the_nearest(run, based):
    result = run("build", based("FROM base\nRUM x\n"), code=1)
    assert result.stderr.splitlines()[-2:] == ["layerstore: unknown instruction: RUM", "Did you mean RUN?"]
    assert "   2 | >>> RUM x\n" in result.stderr


def test_a_name_that_is_no_stage_and_no_image_names_the_nearest_stage(run, based):
    # A host that nobody can have, so that no registry is asked.
    context = based("FROM base AS host.invalid\nFROM base\nCOPY --from=host.invalid/x /bin/sh /sh\n")
    shown = run("build", context, code=1).stderr.splitlines()
    assert shown[-2].startswith("layerstore: host.invalid/x: failed to resolve source metadata: ")
    assert shown[-1].startswith("Did you mean host.invalid? No stage or context is named host.invalid/x")
    assert "   3 | >>> COPY --from=host.invalid/x /bin/sh /sh" in shown


def test_the_dockerfile_is_found_from_where_the_command_is_called(run, based, tmp_path, monkeypatch):
    context = based("FROM nothing-is-here\n", sub="FROM base\nLABEL which=sub\n")
    (tmp_path / "outside").write_text("FROM base\nLABEL which=outside\n")
    monkeypatch.chdir(tmp_path)
    for file, which in {"context/sub": "sub", "outside": "outside"}.items():
        run("build", "-t", "app", "-f", file, context)
        assert run("inspect", "--format", "{{.Config.Labels.which}}", "app").stdout == f"{which}\n"
    assert "no-such" in run("build", "-f", "no-such", context, code=1).stderr


def test_a_file_that_cannot_be_written_is_told_before_anything_is_built(run, based, tmp_path):
    result = run("build", "--iidfile", str(tmp_path / "no" / "id"), based("FROM base\n"), code=1)
    assert "there is no folder" in result.stderr
    assert "#1" not in result.stderr


def test_wrong_usage(run, based):
    assert "missing argument" in run("build", code=2).stderr
    assert 'invalid argument "a=x" for "-o, --output" flag' in run("build", "-o", "a=x", ".", code=2).stderr
    assert "did you mean --target" in run("build", "--targt", "x", ".", code=2).stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_build_leaves_nothing_and_keeps_finished_steps(run, based, settings, number):
    context = based(
        "FROM base AS other\nRUN echo > /x\nRUN sleep 1000\n"
        "FROM base\nRUN echo finished > /f\nRUN echo going on; sleep 1000\nCOPY --from=other /x /\n"
    )
    command = [sys.executable, "-m", "layerstore.cli", "--config", str(settings), "build", context]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        for line in process.stderr:
            if line.rstrip().endswith(b" going on"):
                break
        process.send_signal(number)
        began = time.monotonic()
        said = process.stderr.read().decode()
        assert process.wait(30) == 128 + number
        assert "CANCELED" in said
        assert "ERROR" not in said
        assert time.monotonic() - began < 20
    assert run("ps", "-aq").stdout == ""
    again = run("build", based("FROM base\nRUN echo finished > /f\nRUN true\n")).stderr
    assert re.search(r"^(#\d+) \[2/3\] RUN echo finished > /f\n\1 CACHED$", again, re.MULTILINE)


def test_checks_alone_build_nothing(run, based):
    context = based("FROM base AS Last\nMAINTAINER me\nCOPY $file $PATH /\n", **{".dockerignore": "x\n"})
    result = run("build", "--check", context, code=1)
    rules = re.findall(r"^WARNING: (\w+) - https://", result.stdout, re.MULTILINE)
    assert rules == ["StageNameCasing", "MaintainerDeprecated", "UndefinedVar"]
    assert "   3 | >>> COPY $file $PATH /\n" in result.stdout
    assert result.stdout.endswith("Check complete, 3 warnings have been found!\n")
    assert run("build", "--check", based("FROM base\nRUN exit 1\n")).stdout == "Check complete, no warnings found.\n"
    assert "unknown instruction: RUM" in run("build", "--check", based("FROM base\nRUM x\n"), code=1).stderr


def test_checks_know_what_the_base_does_in_each_build(run, based):
    run("build", "-q", "-t", "trigger", based("FROM base\nONBUILD ENV V=1\n"))
    context = based("FROM trigger\nENV W=${V:?}\n")
    assert run("build", "--check", context).stdout == "Check complete, no warnings found.\n"


def test_a_warning_without_a_rule_has_its_own_lines(capsys):
    report_warnings([Warned("the steps look at much:\n  data")])
    assert capsys.readouterr().out.startswith(
        "\nWARNING:\nthe steps look at much:\n  data\n\nCheck complete, 1 warning"
    )


def test_a_build_warns_of_the_same_and_goes_on(run, based):
    shown = run("build", based("FROM base as last\nRUN true\n")).stderr
    assert "WARNING: FromAsCasing: 'FROM' and 'as' are not of one casing (Dockerfile:1)\n" in shown
    assert "exporting to image" in shown


def test_copying_what_is_ignored_is_warned_of_before_it_fails(run, based):
    context = based("FROM base\nCOPY left-out /\n", **{".dockerignore": "left-out\n", "left-out": "x"})
    shown = run("build", context, code=1).stderr
    assert "WARNING: CopyIgnoredFile: 'left-out' is excluded by .dockerignore (Dockerfile:2)\n" in shown
    assert re.search(r'^#\d+ ERROR: "/left-out" is not in the build context', shown, re.MULTILINE)


def test_findings_are_errors_where_the_dockerfile_says_so(run, based):
    result = run("build", based("# check=error=true\nFROM base as last\nRUN true\n"), code=1)
    assert "lint violation found for rules: FromAsCasing" in result.stderr
    assert "] RUN true" not in result.stderr


def test_a_failure_leaves_the_user_in_the_container(run, based, settings):
    """On a terminal, which is one of our own here."""
    context = based("FROM base\nRUN echo kept > /made; exit 3\n")
    words = ["--config", str(settings), "build", "--on-failure=shell", context]
    command = [sys.executable, "-m", "layerstore.cli", *words]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True) as process:
        os.close(theirs)
        shown = b""
        typed = False
        while select.select([ours], [], [], 60)[0]:
            try:
                part = os.read(ours, 4096)
            except OSError:  # what a terminal gives whose other end is closed
                break
            shown += part
            if not typed and b"/ # " in shown:
                typed = bool(os.write(ours, b"cat /made; exit\n"))
        if not typed:
            process.kill()
        assert process.wait(60) == 1
    os.close(ours)
    assert b"exit code: 3" in shown
    assert re.search(rb"cat /made; exit\r\nkept\r\n", shown)
    (name,) = run("ps", "-a", "--format", "{{.Names}}").stdout.split()
    assert name.startswith("failed-")
    run("rm", name)


def test_a_variable_says_how_builds_are_shown(run, based, monkeypatch):
    context = based("FROM base\n")
    for value, beginning in {"json": '{"event": "begun"', "rawjson": "#1 [internal]", "": "#1 [internal]"}.items():
        monkeypatch.setenv("BUILDKIT_PROGRESS", value)
        assert run("build", context).stderr.startswith(beginning)
    monkeypatch.setenv("BUILDKIT_PROGRESS", "json")
    assert run("build", "--progress=plain", context).stderr.startswith("#1 [internal]")


def test_dockerfile_and_context_come_from_standard_input(run, based):
    context = based("FROM base\nCMD x\n", file="x")
    archive = subprocess.run(["tar", "-C", context, "-c", "."], capture_output=True, check=True).stdout
    assert ID.fullmatch(run("build", "-q", "-", stdin=archive).stdout.strip())
    assert ID.fullmatch(run("build", "-q", "-", stdin=b"FROM base\nRUN true\n").stdout.strip())
    assert ID.fullmatch(run("build", "-q", "-f", "-", context, stdin=b"FROM base\nCOPY file /\n").stdout.strip())
    for words in (("-",), ("-f", "-", context)):
        given = archive if words == ("-",) else b"FROM base\nCMD x\n"
        assert "JSONArgsRecommended" in run("build", "--check", *words, stdin=given, code=1).stdout
    assert run("ps", "-aq").stdout == ""
