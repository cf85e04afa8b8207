"""What programs wrote: read whole, from its end, between two moments, and while it is written."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore import Damaged
from layerstore.runtime.streams import Streams, logs
from layerstore.runtime.streams.logs import Entry

FIRST = 1_764_340_117_594_615_189


def k8s(entry: Entry) -> bytes:
    name = ("stdout", "stderr")[entry.stream - 1]
    whole = entry.data.endswith(b"\n")
    moment = logs.stamp(entry.time).replace("Z", "+00:00")
    return f"{moment} {name} {'F' if whole else 'P'} ".encode() + entry.data.removesuffix(b"\n") + b"\n"


def docker(entry: Entry) -> bytes:
    name = ("stdout", "stderr")[entry.stream - 1]
    return json.dumps({"log": entry.data.decode(), "stream": name, "time": logs.stamp(entry.time)}).encode() + b"\n"


texts = st.text('aé\0 "\r', max_size=6).map(str.encode)
entries = st.lists(
    st.tuples(st.sampled_from([1, 2]), texts, st.booleans()).map(
        lambda facts: (facts[0], facts[1] + (b"\n" if facts[2] else b""))
    ),
    max_size=20,
).map(lambda found: [Entry(FIRST + number, *facts) for number, facts in enumerate(found)])


@pytest.mark.parametrize("form", [k8s, docker])
@given(written=entries, tail=st.none() | st.integers(0, 8), piece=st.sampled_from([7, 100, 1 << 16]))
def test_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, form: object, written: list[Entry], tail: int | None, piece: int
) -> None:
    assert callable(form)
    file = tmp_path_factory.getbasetemp() / "log"
    file.write_bytes(b"".join(form(entry) for entry in written))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logs, "_PIECE", piece)
        found = list(logs.read(file, tail=tail))
    assert found == (written if tail is None else last(written, tail))


def last(written: Sequence[Entry], lines: int) -> list[Entry]:
    """What follows the end of the line before the last so many; an unfinished one at the end is one."""
    if lines == 0:
        return []
    ends = [number for number, entry in enumerate(written) if entry.data.endswith(b"\n")]
    if written and not written[-1].data.endswith(b"\n"):
        ends.append(len(written) - 1)
    return list(written[ends[-lines - 1] + 1 :]) if len(ends) > lines else list(written)


@given(written=entries, since=st.integers(-2, 22), until=st.integers(-2, 22))
def test_between_two_moments(
    tmp_path_factory: pytest.TempPathFactory, written: list[Entry], since: int, until: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "log"
    file.write_bytes(b"".join(map(k8s, written)))
    found = list(logs.read(file, since=FIRST + since, until=FIRST + until))
    assert found == [entry for entry in written if since <= entry.time - FIRST <= until]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-11-28T14:28:37.594615189+00:00", FIRST),
        ("2025-11-28T16:28:37.594615189+02:00", FIRST),
        ("2025-11-28T14:28:37.594615189Z", FIRST),
        ("2025-11-28T14:28:37Z", 1_764_340_117_000_000_000),
        ("2025-11-28T14:28:37.5-00:30", 1_764_341_917_500_000_000),
        ("2025-13-28T14:28:37Z", None),
        ("yesterday", None),
    ],
)
def test_times(text: str, moment: int | None) -> None:
    assert logs.nanoseconds(text) == moment


def test_what_a_power_cut_leaves_is_passed_over(tmp_path: Path) -> None:
    whole = [Entry(FIRST, 1, b"one\n"), Entry(FIRST + 1, 2, b"two\n")]
    log = tmp_path / "log"
    log.write_bytes(k8s(whole[0]) + b"\0" * 300 + b"\n{\n" + k8s(whole[1]) + b"2025-11-28T14:28:37Z std")
    assert list(logs.read(log)) == whole
    assert list(logs.read(log, tail=1)) == whole[1:]


def test_no_log_is_an_empty_one(tmp_path: Path) -> None:
    assert list(logs.read(tmp_path / "log")) == []


def test_the_end_of_a_long_log_costs_no_more(tmp_path: Path) -> None:
    log = tmp_path / "log"
    line = k8s(Entry(FIRST, 1, b"x" * 100 + b"\n"))
    with log.open("wb") as file:
        for _ in range(64):
            file.write(line * 4096)
    began = time.thread_time()
    assert len(list(logs.read(log, tail=10))) == 10
    assert time.thread_time() - began < 0.05  # reading all 38 MB takes half a second and more


def test_to_our_streams(tmp_path: Path) -> None:
    written = [
        Entry(FIRST, 1, b"a"),
        Entry(FIRST + 1, 2, b"err\n"),
        Entry(FIRST + 2, 1, b"b\n"),
        Entry(FIRST + 3, 1, b"c\n"),
    ]
    out, err = os.open(tmp_path / "out", os.O_CREAT | os.O_RDWR), os.open(tmp_path / "err", os.O_CREAT | os.O_RDWR)
    logs.write(iter(written), Streams(stdout=out, stderr=err), timestamps=True)
    logs.write(iter(written), Streams(stdout=None, stderr=err))
    os.close(out)
    os.close(err)
    assert (tmp_path / "out").read_text() == ("2025-11-28T14:28:37.594615189Z ab\n2025-11-28T14:28:37.594615192Z c\n")
    assert (tmp_path / "err").read_text() == "2025-11-28T14:28:37.594615190Z err\nerr\n"


def test_followed_into_the_file_that_takes_its_place(tmp_path: Path) -> None:
    log, lives = tmp_path / "log", threading.Event()
    lives.set()
    written = [Entry(FIRST + number, 1, b"%d\n" % number) for number in range(6)]
    log.write_bytes(k8s(written[0]) + k8s(written[1]))

    def program() -> Iterator[None]:
        with log.open("ab") as file:
            half = k8s(written[2])
            file.write(half[:20])
            file.flush()
            yield
            file.write(half[20:] + k8s(written[3]))
        yield
        (tmp_path / "new").write_bytes(k8s(written[4]))
        (tmp_path / "new").rename(log)
        yield
        with log.open("ab") as file:
            file.write(k8s(written[5]))
        lives.clear()
        yield

    steps = program()

    def work() -> None:
        for _ in steps:
            time.sleep(0.05)

    thread = threading.Thread(target=work)
    followed = logs.read(log, follow=lives.is_set, tail=1)
    found = [next(followed)]  # it is open: what was replaced before would be missed
    thread.start()
    found += followed
    thread.join()
    assert found == written[1:]


def test_followed_until_a_moment(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(k8s(Entry(FIRST, 1, b"old\n")))
    began = time.monotonic()
    assert len(list(logs.read(log, follow=lambda: True, until=time.time_ns() + 200_000_000))) == 1
    assert 0.15 < time.monotonic() - began < 60


def test_a_pipe_in_the_place_of_a_log_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    with pytest.raises(Damaged, match="is no plain file"):
        list(logs.read(tmp_path / "log"))
