"""Pull and push with a registry on this machine: layerstore against skopeo, podman and docker.

    python -m benchmarks.registry --images FOLDER [--names python,manyfiles] [--rounds 3] [--only SUBJECT,...]
                                  [--parts peers,relay,cuts]

FOLDER holds, for each NAME, the layout `NAME.oci` (README.md in this folder). It is pushed to a docker-registry that
runs for as long as this does. In each turn a subject has an empty store on a fresh ext4: it pulls, pulls again, pushes
to another repository of that registry, then to a registry that is empty while the first one is away. A pull is timed
until its files are on disk: `sync -f` is part of the time of all but layerstore, which syncs by itself.
"""

from __future__ import annotations

import functools
import http.client
import os
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from attrs import asdict, define, field, frozen

import layerstore
from benchmarks import cuts
from benchmarks.bench import Measured, chosen, filesystem, machine, run, table, usual_options, warm, write_results
from benchmarks.clients import SUBJECTS, Layerstore, Registry, Subject, own_blob_cache
from benchmarks.load import versions
from benchmarks.metering import Cost, Ran, meter
from benchmarks.relay import Relay

NAMES = ("python", "manyfiles", "bigfile")
PULL, AGAIN, MOUNT, PUSH = "pull", "pull of what is there", "push to another repository", "push to an empty registry"
WORK = (PULL, AGAIN, MOUNT, PUSH)
ANEW = {"gzip": "what was loaded, as gzip", "zstd": "what was loaded, as zstd"}
"""The same push of an image that layerstore has never seen compressed. To peers that makes no difference."""


