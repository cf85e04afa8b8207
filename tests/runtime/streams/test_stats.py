"""What is counted, by the files of both versions of control groups; and where a process has none of its own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import evolve

from layerstore.runtime.streams import stats
from layerstore.runtime.streams.cgroups import Groups, groups_of
from layerstore.runtime.streams.stats import Sample, between
from layerstore.runtime.streams.top import process, processes_of, top

MIB = 1 << 20


def folder(path: Path, files: Mapping[str, str]) -> Path:
    path.mkdir()
    for name, text in files.items():
        (path / name).write_text(text)
    return path


@pytest.fixture
def version_1(tmp_path: Path) -> Groups:
    """As the kernel's admin-guide/cgroup-v1 has it: a folder for each controller."""
    return Groups(
        {
            "cpuacct": folder(tmp_path / "cpuacct", {"cpuacct.usage": "2500000000\n"}),
            "memory": folder(
                tmp_path / "memory",
                {
                    "memory.usage_in_bytes": f"{50 * MIB}\n",
                    "memory.limit_in_bytes": f"{64 * MIB}\n",
                    "memory.stat": f"cache 1\ninactive_file 7\ntotal_inactive_file {10 * MIB}\n",
                },
            ),
            "blkio": folder(
                tmp_path / "blkio",
                {
                    "blkio.throttle.io_service_bytes_recursive": (
                        "8:0 Read 1000\n8:0 Write 200\n8:0 Sync 0\n8:0 Total 1200\n"
                        "8:16 Read 30\n8:16 Write 4\nTotal 1234\n"
                    )
                },
            ),
            "pids": folder(tmp_path / "pids", {"pids.current": "3\n", "pids.max": "max\n"}),
        },
        None,
    )


@pytest.fixture
def version_2(tmp_path: Path) -> Groups:
    """As admin-guide/cgroup-v2 has it: one folder."""
    files = {
        "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
        "memory.current": f"{50 * MIB}\n",
        "memory.max": f"{64 * MIB}\n",
        "memory.stat": f"anon 5\ninactive_file {10 * MIB}\nactive_file 9\n",
        "io.stat": "8:0 rbytes=1000 wbytes=200 rios=2 wios=1 dbytes=0 dios=0\n8:16 rbytes=30 wbytes=4 rios=1 wios=1\n",
        "pids.current": "3\n",
        "cgroup.procs": f"{os.getpid()}\n",
    }
    return Groups({}, folder(tmp_path / "unified", files))


@pytest.mark.parametrize("version", ["version_1", "version_2"])
def test_both_versions_tell_the_same(
    version: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: Groups = request.getfixturevalue(version)
    monkeypatch.setattr(stats, "groups_of", lambda _: groups)
    found = stats.sample(os.getpid())
    assert found is not None
    assert (found.cpu, found.memory, found.memory_limit, found.pids) == (2.5, 40 * MIB, 64 * MIB, 3)
    assert (found.read, found.written) == (1030, 204)


def test_no_limit_is_what_the_machine_has(version_2: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    assert version_2.unified is not None
    (version_2.unified / "memory.max").write_text("max\n")
    monkeypatch.setattr(stats, "groups_of", lambda _: version_2)
    found = stats.sample(os.getpid())
    assert found is not None
    assert found.memory_limit == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_shares() -> None:
    before = Sample(10.0, 1.0, 30, 200, 0, 0, 0, 0, 1)
    now = evolve(before, moment=12.0, cpu=4.0, memory=50)
    found = between(before, now)
    assert (found.cpu, found.memory_share) == (150.0, 25.0)
    assert between(now, now).cpu == 0.0
    assert between(now, evolve(now, moment=13.0, cpu=3.0)).cpu == 0.0  # a process with its own count has ended


def test_where_there_is_no_group_of_its_own() -> None:
    assert groups_of(os.getpid()) == Groups({}, None)  # we are in them ourselves
    sleeper = subprocess.Popen(["sleep", "60"])
    try:
        assert processes_of(sleeper.pid) == {sleeper.pid}
        deadline = time.monotonic() + 30
        # It has its name before it has any memory that is counted.
        while (known := process(sleeper.pid)) is None or known.command != "sleep 60" or not known.resident:
            assert time.monotonic() < deadline
        assert (known.parent, known.user) == (os.getpid(), os.getuid())
        assert abs(known.started - time.time()) < 10
        found = stats.sample(sleeper.pid)
        assert found is not None
        assert (found.pids, found.memory > 0, found.received) == (1, True, 0)
        assert [row[-1] for row in top(sleeper.pid).rows] == ["sleep 60"]
    finally:
        sleeper.kill()
        sleeper.wait()
    assert processes_of(sleeper.pid) == set()
    assert stats.sample(sleeper.pid) is None
    assert top(sleeper.pid).rows == ()
    assert groups_of(sleeper.pid) == Groups({}, None)
    assert stats.stats([sleeper.pid], interval=60) == {}  # at once: there is nobody to look at
