"""A program run in a new container: layerstore beside podman, docker, and crun and runc on a bundle that lies there.

    python -m benchmarks.run --images FOLDER [--name python] [--rounds 20] [--only SUBJECT,...]

The image is the lowest layer of NAME, a Debian root. What is timed, by each subject's own command or call: `run --rm`
of /bin/true until all of it is gone again; `run -d` until its command returns; `exec` of /bin/true in one that runs.
Nobody has a network namespace of its own: it is the dearest part of a start, and as dear for everybody.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import layerstore
from benchmarks.bench import (
    Measured,
    chosen,
    dockerd,
    filesystem,
    machine,
    run,
    table,
    usual_options,
    warm,
    write_results,
)
from benchmarks.rooms import Room, cgroups_given_back, open_rooms
from layerstore.runtime import RunOptions, Runtime

TRUE = "/bin/true"
RUN, DETACHED, EXEC = "run --rm true", "run -d", "exec true"
LIMITS = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
"""podman asks for more than some machines may give."""


class Subject(ABC):
    """One way to run a program in a container of its own, with all it needs in `home`.

    `home`/run is on a tmpfs, as /run is where people keep what a reboot ends.
    """

    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()

    def __init__(self, home: Path, root: Path, room: Room) -> None:
        self.home = home
        self.root = root
        self.room = room

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        """While inside: the image is there, and one container runs for `exec`. Untimed."""
        yield

    @abstractmethod
    def run(self) -> float:
        """Seconds of one `run --rm true`."""

    def start(self) -> float | None:
        """Seconds of one `run -d`; what it started is removed untimed. None: there is no such thing."""
        return None

    def exec(self) -> float | None:
        """Seconds of one `exec true`."""
        return None


class Plain(Subject):
    title = "fork + exec alone"

    def run(self) -> float:
        return self.room.timed(TRUE)


class Unshare(Subject):
    title = "unshare(1): pid, mount, ipc, uts, chroot"
    needs = ("unshare",)

    def run(self) -> float:
        spaces = ("--pid", "--fork", "--mount", "--ipc", "--uts", "--kill-child")
        return self.room.timed("unshare", *spaces, f"--root={self.root}", "--mount-proc", TRUE)


class Bundle(Subject):
    """An OCI runtime as it is: root and config.json are prepared, and nobody removes anything but it."""

    program: ClassVar[str]
    lean: ClassVar[bool] = False

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        self.tar = tar
        self.write(self.home / "bundle", ["/bin/true"])
        self.write(self.home / "sleeping", ["/bin/sleep", "100000"])
        sleeping = f"bench-{type(self).__name__.lower()}"
        self.room.timed(*self.command("create", "--bundle", self.home / "sleeping", sleeping))
        self.room.timed(*self.command("start", sleeping))
        self.sleeping = sleeping
        try:
            yield
        finally:
            self.room.timed(*self.command("delete", "--force", sleeping))

    def command(self, *words: str | Path) -> list[str]:
        return [self.program, "--root", f"{self.home}/run/state", *map(str, words)]

    def write(self, bundle: Path, args: list[str]) -> None:
        """Make the bundle."""
        bundle.mkdir()
        run(self.program, "spec", cwd=bundle)
        file = bundle / "config.json"
        config = json.loads(file.read_text())
        config["process"] |= {"terminal": False, "args": args, "rlimits": []}
        config["root"] = {"path": str(self.root), "readonly": False}
        linux = config["linux"]
        linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] not in {"network", "cgroup"}]
        if self.lean:
            linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] in {"pid", "mount", "ipc", "uts"}]
            linux.pop("resources", None)
            kept = {"/proc", "/dev", "/sys"}
            config["mounts"] = [one for one in config["mounts"] if one["destination"] in kept]
        file.write_text(json.dumps(config))

    def run(self) -> float:
        return self.room.timed(*self.command("run", "--bundle", self.home / "bundle", f"{self.sleeping}-once"))

    def exec(self) -> float:
        return self.room.timed(*self.command("exec", self.sleeping, TRUE))


class Crun(Bundle):
    title = "crun, bundle"
    needs = ("crun",)
    program = "crun"


class CrunLean(Crun):
    title = "crun, lean bundle"
    lean = True


class CrunAsOurs(Crun):
    title = "crun, bundle as layerstore makes it"

    def write(self, bundle: Path, args: list[str]) -> None:
        """The config.json of a container that layerstore has started, with another root: seccomp and all."""
        config = layerstore.Config(
            data_root=self.home / "store", exec_root=self.home / "run", storage_driver="overlay2", storage_opts=()
        )
        with layerstore.open(config=config) as store:
            runtime = Runtime(store)
            image = store.import_tar(self.tar, "debian:1")
            for _ in range(2):  # the second is given the seccomp filter that the first has had made
                box = runtime.create(image, RunOptions(args=("sleep", "100000"), runtime="crun"))
                runtime.start(box)
                made = json.loads(runtime.folder(box).config.read_text())
                shutil.copytree(runtime.folder(box).files, bundle / "etc", dirs_exist_ok=True)
                runtime.remove(box, force=True)
        made["root"]["path"] = str(self.root)
        made["process"]["args"] = args
        for mount in made["mounts"]:
            if mount["destination"].startswith("/etc/"):
                mount["source"] = str(bundle / mount["destination"].lstrip("/"))
        made["linux"]["cgroupsPath"] = f"/{bundle.name}-{os.getpid()}"
        (bundle / "config.json").write_text(json.dumps(made))


class Runc(Bundle):
    title = "runc, bundle"
    needs = ("runc",)
    program = "runc"


class Client(Subject):
    """A command in docker's words."""

    container: ClassVar[tuple[str, ...]] = ("--network", "host")
    image: ClassVar[str] = "localhost/debian:1"

    @abstractmethod
    def command(self, *words: str | Path) -> list[str]:
        """The command line."""

    @abstractmethod
    def take(self, tar: Path) -> None:
        """Make the image of a tar."""

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        self.take(tar)
        self.timed("run", "-d", "--name", "sleeping", *self.container, self.image, "sleep", "100000")
        try:
            yield
        finally:
            self.timed("rm", "-f", "sleeping")

    def timed(self, *words: str | Path) -> float:
        return self.room.timed(*self.command(*words))

    def run(self) -> float:
        return self.timed("run", "--rm", *self.container, self.image, TRUE)

    def start(self) -> float:
        taken = self.timed("run", "-d", "--name", "other", *self.container, self.image, "sleep", "100000")
        self.timed("rm", "-f", "other")
        return taken

    def exec(self) -> float:
        return self.timed("exec", "sleeping", TRUE)