def head(host: str, name: str) -> float:
    """The seconds of what nobody can do without who asks what a name means: a connection, and one HEAD."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection(host)
    connection.request("HEAD", f"/v2/{name}/manifests/latest", headers={"Accept": "*/*"})
    connection.getresponse().read()
    taken = time.perf_counter() - start
    connection.close()
    return taken


@define
class Found:
    """What the turns found."""

    costs: dict[tuple[str, str, str], list[Cost]] = field(factory=dict)
    """(work, subject, image) → of each round."""
    sizes: dict[tuple[str, str], int] = field(factory=dict)
    """(subject, image) → bytes of the blobs that it pushed to an empty registry."""
    failures: list[str] = field(factory=list)
    there: dict[str, list[float]] = field(factory=dict)
    """Seconds of pulls of what is there in one process, and of the requests that they cannot do without."""


@frozen
class Bench:
    """All that the parts of this benchmark share."""

    images: Path
    place: Path
    folder: Path
    registry: Registry
    subjects: Sequence[Subject]
    names: Sequence[str]

    def turn(self, image: str, subject: Subject, number: int, found: Found) -> None:
        """Everything that one subject does with one image, from an empty store."""
        name = f"{self.registry.host}/bench/{image}:latest"
        warm([self.registry.storage])

        def count(work: str, act: Callable[[], Ran], *, syncs: bool = False) -> None:
            self.count((work, subject.title, image), act, number, found, syncs=syncs)

        count(PULL, lambda: subject.pull(name), syncs=not subject.syncs_itself)
        count(AGAIN, lambda: subject.pull(name), syncs=not subject.syncs_itself)
        if isinstance(subject, Layerstore) and number:
            self.pull_what_is_there(subject, image, name, found)
        target = f"bench/{subject.title.partition(' ')[0].strip(',')}-{image}-{number}"
        count(MOUNT, lambda: subject.push(name, f"{self.registry.host}/{target}:latest"))
        with self.empty_registry() as empty:
            with self.registry.away():
                count(PUSH, lambda: subject.push(name, f"{empty.host}/{target}:latest"))
            with suppress(KeyError):  # where the push has failed
                found.sizes[subject.title, image] = empty.size(target)
        subject.empty()
        if isinstance(subject, Layerstore) and number:
            self.push_what_was_loaded(subject, image, number, found)

    def count(
        self,
        key: tuple[str, str, str],
        act: Callable[[], Ran],
        number: int,
        found: Found,
        *,
        syncs: bool = False,
    ) -> None:
        """Do something on a filesystem that has nothing to write, and write down what it cost. `syncs`: until then."""
        run("sync", "-f", self.place)
        ran = act()
        start = time.perf_counter()
        if syncs:
            run("sync", "-f", self.place)
        rest = time.perf_counter() - start
        cost = ran.cost.plus(wall=rest if syncs else 0.0)
        work, title, image = key
        text = f"{cost.wall:8.3f} s, CPU {cost.cpu:7.2f} s, {cost.peak >> 20:4} MiB"
        text += "" if ran.is_done else f"  {ran.said}"
        print(f"{number}  {image:10} {title:32} {work:28} {text}", file=sys.stderr, flush=True)
        if not ran.is_done:
            found.failures.append(f"{title}, {work}, {image}: {ran.said}")
        elif number:
            found.costs.setdefault(key, []).append(cost)

    @contextmanager
    def empty_registry(self) -> Iterator[Registry]:
        """One that has nothing, for one push."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name, Registry(Path(name)) as registry:
            yield registry

    def push_what_was_loaded(self, subject: Layerstore, image: str, number: int, found: Found) -> None:
        """Once in each compression, from an empty store."""
        for compression, title in ANEW.items():
            with self.empty_registry() as empty:
                name = f"{empty.host}/bench/{image}:latest"
                subject.load(self.images / f"{image}.docker.tar", name)
                key = (PUSH, f"{subject.title}, {title}", image)
                self.count(key, functools.partial(subject.push_as, compression, name), number, found)
                found.sizes[key[1], image] = empty.size(f"bench/{image}")
            subject.empty()

    def pull_what_is_there(self, subject: Layerstore, image: str, name: str, found: Found) -> None:
        """In this process, where all modules are loaded already; a connection each."""
        with layerstore.open(subject.root) as store:
            store.pull(name)
            for _ in range(3):
                ran = meter(*subject.command, "images", "-q")
                found.there.setdefault("for comparison: the command images", []).append(ran.cost.wall)
            for _ in range(20):
                start = time.perf_counter()
                store.pull(name)
                found.there.setdefault("in process", []).append(time.perf_counter() - start)
                found.there.setdefault("a connection and a HEAD", []).append(head(self.registry.host, f"bench/{image}"))
            with Relay(self.registry.host, delay=0.1) as relay:
                far = f"{relay.host}/bench/{image}:latest"
                store.tag(name, far)
                for _ in range(3):
                    start = time.perf_counter()
                    store.pull(far)
                    found.there.setdefault("in process, 100 ms away", []).append(time.perf_counter() - start)
                    found.there.setdefault("a connection and a HEAD, 100 ms away", []).append(
                        head(relay.host, f"bench/{image}")
                    )

    def over_a_bad_line(self, image: str, resets: float) -> list[Line]:
        """Every subject pulls once over a line of 100 ms that resets."""
        found = []
        for subject in self.subjects:
            warm([self.registry.storage])
            with Relay(self.registry.host, delay=0.1, resets=resets, seed=1) as relay:
                ran = subject.pull(f"{relay.host}/bench/{image}:latest")
                line = Line(
                    subject.title, image, resets, ran.cost.wall, ran.is_done, ran.said, relay.broken, relay.carried
                )
            found.append(line)
            print(line, file=sys.stderr, flush=True)
            subject.empty()
        return found


@frozen
class Line:
    """One pull over a bad line."""

    subject: str
    image: str
    resets: float
    seconds: float
    is_done: bool
    said: str
    broken: int
    carried: int


# --- the report ---


def amount(seconds: float) -> str:
    return f"{seconds:.2f}" if seconds < 100 else f"{seconds:.0f}"


def costs_table(work: str, found: Found, titles: Sequence[str], images: Sequence[str]) -> str:
    """One kind of work: what each subject took, and layerstore's share of what the best peer did."""
    ours = [title for title in titles if title.startswith(Layerstore.title)]
    peers = [title for title in titles if title not in ours]
    rows = [[title, *(_cell(found.costs.get((work, title, image))) for image in images)] for title in titles]
    rows += [
        [
            f"**{title} : best peer**",
            *(
                _share(
                    found.costs.get((work, title, image)),
                    [costs for peer in peers if (costs := found.costs.get((work, peer, image)))],
                )
                for image in images
            ),
        ]
        for title in ours
    ]
    return table([f"{work}: least / median, CPU, memory", *images], rows)


