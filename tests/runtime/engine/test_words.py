"""What engines say of failures, as crun 1.8.1 and runc 1.1.5 wrote it here, and which error each is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from layerstore.runtime.engine import words as module
from layerstore.runtime.engine.words import code_of, failure, words_of


def log(*messages: str, level: str = "error") -> bytes:
    return b"\n".join(json.dumps({"msg": message, "level": level, "time": "now"}).encode() for message in messages)


@pytest.mark.parametrize(
    ("said", "words", "code"),
    [
        (
            "executable file `/nope` not found in $PATH: No such file or directory",
            "executable file `/nope` not found in $PATH: No such file or directory",
            127,
        ),
        (
            'runc run failed: unable to start container process: exec: "/nope": stat /nope: no such file or directory',
            'exec: "/nope": stat /nope: no such file or directory',
            127,
        ),
        (
            'runc create failed: unable to start container process: exec: "nope": executable file not found in $PATH',
            'exec: "nope": executable file not found in $PATH',
            127,
        ),
        ("open executable: Operation not permitted", "open executable: Operation not permitted", 126),
        (
            'runc run failed: unable to start container process: exec: "/etc": permission denied',
            'exec: "/etc": permission denied',
            126,
        ),
        ("mount `proc` to `proc`: Operation not permitted", "mount `proc` to `proc`: Operation not permitted", 125),
        (
            "writing file `devices.allow`: No such file or directory",
            "writing file `devices.allow`: No such file or directory",
            125,
        ),
    ],
)
def test_the_words_of_an_engine_become_an_error_with_docker_s_exit_code(said: str, words: str, code: int) -> None:
    assert words_of(log(said)) == [words]
    assert code_of([words]) == code
    error = failure("container web cannot be started", [words])
    assert (error.code, error.message) == (code, f"container web cannot be started: {words}")


def test_words_are_said_once_and_warnings_are_none() -> None:
    assert words_of(log("a", "a", "b") + b"\n" + log("careful", level="warning")) == ["a", "b"]


def test_what_crun_says_in_colour_beside_it_is_the_same() -> None:
    red = b"\x1b[1;31m2026-11-29T02:15:41.572556Z: chdir `/nope`: No such file\x1b[0m\r\n"
    assert words_of(b"chdir `/nope`: No such file\n" + red) == ["chdir `/nope`: No such file"]


def test_a_line_that_is_not_json_is_taken_as_it_is() -> None:
    assert words_of(b"\nsegmentation fault\n[1]\n") == ["segmentation fault", "[1]"]


def test_no_words_are_an_error_too() -> None:
    error = failure("container web cannot be started", [])
    assert error.code == 125
    assert "does not say why" in error.message


def test_a_folder_that_is_not_there_is_told_by_each_engine() -> None:
    for words in (
        "chdir `/nope`: No such file or directory",
        'chdir to cwd ("/nope") set in config.json failed: no such file or directory',
    ):
        error = failure("exec in container web failed", [words], usual=126)
        assert error.code == 126
        assert error.remedy is not None
        assert "Begin in a folder" in error.remedy
    assert failure("container web cannot be started", ["no idea"]).code == 125
    assert (
        failure("exec in container web failed", ["no such: executable file not found in $PATH"], usual=126).code == 127
    )


def test_the_machine_s_root_is_told_of_where_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_users", lambda: True)
    for words in ("cgroups in hybrid mode not supported", "mount `proc` to `proc`: Operation not permitted"):
        assert "wants the machine's root" in str(failure("container web cannot be started", [words]))
    for words in ("container `web` does not exist", "chdir `/x`: Permission denied"):
        assert "wants the machine's root" not in str(failure("container web cannot be paused", [words]))


def test_a_kernel_without_namespaces_of_users_hides_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "Path", lambda _: tmp_path / "none")
    error = failure("container web cannot be started", ["creating cgroup: Permission denied"])
    assert error.message == "container web cannot be started: creating cgroup: Permission denied"
    assert "wants the machine's root" not in str(error)
