"""Every kind of work, beside docker, podman, buildah, skopeo, containerd and umoci, on the same images, in one run.

    python -m benchmarks.peers [--images FOLDER --names python,manyfiles] [--rounds 5] [--minutes 60]
                               [--rows "load;pull;run"] [--only "podman;docker"]

FOLDER holds NAME.docker.tar (README.md in this folder). Without --images one is made: busybox, and --made files in four
layers. The rows are listed by --rows help. A peer that is not installed is left out, and the page says so.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace, RawTextHelpFormatter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.bench import Measured, chosen, filesystem, machine, run, write_results
from benchmarks.clients import Registry, own_blob_cache
from benchmarks.peers import page
from benchmarks.peers.containerd import Containerd
from benchmarks.peers.images import Image, given, made
from benchmarks.peers.library import Library
from benchmarks.peers.measuring import Bench, Found
from benchmarks.peers.programs import PEERS, Layerstore, Program
from benchmarks.peers.rows import COPIED, DISK, ROWS, RUNS, Row, write_context
from benchmarks.rooms import cgroups_given_back

PROGRAMS: Final[tuple[type[Program], ...]] = (Layerstore, Library, *PEERS, Containerd)
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")


def options() -> ArgumentParser:
    """What can be asked for."""
    parser = ArgumentParser(prog="benchmarks.peers", description=__doc__, formatter_class=RawTextHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images; without it one is made")
    parser.add_argument("--names", default="python", help="which of them (default: %(default)s)")
    parser.add_argument("--made", type=int, default=8000, help="files of the image that is made (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="that count (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60, help="no round begins that would end later (default: 60)")
    parser.add_argument("--rows", default="", help="kinds of work, or their beginnings, with semicolons between")
    parser.add_argument(
        "--only", default="", help="peers, or their beginnings, with semicolons between; layerstore: it alone"
    )
    parser.add_argument("--cache", choices=["cold", "warm"], default="cold", help="whether caches are emptied")
    parser.add_argument("--changed", type=int, default=500, help="files that are changed (default: %(default)s)")
    parser.add_argument("--runtime", default="runc", help="OCI runtime of all that take one (default: %(default)s)")
    parser.add_argument("--size", type=int, default=24, help="of the loop image, GiB (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where it is made (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent.parent / "results")
    return parser


def rows_of(wanted: str) -> list[Row]:
    """The kinds of work that begin so; all where nothing is said."""
    beginnings = [part.strip() for part in wanted.split(";") if part.strip()]
    found = [row for row in ROWS if not beginnings or any(row.key.startswith(one) for one in beginnings)]
    if not found:
        sys.exit("No such row. There are: " + "; ".join(row.key for row in ROWS))
    return found


def programs_of(only: str, runtime: str) -> tuple[list[type[Program]], dict[str, str]]:
    """Who takes part, and why the others do not."""
    wanted = f"{Layerstore.title};{only}" if only else ""
    there = chosen(PROGRAMS, wanted)
    absent = {}
    for one in PROGRAMS:
        missing = [tool for tool in one.needs if shutil.which(tool) is None]
        if missing:
            absent[one.title] = f"not installed: {', '.join(missing)}"
        elif one not in there:
            absent[one.title] = "not asked for"
    if shutil.which(runtime) is None:
        absent[runtime] = "the OCI runtime is not installed, so containers are not run"
    return there, absent


def versions(programs: Sequence[type[Program]], runtime: str) -> str:
    """Of what takes part."""
    ours = str(Path(sys.executable).with_name("layerstore"))
    tools = dict.fromkeys([ours, *(tool for one in programs for tool in one.needs), runtime, "docker-registry"])
    found = []
    for tool in tools:
        if shutil.which(tool):
            done = subprocess.run([tool, "--version"], capture_output=True, text=True, check=False)
            if match := _VERSION.search(done.stdout + done.stderr):  # containerd's shim does not say
                found.append(f"{Path(tool).name} {match[0]}")
    return ", ".join(found)


def remarks(asked: Namespace, rounds: int) -> list[str]:
    """How the figures came about."""
    caches = (
        "the filesystem was synced, the kernel's caches were emptied, and then the input, the program's own files and"
        " one listing of images were read"
        if asked.cache == "cold"
        else "the filesystem was synced, and the input, the program's own files and one listing of images were read"
    )
    return [
        f"{rounds} rounds after one that does not count. In each round every kind of work is done by each program in"
        " turn, and who begins is another one in each round.",
        f"Before each measurement {caches}: the same for everybody.",
        "Until it returns: of the command, its start included. Until on disk: with a `sync -f` of the filesystem after"
        " it, for everybody, layerstore too.",
        "Disk used: blocks of the whole filesystem, synced before and after.",
        f"All storages are on one ext4. Everybody's containers are run by {asked.runtime}, with the host's network.",
        f"{asked.changed} files are changed where changes are asked for. A build copies {COPIED} files and runs"
        f" {RUNS} programs; docker's is the classic builder.",
        "A dash: the program has no such command. skopeo and buildah make no containers that run, umoci has no store,"
        " ctr neither builds nor commits, docker mounts nothing for the host.",
        f"{Library.title}: the same work by the library, in a process that is there; it is compared with nobody.",
        "Medians are compared. Rounds overlap: a round of the peer was worse than one of layerstore's, so chance may"
        " have parted them.",
    ]


def measure(asked: Namespace, kinds: Sequence[type[Program]], rows: Sequence[Row]) -> tuple[Found, list[Image]]:
    """All of it, on a fresh filesystem."""
    with cgroups_given_back(), ExitStack() as stack:
        # Hex digits: buildah takes a path for a name, in which two marks beside each other are an error.
        folder = asked.work / f"layerstore-peers-{os.urandom(4).hex()}"
        stack.callback(shutil.rmtree, folder)
        folder.mkdir()
        inputs = folder / "inputs"
        inputs.mkdir()
        if asked.images:
            images = [given(asked.images.resolve(), one, inputs) for one in asked.names.split(",")]
        else:
            images = [made(asked.made, inputs)]
        contexts = {}
        for image in images:
            contexts[image.title] = inputs / f"{image.title}.context"
            write_context(contexts[image.title], image.name)
        registry = _registry(stack, folder, images) if any(row.registry for row in rows) else None
        place = stack.enter_context(filesystem(asked.work, size=asked.size << 30))
        stack.enter_context(own_blob_cache(place))
        programs = []
        for number, kind in enumerate(kinds):
            home = place / str(number)
            (home / "run").mkdir(parents=True)
            run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", home / "run")
            program = kind(home, asked.runtime)
            stack.enter_context(program.running())
            programs.append(program)
        bench = Bench(
            place,
            folder,
            programs,
            rows,
            images,
            contexts,
            registry,
            is_cold=asked.cache == "cold",
            files=asked.changed,
        )
        return bench.measure(asked.rounds, asked.minutes), images


def _registry(stack: ExitStack, folder: Path, images: Sequence[Image]) -> Registry | None:
    """One that has the images; None where there are no programs for it."""
    if not shutil.which("docker-registry") or any(image.layout is None for image in images):
        return None
    registry = stack.enter_context(Registry(folder / "registry"))
    for image in images:
        target = f"docker://{registry.host}/bench/{image.title}:1"
        run("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", f"oci:{image.layout}:1", target)
    return registry


def main() -> None:
    """Measure and write the page."""
    asked = options().parse_args()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # daemons and mounts are ended, too
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    rows = rows_of(asked.rows)
    kinds, absent = programs_of(asked.only, asked.runtime)
    if any(row.registry for row in rows) and not (shutil.which("docker-registry") and shutil.which("skopeo")):
        absent["pull, push"] = "docker-registry or skopeo is not installed"
    facts = machine() | {"versions": versions(kinds, asked.runtime)}
    before = os.getloadavg()[0]
    found, images = measure(asked, kinds, rows)
    facts |= {"load average": f"{before:.1f} before it began, {os.getloadavg()[2]:.1f} over its last 15 minutes"}
    report = page.Report(
        facts,
        found,
        rows,
        [image.title for image in images],
        [one.title for one in kinds],
        absent,
        remarks(asked, found.rounds),
    )
    stem = asked.results / f"{facts['date']}-peers"
    write_results(
        stem,
        title=page.HEADING,
        facts=facts,
        measured=[
            Measured(title, f"{image}: {work}, {figure}", tuple(amounts))
            for (work, figure, image, title), amounts in found.figures.items()
            if figure != DISK
        ],
        tables=page.markdown(report),
        top=page.top(report),
        remarks=report.remarks,
        more={
            "used": [
                {"work": work, "input": image, "subject": title, "bytes": amounts}
                for (work, figure, image, title), amounts in found.figures.items()
                if figure == DISK
            ],
            "behind": page.summary(report),
            "absent": absent,
            "failures": [
                {"work": work, "image": image, "subject": title, "said": said}
                for (work, image, title), said in found.failures.items()
            ],
        },
    )
    stem.with_suffix(".html").write_text(page.page(report))
    print(f"written: {stem.with_suffix('.html')}", file=sys.stderr)


if __name__ == "__main__":
    main()