def _cell(costs: Sequence[Cost] | None) -> str:
    if not costs:
        return "failed"
    cpu, peak = amount(_cpu(costs)), int(_peak(costs)) >> 20
    return f"{amount(_least(costs))} / {amount(_median(costs))} s, CPU {cpu} s, {peak} MiB"


def _share(ours: Sequence[Cost] | None, peers: Sequence[Sequence[Cost]]) -> str:
    if not ours or not peers:
        return ""
    least, median, cpu, peak = (of(ours) / min(map(of, peers)) for of in (_least, _median, _cpu, _peak))
    return f"**{least:.2f}** / **{median:.2f}**, CPU {cpu:.2f}, memory {peak:.2f}"


def _least(costs: Sequence[Cost]) -> float:
    return min(cost.wall for cost in costs)


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.wall for cost in costs)


def _cpu(costs: Sequence[Cost]) -> float:
    return min(cost.cpu for cost in costs)


def _peak(costs: Sequence[Cost]) -> float:
    return max(cost.peak for cost in costs)


def sizes_table(found: Found, titles: Sequence[str], images: Sequence[str]) -> str:
    rows = [
        [
            title,
            *(f"{found.sizes[title, image] / 1e6:.1f}" if (title, image) in found.sizes else "" for image in images),
        ]
        for title in titles
    ]
    return table(["MB in the registry that was empty", *images], rows)


def there_table(found: Found) -> str:
    rows = [
        [title, f"{min(seconds) * 1000:.1f} / {statistics.median(seconds) * 1000:.1f}"]
        for title, seconds in found.there.items()
    ]
    return table(["pull of what is there, ms, least / median", "layerstore"], rows)


def lines_table(lines: Sequence[Line], sizes: dict[str, int]) -> str:
    rows = []
    for line in lines:
        said = line.said.rpartition(": ")[2].strip('"')
        end = f"{line.seconds:.1f} s" if line.is_done else f"fails after {line.seconds:.1f} s: {said}"
        rows.append(
            [
                line.subject,
                line.image,
                f"{line.resets:.1%}",
                end,
                str(line.broken),
                f"{line.carried / sizes[line.image]:.2f}",
            ]
        )
    head = ["100 ms away", "image", "resets", "ends", "connections reset", "bytes that came : bytes of the image"]
    return table(head, rows)


def cuts_table(continued: Sequence[cuts.Continued]) -> str:
    rows = [
        [one.kind, str(one.cuts), f"**{one.ratio:.3f}**", f"{one.lost / 1e6:.2f} MB", f"{one.seconds:.1f} s"]
        for one in continued
    ]
    return table(
        ["layerstore, cut", "times", "bytes that came : bytes of the image", "came again for each", "took"], rows
    )


def remarks(options: Namespace, names: Sequence[str]) -> list[str]:
    """How the figures came about."""
    return [
        f"{options.rounds} rounds after one of {names[0]} that does not count, interleaved: each subject on each image"
        " in turn, from an empty store, with an empty memory of blobs (skopeo, podman).",
        "All by command line, the start of the program included. A pull is timed until everything is on disk: `sync -f`"
        " is part of the time of all but layerstore, which syncs by itself.",
        "CPU is that of the command and of all that it started, with docker its daemon's too; not that of the registry,"
        " which runs on the same cores. Memory is that of the largest process, with docker its daemon.",
        f"{MOUNT[0].upper()}{MOUNT[1:]}: of the registry that it was pulled from.",
        f"{PUSH[0].upper()}{PUSH[1:]}: an image as it was pulled, while the registry that it came from is away; and for"
        " layerstore one that was loaded from a docker-archive with plain layers, where that is said.",
        "The line that is 100 ms away: half of that in each direction, and a handshake that takes as long as TCP's; for"
        " each 64 KiB that the registry sends, the connection is reset with the probability that is given.",
        f"Cut: {names[-1]}, at {options.cuts} random bytes of it, over a line of {cuts.RATE >> 20} MiB/s. What came is"
        " counted when the client's socket has it, heads of replies included.",
    ]


