"""Bundles as crun and runc run them: what a program sees in there, and what it cannot do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from layerstore.runtime import bundle
from layerstore.runtime.options import Device, MountOption, RunOptions, Ulimit

from .conftest import Run, check

pytestmark = [pytest.mark.root, pytest.mark.tools("crun", "runc", "busybox")]

STATUS = ("grep", "-E", "^(CapInh|CapEff|CapBnd|NoNewPrivs|Seccomp):", "/proc/self/status")


def lines_of(run: Run, place: bundle.Place, *args: str, binds: tuple[bundle.Bind, ...] = (), **said: Any) -> list[str]:
    """What a program prints, that has to succeed."""
    config = bundle.make({}, RunOptions(args=args, **said), bundle.read_host(), place, binds)
    check(config)
    done = run(config)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def status_of(run: Run, place: bundle.Place, **said: Any) -> list[str]:
    return [line.split()[1] for line in lines_of(run, place, *STATUS, **said)]


def test_a_program_sees_only_its_own_processes(run: Run, place: bundle.Place) -> None:
    assert lines_of(run, place, "true") == []
    listed = lines_of(run, place, "ps", "-o", "pid,comm")
    assert [line.split() for line in listed] == [["PID", "COMMAND"], ["1", "ps"]]


def test_a_program_has_docker_s_capabilities_and_a_filter(run: Run, place: bundle.Place) -> None:
    usual = "00000000a80425fb"
    assert status_of(run, place) == ["0" * 16, usual, usual, "0", "2"]
    assert status_of(run, place, user="web") == ["0" * 16, "0" * 16, usual, "0", "2"]
    options = ("no-new-privileges", "seccomp=unconfined")
    assert status_of(run, place, cap_drop=("ALL",), security_opt=options) == ["0" * 16, "0" * 16, "0" * 16, "1", "0"]


def test_privileged_has_what_this_host_has(run: Run, place: bundle.Place) -> None:
    own = Path("/proc/self/status").read_text()
    bounding = next(line.split()[1] for line in own.splitlines() if line.startswith("CapBnd:"))
    assert status_of(run, place, privileged=True) == ["0" * 16, bounding, bounding, "0", "0"]
    nodes = {node.path.removeprefix("/dev/") for node in bundle.read_host().nodes("/dev") if node.path.count("/") == 2}
    assert nodes <= set(lines_of(run, place, "ls", "/dev", privileged=True))


def test_a_user_of_the_image_is_found(run: Run, place: bundle.Place, root: Path) -> None:
    (root / "srv/web").mkdir(parents=True)
    script = "id -u; id -g; id -G; echo $HOME; pwd; umask"
    mask = os.umask(0o077)
    try:
        seen = lines_of(run, place, "sh", "-c", script, user="web", working_dir="/srv/web")
    finally:
        os.umask(mask)
    assert seen == ["33", "44", "44 55 56", "/srv/web", "/srv/web", "0022"]


def test_files_in_etc_are_mounted(run: Run, place: bundle.Place, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    network = bundle.Network(namespace="")
    options = RunOptions(hostname="web1", domainname="lan")
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    bundle.write(fd, bundle.texts(options, bundle.read_host(), place.id, network))
    os.close(fd)
    place = evolve(place, files=str(folder), network=network)
    script = "hostname; cat /proc/sys/kernel/domainname /etc/hostname /etc/hosts; ls /sys/class/net"
    seen = lines_of(run, place, "sh", "-c", script, hostname="web1", domainname="lan")
    assert seen[:3] == ["web1", "lan", "web1"]
    assert "127.0.1.1\tweb1.lan web1" in seen
    assert "lo" in seen
    assert "eth0" not in seen


def test_init_reaps_and_leaves_nothing_in_the_tree(run: Run, place: bundle.Place, root: Path) -> None:
    host = bundle.read_host()
    if host.init is None:
        host = evolve(host, init=str(_small_init(root)))
    config = bundle.make({}, RunOptions(args=("ps", "-o", "pid,args"), init=True), host, place)
    done = run(config)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()[1:]
    assert first.split()[0] == "1"
    assert first.endswith("/dev/init -- ps -o pid,args")
    assert second.endswith("ps -o pid,args")  # as a shell's own applet it has the shell's words before it
    assert "/dev/init" not in second.split()[1]
    assert sorted(os.listdir(root / "dev")) == []


def _small_init(root: Path) -> Path:
    """A shell in the place of catatonit."""
    script = root.parent / "init"
    script.write_text('#!/bin/sh\nshift\nenv "$@" &\nwait $!\n')
    script.chmod(0o755)
    return script


def test_what_a_container_may_not_do(run: Run, place: bundle.Place) -> None:
    script = """
        mount -t tmpfs none /tmp 2>/dev/null && echo mounted
        echo 1 2>/dev/null >/proc/sys/kernel/panic && echo wrote
        mkdir /sys/fs/cgroup/pids/mine 2>/dev/null && echo grouped
        cat /proc/keys /proc/timer_list 2>/dev/null
        ls /sys/firmware
        test -e /dev/vda && echo disk
        true
    """
    assert lines_of(run, place, "sh", "-c", script) == []


def test_a_tree_that_is_read_only(run: Run, place: bundle.Place, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "old").write_text("")
    binds = (bundle.Bind(str(data), "/data"), bundle.Bind(str(data), "/ro", read_only=True))
    mounts = (MountOption("tmpfs", "/scratch", options=("size=64k", "mode=700")),)
    script = """
        for place in / /tmp /ro /data /scratch /dev/shm; do touch $place/new 2>/dev/null && echo $place; done
        ls /ro
        stat -c %a /scratch
        grep -c ' /scratch tmpfs .*size=64k' /proc/mounts
    """
    seen = lines_of(run, place, "sh", "-c", script, read_only=True, mounts=mounts, binds=binds)
    assert seen == ["/data", "/scratch", "/dev/shm", "new", "old", "700", "1"]
    assert (data / "new").exists()


def test_limits_reach_the_kernel(run: Run, place: bundle.Place) -> None:
    script = """
        ulimit -n; ulimit -Hn; cat /proc/sys/kernel/msgmax /proc/self/oom_score_adj; df=$(grep /dev/shm /proc/mounts)
        echo ${df##*size=}
    """
    seen = lines_of(
        run,
        place,
        "sh",
        "-c",
        script,
        ulimits=(Ulimit("nofile", 77, 99),),
        sysctls={"kernel.msgmax": "9000"},
        oom_score_adj=321,
        shm_size=1 << 20,
    )
    assert seen[:4] == ["77", "99", "9000", "321"]
    assert seen[4].startswith("1024k")


def test_limits_of_the_cgroup(run: Run, place: bundle.Place) -> None:
    host = bundle.read_host()
    place = evolve(place, cgroup=f"/layerstore-test/{os.urandom(6).hex()}")
    if host.cgroup == 1:
        files = ("memory/memory.limit_in_bytes", "pids/pids.max", "cpu/cpu.cfs_quota_us")
    elif host.cgroup == 2:
        files = ("memory.max", "pids.max", "cpu.max")
    else:
        pytest.skip("this machine has no cgroups")
    script = f"cd /sys/fs/cgroup; cat {' '.join(files)}"
    try:
        seen = lines_of(run, place, "sh", "-c", script, memory=64 << 20, pids_limit=9, cpus=0.5)
    finally:
        for folder in Path("/sys/fs/cgroup").glob("*/layerstore-test"):
            folder.rmdir()
    assert [line.split()[0] for line in seen] == [str(64 << 20), "9", "50000"]


def test_a_device_is_there_to_be_used(run: Run, place: bundle.Place) -> None:
    devices = (Device("/dev/full", "/dev/mine", "r"),)
    assert lines_of(run, place, "sh", "-c", "ls -l /dev/mine | cut -c1", devices=devices) == ["c"]


def test_host_s_namespaces_are_shared_by_name(run: Run, place: bundle.Place) -> None:
    place = evolve(place, namespaces={"pid": "", "ipc": "", "uts": ""})
    seen = lines_of(run, place, "sh", "-c", "for kind in pid ipc uts; do readlink /proc/self/ns/$kind; done; hostname")
    assert seen == [*(os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "ipc", "uts")), os.uname().nodename]