class Podman(Client):
    title = "podman, crun, overlay"
    needs = ("podman", "crun", "conmon")
    container = ("--network", "host", *LIMITS)
    runtime: ClassVar[str] = "crun"

    def command(self, *words: str | Path) -> list[str]:
        places = [f"--root={self.home}/root", f"--runroot={self.home}/run", "--storage-driver=overlay"]
        return ["podman", *places, "--cgroup-manager=cgroupfs", f"--runtime={self.runtime}", *map(str, words)]

    def take(self, tar: Path) -> None:
        self.timed("import", "-q", tar, self.image)


class Docker(Client):
    title = "docker, runc, overlay2"
    needs = ("docker", "dockerd", "runc")

    def command(self, *words: str | Path) -> list[str]:
        return ["docker", "--host", f"unix://{self.home}/socket", *map(str, words)]

    def take(self, tar: Path) -> None:
        self.timed("import", tar, self.image)

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        with dockerd(self.home), super().ready(tar):
            yield


class Ours(Client):
    title = "layerstore, crun, overlay2"
    needs = ("crun", "conmon")
    runtime: ClassVar[str] = "crun"

    def command(self, *words: str | Path) -> list[str]:
        program = Path(sys.executable).with_name("layerstore")
        return [str(program), "--config", f"{self.home}/daemon.json", *map(str, words)]

    def take(self, tar: Path) -> None:
        settings = {
            "data-root": f"{self.home}/store",
            "exec-root": f"{self.home}/run",
            "storage-driver": "overlay2",
            "default-runtime": self.runtime,
        }
        (self.home / "daemon.json").write_text(json.dumps(settings))
        self.timed("import", tar, self.image)


class OursByRunc(Ours):
    title = "layerstore, runc, overlay2"
    needs = ("runc", "conmon")
    runtime = "runc"


class Library(Subject):
    """In this process: container made, program run, container removed; nothing of it is a command's start."""

    runtime: ClassVar[str] = "crun"

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        config = layerstore.Config(
            data_root=self.home / "store", exec_root=self.home / "run", storage_driver="overlay2", storage_opts=()
        )
        with layerstore.open(config=config) as self.store:
            self.image = self.store.import_tar(tar, "debian:1")
            self.engine = Runtime(self.store)
            yield

    def run(self) -> float:
        start = time.perf_counter()
        options = RunOptions(args=(TRUE,), remove=True, runtime=self.runtime)
        if self.engine.run(self.engine.create(self.image, options)) != 0:
            sys.exit(f"{self.title} failed")
        return time.perf_counter() - start


class LibraryFull(Library):
    title = "layerstore in Python, crun"
    needs = ("crun",)


class LibraryByRunc(Library):
    title = "layerstore in Python, runc"
    needs = ("runc",)
    runtime = "runc"