def main() -> None:
    """Measure and write the results file."""
    parser = usual_options("benchmarks.registry", __doc__)
    parser.add_argument("--names", default=",".join(NAMES), help="which of them (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default="peers,relay,cuts", help="which parts (default: %(default)s)")
    parser.add_argument("--resets", default="0,0.001,0.01", help="shares of pieces of 64 KiB (default: %(default)s)")
    parser.add_argument("--cuts", type=int, default=20)
    parser.add_argument("--size", type=int, default=24, help="of a loop image, GiB")
    options = parser.parse_args()
    names, parts = options.names.split(","), options.parts.split(",")
    kinds = chosen(SUBJECTS, options.only)
    titles = [one.title for one in kinds]
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    facts = machine() | {"peers": ", ".join(f"{tool} {version}" for tool, version in versions().items())}

    found, lines, continued, sizes = Found(), list[Line](), list[cuts.Continued](), dict[str, int]()
    with (
        tempfile.TemporaryDirectory(prefix="layerstore-registry-", dir=options.work) as name,
        Registry(Path(name, "registry")) as registry,
    ):
        for image in names:
            target = f"docker://{registry.host}/bench/{image}:latest"
            layout = f"oci:{options.images.resolve() / image}.oci:latest"
            run("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", layout, target)
            sizes[image] = registry.size(f"bench/{image}")
        if "cuts" in parts:
            image = names[-1]
            warm([registry.storage])
            for way in cuts.KINDS:
                one = cuts.cut(
                    way,
                    registry.host,
                    f"bench/{image}:latest",
                    sizes[image],
                    cuts=options.cuts,
                    seed=1,
                    work=options.work,
                )
                print(one, one.ratio, file=sys.stderr, flush=True)
                continued.append(one)
        with filesystem(options.work, size=options.size << 30) as place, own_blob_cache(place), ExitStack() as daemons:
            subjects = []
            for number, kind in enumerate(kinds):
                home = place / str(number)
                home.mkdir()
                subject = kind(home)
                daemons.enter_context(subject.running())
                subjects.append(subject)
            bench = Bench(options.images, place, Path(name), registry, subjects, names)
            if "relay" in parts:
                for share in map(float, options.resets.split(",")):
                    lines += bench.over_a_bad_line(names[0], share)
            if "peers" in parts:
                with suppress(KeyboardInterrupt):  # then what was measured by then is reported
                    for number in range(options.rounds + 1):
                        for image in names[:1] if number == 0 else names:  # the first warms programs and memory up
                            for subject in subjects:
                                bench.turn(image, subject, number, found)

    tables = []
    if found.costs:
        for work in WORK:
            pushed = [f"{Layerstore.title}, {title}" for title in ANEW.values()] if work == PUSH else []
            tables.append(costs_table(work, found, [*titles[:1], *pushed, *titles[1:]], names))
        tables.append(sizes_table(found, list(dict.fromkeys(title for title, _ in found.sizes)), names))
        tables.append(there_table(found))
    if lines:
        tables.append(lines_table(lines, sizes))
    if continued:
        tables.append(cuts_table(continued))
    write_results(
        options.results / f"{facts['date']}-registry",
        title="Pull and push, with docker-registry on the same machine",
        facts=facts,
        measured=[
            Measured(f"{title}, {work}", image, tuple(cost.wall for cost in costs))
            for (work, title, image), costs in found.costs.items()
        ],
        tables="\n\n".join(tables),
        remarks=remarks(options, names),
        more={
            "costs": [
                {"work": work, "subject": title, "input": image, "rounds": [asdict(cost) for cost in costs]}
                for (work, title, image), costs in found.costs.items()
            ],
            "pushed": [
                {"subject": title, "input": image, "bytes": size} for (title, image), size in found.sizes.items()
            ],
            "there": found.there,
            "failures": found.failures,
            "bad lines": [asdict(line) for line in lines],
            "cuts": [asdict(one) for one in continued],
        },
    )


if __name__ == "__main__":
    main()
