"""Programs in the foreground and by conmon, with a terminal and without: real runtimes, real terminals."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore import KernelError
from layerstore.runtime.streams import Attachment, End, Foreground, Streams, resize, terminal

from .conftest import Rig, Screen, signal_ourselves, wait_for

pytestmark = [pytest.mark.root, pytest.mark.tools("runc", "conmon", "busybox")]


class Script:
    """What a person does while the main thread, which alone can catch signals, is busy.

    A failure ends the program, and is raised at the end.
    """

    def __init__(self, rig: Rig, deed: Callable[[], None]) -> None:
        self._rig = rig
        self._error: BaseException | None = None
        self._deed = deed
        self._thread = threading.Thread(target=self._work)

    def _work(self) -> None:
        try:
            self._deed()
        except BaseException as error:
            self._error = error
            os.kill(self._rig.pid, signal.SIGKILL)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._thread.join(30)
        if self._error is not None:
            raise self._error


@contextlib.contextmanager
def front_of(
    rig: Rig, streams: Streams, *, tty: bool, takes_input: bool = True
) -> Iterator[Callable[[], tuple[End, int | None]]]:
    """Start the rig's program in the foreground; call what comes to attend it: why that ended, and its exit code."""
    with Foreground(streams, tty=tty, takes_input=takes_input) as front:
        process = rig.run(stdin=front.stdin, stdout=front.stdout, stderr=front.stderr)
        pidfd = os.pidfd_open(process.pid)

        def attend() -> tuple[End, int | None]:
            end = front.attend(pidfd, send=process.send_signal, resized=lambda: process.send_signal(signal.SIGWINCH))
            return end, process.wait(10) if end is End.CLOSED else None

        yield attend
        os.close(pidfd)


def test_a_program_has_a_terminal_of_the_size_of_ours(rig: Rig, screen: Screen) -> None:
    terminal.set_size(screen.fd, (24, 80))
    rig.configure("sh", "-c", "tty; while read line; do echo got $line; stty size; done; exit 7", tty=True)
    before = termios.tcgetattr(screen.fd)
    streams = Streams(screen.fd, screen.fd, screen.fd)

    def person() -> None:
        screen.wait_for(b"/dev/pts/0")
        screen.type_until(b"hello\r", b"got hello\r\n24 80")
        terminal.set_size(screen.fd, (50, 132))
        signal_ourselves(signal.SIGWINCH)
        screen.type_until(b"\r", b"50 132")
        screen.type(b"\x04")

    with front_of(rig, streams, tty=True) as attend, Script(rig, person):
        assert attend() == (End.CLOSED, 7)
    assert termios.tcgetattr(screen.fd) == before


def test_keys_are_the_program_s_and_ctrl_c_is_one(rig: Rig, screen: Screen) -> None:
    rig.configure("sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done", tty=True)

    def person() -> None:
        screen.wait_for(b"ready")
        screen.type(b"\x03")

    with front_of(rig, Streams(screen.fd, screen.fd, screen.fd), tty=True) as attend, Script(rig, person):
        assert attend() == (End.CLOSED, 3)
    assert b"caught" in screen.read()


def test_the_keys_let_go_of_a_terminal(rig: Rig, screen: Screen) -> None:
    rig.configure("sh", "-c", "echo ready; cat; exit 4", tty=True)

    def person() -> None:
        screen.wait_for(b"ready")
        screen.type(b"a\x10b\r")  # one key of the two is the program's
        screen.wait_for(b"a^Pb")
        screen.type(b"\x10\x11")

    with front_of(rig, Streams(screen.fd, screen.fd, screen.fd), tty=True) as attend, Script(rig, person):
        assert attend() == (End.DETACHED, None)
    time.sleep(0.1)
    os.kill(rig.pid, 0)  # it goes on


def test_all_that_was_written_at_the_end_is_there(rig: Rig, tmp_path: Path) -> None:
    rig.configure("seq", "40000", tty=True)
    with (tmp_path / "out").open("w+b") as out:
        with front_of(rig, Streams(None, out.fileno(), None), tty=True, takes_input=False) as attend:
            assert attend() == (End.CLOSED, 0)
        out.seek(0)
        assert out.read() == b"".join(b"%d\r\n" % number for number in range(1, 40001))