class LibraryProcess(Library):
    title = "layerstore in Python, without a runtime"
    isolated: ClassVar[bool] = True

    def run(self) -> float:
        start = time.perf_counter()
        box = self.store.create_container(self.image)
        self.act(box)
        box.remove()
        return time.perf_counter() - start

    def act(self, box: layerstore.Container) -> None:
        if box.start([TRUE], isolated=self.isolated).wait() != 0:
            sys.exit(f"{self.title} failed")


class LibraryNone(LibraryProcess):
    title = "the same, only a root of its own"
    isolated = False


class LibraryAgain(LibraryProcess):
    title = "the same, in a container that is there"

    @contextmanager
    def ready(self, tar: Path) -> Iterator[None]:
        with super().ready(tar), self.store.create_container(self.image) as self.box:
            yield

    def run(self) -> float:
        start = time.perf_counter()
        self.act(self.box)
        return time.perf_counter() - start


SUBJECTS: tuple[type[Subject], ...] = (
    Plain,
    Unshare,
    CrunLean,
    Crun,
    CrunAsOurs,
    Runc,
    LibraryProcess,
    LibraryNone,
    LibraryAgain,
    LibraryFull,
    LibraryByRunc,
    Ours,
    OursByRunc,
    Podman,
    Docker,
)


def measure(subjects: list[Subject], rounds: int) -> list[Measured]:
    """Each subject in turn, then all again; the first round does not count."""
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 1):
        for subject in subjects:
            steps: dict[str, Callable[[], float | None]] = {
                RUN: subject.run,
                DETACHED: subject.start,
                EXEC: subject.exec,
            }
            for step, act in steps.items():
                taken = act()
                if number and taken is not None:
                    found.setdefault((subject.title, step), []).append(taken)
        print(f"round {number} of {rounds}", file=sys.stderr, flush=True)
    return [Measured(title, step, tuple(seconds)) for (title, step), seconds in found.items()]


def tables(measured: list[Measured]) -> str:
    """Milliseconds, least / median; and how many times the bare runtime's median a `run` takes."""
    found = {(one.subject, one.input): one for one in measured}
    base = found.get((Crun.title, RUN))
    rows = []
    for title in dict.fromkeys(one.subject for one in measured):
        cells = []
        for step in (RUN, DETACHED, EXEC):
            one = found.get((title, step))
            cells.append(f"{one.least * 1e3:.1f} / {one.median * 1e3:.1f}" if one else "")
        once = found[title, RUN]
        rows.append([title, *cells, f"{once.median / base.median:.2f}" if base else ""])
    return table(["ms, least / median", RUN, DETACHED, EXEC, f"{RUN} : {Crun.title}, medians"], rows)


def versions(kinds: list[type[Subject]]) -> str:
    """Of the programs that are measured."""
    tools = dict.fromkeys(tool for one in kinds for tool in one.needs if tool not in {"unshare", "docker"})
    return ", ".join(run(tool, "--version").splitlines()[0].strip() for tool in tools)


def main() -> None:
    """Measure and write the results file."""
    parser = usual_options("benchmarks.run", __doc__)
    parser.add_argument("--name", default="python", help="whose lowest layer is taken (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()

    tar = options.images.resolve() / f"{options.name}.layers" / "000.tar"
    kinds = chosen(SUBJECTS, options.only)

    facts: dict[str, Any] = machine() | {"programs": versions(kinds)}
    with cgroups_given_back(), filesystem(options.work, size=6 << 30) as place, ExitStack() as stack:
        plain = place / "root"
        plain.mkdir()
        run("tar", "-xf", tar, "-C", plain)
        warm([tar, plain])
        rooms = stack.enter_context(open_rooms(place, len(kinds)))
        subjects = []
        for kind, home in zip(kinds, rooms.homes, strict=True):
            room = rooms.room(bears_hybrid=issubclass(kind, Ours | Docker))
            subject = kind(home, plain, room)
            subjects.append(subject)
            stack.enter_context(subject.ready(tar))
        measured = measure(subjects, options.rounds)
    facts |= {"load average": f"{os.getloadavg()[2]:.1f} over the last 15 minutes"}
    write_results(
        options.results / f"{facts['date']}-run",
        title="A program in a new container",
        facts=facts,
        measured=measured,
        tables=tables(measured),
        remarks=[
            f"{options.rounds} rounds after one that does not count, interleaved: each subject in turn.",
            "By command line, its start included, but for the lines that say Python: there, in one process, a container"
            " is made, the program run, and the container removed.",
            "A bundle's root and config.json lie there, and nobody makes or removes a writable layer: the least that a"
            " container costs.",
            "All have the host's network.",
        ],
    )


if __name__ == "__main__":
    main()
