"""What every benchmark here needs: a filesystem worth timing on, facts about the machine, and a results file.

Times mean something only on a filesystem made for the run. It is ext4 with a journal, where nothing else is said, in a
loop image with direct I/O, so that the image's own page cache plays no part; inputs lie elsewhere and are read once
before each measurement.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, RawTextHelpFormatter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from attrs import asdict, frozen

_MKFS: dict[str, tuple[str, ...]] = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
}

_CLONE_NEWNS = 0x00020000
_MS_REC_PRIVATE = 0x4000 | 1 << 18


@frozen
class Measured:
    """The seconds of every round of one subject on one input."""

    subject: str
    input: str
    seconds: tuple[float, ...]

    @property
    def least(self) -> float:
        """What it costs when nothing disturbs."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """What it costs on most days."""
        return statistics.median(self.seconds)


@contextmanager
def filesystem(folder: Path, *, size: int, kind: str = "ext4") -> Iterator[Path]:
    """A fresh one in `folder`, in a mount namespace of this process's own: should it be killed, nothing is left."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0 or libc.mount(None, b"/", None, _MS_REC_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "no mount namespace: benchmarks need root")
    with tempfile.TemporaryDirectory(prefix="layerstore-bench-", dir=folder) as name:
        image, mountpoint = Path(name, "image"), Path(name, "fs")
        with image.open("wb") as file:
            file.truncate(size)
        mountpoint.mkdir()
        run(*_MKFS[kind], image)
        loop = run("losetup", "--find", "--show", "--direct-io=on", image).strip()
        try:
            run("mount", "-t", kind, loop, mountpoint)
        finally:
            # The kernel lets go of both when it is unmounted, whoever does that.
            run("losetup", "--detach", loop)
            image.unlink()
        try:
            yield mountpoint
        finally:
            unmount_below(mountpoint)
            run("umount", mountpoint)


def unmount_below(folder: Path) -> None:
    """Unmount what peers leave mounted in their stores."""
    with open("/proc/self/mountinfo") as table:
        points = [Path(line.split(" ")[4]) for line in table]
    for point in reversed(points):
        if folder in point.parents:
            run("umount", "--lazy", point)


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command and return what it prints; say what it said when it fails."""
    done = subprocess.run(
        [os.fspath(part) for part in command],
        env=None if env is None else {**os.environ, **env},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def dockerd(home: Path) -> Iterator[int]:
    """A docker daemon with everything in `home`, that listens at `home`/socket and touches no network; its pid."""
    socket = f"unix://{home}/socket"
    places = [f"--data-root={home}/data", f"--exec-root={home}/run", f"--pidfile={home}/pid"]
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]
    with (
        open(home / "log", "wb") as log,
        subprocess.Popen(
            ["dockerd", "--host", socket, "--storage-driver", "overlay2", *places, *network],
            stdout=log,
            stderr=log,
        ) as daemon,
    ):
        try:
            for _ in range(300):
                if (home / "socket").exists():
                    break
                time.sleep(0.1)
            run("docker", "--host", socket, "version")
            yield daemon.pid
        finally:
            daemon.terminate()


def usual_options(program: str, about: str | None) -> ArgumentParser:
    """What all benchmarks on images are asked."""
    parser = ArgumentParser(prog=program, description=about, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of the test images")
    parser.add_argument("--only", default="", help="titles of subjects, or beginnings of them, with semicolons between")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where loop images are made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    return parser


class Named(Protocol):
    """What is measured: called so, by these programs."""

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]


T = TypeVar("T", bound=type[Named])


def chosen(subjects: Sequence[T], only: str) -> list[T]:
    """The subjects whose titles begin with one of `only`, without those whose programs are not installed.

    The modules of this project are compiled for them, so that the first round is like the others.
    """
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    wanted = [part.strip() for part in only.split(";") if part.strip()]
    found = [one for one in subjects if not wanted or any(one.title.startswith(part) for part in wanted)]
    missing = {tool for one in found for tool in one.needs if shutil.which(tool) is None}
    if missing:
        print(f"not installed, so left out: {', '.join(sorted(missing))}", file=sys.stderr)
    root = Path(__file__).parent.parent
    run(sys.executable, "-m", "compileall", "-q", root / "src", root / "drivers")
    return [one for one in found if not missing.intersection(one.needs)]


def warm(paths: Sequence[Path]) -> None:
    """Read files, and all below folders, into the page cache."""
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                with file.open("rb", buffering=0) as stream:
                    while stream.read(1 << 22):
                        pass


def machine() -> dict[str, str]:
    """What the figures depend on."""
    facts = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "cpu": models[0].split(":", 1)[1].strip() if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{int(facts['MemTotal'].split()[0]) >> 20} GiB",
        "python": platform.python_version(),
        "filesystem": "ext4 with a journal, fresh, loop image with direct I/O",
    }


def write_results(
    stem: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    measured: Sequence[Measured],
    tables: str,
    remarks: Sequence[str],
    top: str = "",
    more: Mapping[str, Any] | None = None,
) -> None:
    """`stem`.json with every single figure, `more` among them, and `stem`.md to read. `top` stands before the facts."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    raw: dict[str, Any] = {"title": title, "machine": dict(facts), "measured": [asdict(one) for one in measured]}
    raw |= more or {}
    stem.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    machine_lines = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    remark_lines = "\n".join(f"- {remark}" for remark in remarks)
    text = "\n\n".join(filter(None, [f"# {title}", top, machine_lines, tables, remark_lines])) + "\n"
    stem.with_suffix(".md").write_text(text)
    print(f"written: {stem.with_suffix('.md')}", file=sys.stderr)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