def test_without_a_terminal_streams_are_ours_and_signals_passed_on(rig: Rig, tmp_path: Path) -> None:
    rig.configure("sh", "-c", "trap 'echo usr1' USR1; trap 'exit 9' TERM; echo ready >&2; while :; do sleep 0.05; done")
    with (tmp_path / "out").open("w+b") as out, (tmp_path / "err").open("w+b") as err:

        def person() -> None:
            wait_for(lambda: (tmp_path / "err").read_bytes() == b"ready\n")
            signal_ourselves(signal.SIGUSR1)
            wait_for(lambda: (tmp_path / "out").read_bytes() == b"usr1\n")
            signal_ourselves(signal.SIGTERM)

        before = signal.getsignal(signal.SIGTERM)
        streams = Streams(None, out.fileno(), err.fileno())
        with front_of(rig, streams, tty=False) as attend, Script(rig, person):
            assert attend() == (End.CLOSED, 9)
        assert signal.getsignal(signal.SIGTERM) == before


def test_what_a_runtime_that_fails_says_is_seen(rig: Rig, screen: Screen) -> None:
    rig.configure("no-such-program", tty=True)
    with front_of(rig, Streams(screen.fd, screen.fd, screen.fd), tty=True) as attend:
        end, code = attend()
    assert (end, code) == (End.CLOSED, 1)
    assert b"no-such-program" in screen.read()


# --- conmon


def test_nothing_is_missed_of_what_conmon_holds(rig: Rig, tmp_path: Path) -> None:
    rig.configure("sh", "-c", "echo one; echo two >&2; while read line; do echo got $line; done; echo end")
    rig.conmon()
    source, ours = os.pipe()
    with (tmp_path / "out").open("w+b") as out, (tmp_path / "err").open("w+b") as err:
        with Attachment(rig.bundle) as attached:
            rig.start()
            os.write(ours, b"a\nb\n")
            os.close(ours)
            end = attached.relay(Streams(source, out.fileno(), err.fileno()), tty=False, takes_input=True)
        assert end is End.CLOSED
        os.close(source)
    assert (tmp_path / "out").read_bytes() == b"one\ngot a\ngot b\nend\n"
    assert (tmp_path / "err").read_bytes() == b"two\n"


def test_much_goes_in_and_comes_out(rig: Rig, tmp_path: Path) -> None:
    rig.configure("cat")
    rig.conmon()
    (tmp_path / "in").write_bytes(os.urandom(1 << 20))
    source, out = os.open(tmp_path / "in", os.O_RDONLY), os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    with Attachment(rig.bundle) as attached:
        rig.start()
        attached.relay(Streams(source, out, None), tty=False, takes_input=True)
    os.close(source)
    os.close(out)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "in").read_bytes()


def test_let_go_of_and_attached_again(rig: Rig, screen: Screen) -> None:
    terminal.set_size(screen.fd, (24, 80))
    rig.configure("sh", "-c", "while read line; do echo got $line; stty size; done; exit 5", tty=True)
    rig.conmon(tty=True)
    streams = Streams(screen.fd, screen.fd, screen.fd)

    def first() -> None:
        screen.type_until(b"one\r", b"got one\r\n24 80")
        screen.type(b"\x10\x11")

    with Attachment(rig.bundle) as attached:
        rig.start()
        with Script(rig, first):
            assert attached.relay(streams, tty=True, takes_input=True) is End.DETACHED

    terminal.set_size(screen.fd, (30, 100))  # meanwhile

    def second() -> None:
        screen.type_until(b"two\r", b"got two\r\n30 100")
        screen.type(b"\x04")

    with Attachment(rig.bundle) as attached, Script(rig, second):
        assert attached.relay(streams, tty=True, takes_input=True) is End.CLOSED


@pytest.mark.parametrize("is_noted", [False, True])
def test_signals_go_to_what_conmon_holds(rig: Rig, tmp_path: Path, *, is_noted: bool) -> None:
    rig.configure("sh", "-c", "trap 'echo caught; exit 0' TERM; echo ready; while :; do sleep 0.05; done")
    rig.conmon()
    with (tmp_path / "out").open("w+b") as out, Attachment(rig.bundle) as attached:
        rig.start()

        def person() -> None:
            wait_for(lambda: b"ready" in (tmp_path / "out").read_bytes())
            signal_ourselves(signal.SIGTERM, is_noted=is_noted)

        with Script(rig, person):
            attached.relay(
                Streams(None, out.fileno(), None),
                tty=False,
                takes_input=False,
                signal=lambda number: rig.runc("kill", rig.id, str(number)),
            )
    assert (tmp_path / "out").read_bytes() == b"ready\ncaught\n"


def test_nobody_is_there_to_attach_to(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"connect .*attach: No such file"):
        Attachment(tmp_path, patience=0.05)
    resize(tmp_path, (24, 80))  # which is nobody's then
    os.mkfifo(tmp_path / "ctl")
    resize(tmp_path, (24, 80))
