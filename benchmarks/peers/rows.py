"""What is measured: each kind of work, what it needs before it, and what is undone after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal

from attrs import frozen

from benchmarks.peers.images import Image
from benchmarks.peers.programs import Commands, Program

Stand = Literal["nothing", "an image", "a pulled image"]
"""What a store has: the least that a kind of work needs, or what it leaves."""

RETURNS, DURABLE, DISK = "until it returns", "until on disk", "disk used"
START: Final = "list"
"""The kind of work that tells what the start of a command costs."""
FIGURES: Final = (RETURNS, DURABLE, DISK)


@frozen
class Case:
    """What the commands of one turn are about."""

    image: Image
    context: Path
    """Of builds: a folder with a Dockerfile."""
    file: Path
    """Where to save."""
    pulled: str
    """What the image is called in the registry."""
    target: str
    """What it is to be called in an empty registry; empty where none is needed."""
    files: int
    """How many files are changed in a container."""


def _nothing(program: Program, case: Case) -> Commands:
    return []


@frozen
class Row:
    """One kind of work. `act` is timed; None: there is no such thing."""

    key: str
    about: str
    act: Callable[[Program, Case], Commands | None]
    needs: Stand = "an image"
    leaves: Stand | None = None
    """None: what there was."""
    before: Callable[[Program, Case], Commands] = _nothing
    after: Callable[[Program, Case], Commands] = _nothing
    writes: bool = True
    """Whether it is also timed until everything is on disk."""
    weighs: bool = False
    """Whether it is told how many bytes of the filesystem it takes."""
    registry: Literal["", "full", "empty"] = ""
    input: Callable[[Case], list[Path]] = lambda case: []
    """What is read, and lies in memory before."""


def _built(program: Program, case: Case, *, cached: bool) -> Commands | None:
    return program.build(case.context, cached=cached)


ROWS: Final = (
    Row(
        "load",
        "an image from a docker-archive with plain layers into an empty store",
        lambda program, case: program.load(case.image),
        needs="nothing",
        leaves="an image",
        weighs=True,
        input=lambda case: [case.image.archive],
    ),
    Row(
        "remove",
        "the image that was loaded, the only one",
        lambda program, case: program.remove(case.image),
        leaves="nothing",
    ),
    Row(
        "load, OCI",
        "the image from an OCI layout with gzip layers into an empty store; by umoci, which has none, into a folder",
        lambda program, case: program.load_layout(case.image),
        needs="nothing",
        leaves="nothing",
        weighs=True,
        input=lambda case: [path for path in (case.image.layout, case.image.packed) if path],
    ),
    Row(
        "pull",
        "the image, gzip layers, from a docker-registry on this machine into an empty store",
        lambda program, case: program.pull(case.image, case.pulled),
        needs="nothing",
        leaves="a pulled image",
        after=lambda program, case: program.named(case.image, case.pulled),
        weighs=True,
        registry="full",
    ),
    Row(
        "push",
        "the pulled image to a docker-registry that is empty",
        lambda program, case: program.push(case.image, case.target),
        needs="a pulled image",
        before=lambda program, case: program.targeted(case.image, case.target),
        after=lambda program, case: program.untargeted(case.target),
        writes=False,
        registry="empty",
    ),
    Row(
        "save",
        "the image to a docker-archive on the same disk",
        lambda program, case: program.save(case.image, case.file),
    ),
    Row(
        START,
        "the list of images, nothing more; skopeo and umoci, which have none, say their version",
        lambda program, case: program.look(),
        writes=False,
    ),
    Row(
        "create",
        "a container, not started",
        lambda program, case: program.create(case.image),
        after=lambda program, case: program.removed(),
    ),
    Row(
        "create and mount",
        "a container whose tree is mounted for the host",
        lambda program, case: program.mount(case.image),
        after=lambda program, case: program.unmounted(),
    ),
    Row(
        "run",
        "`true` in a new container, until that is removed",
        lambda program, case: program.run(case.image),
        writes=False,
    ),
    Row(
        "changes",
        "what a container with some changed files has changed (`diff`)",
        lambda program, case: program.changes(),
        before=lambda program, case: program.changed(case.image, case.files),
        after=lambda program, case: program.removed(),
        writes=False,
    ),
    Row(
        "commit",
        "an image of that container",
        lambda program, case: program.commit(case.image),
        before=lambda program, case: program.changed(case.image, case.files),
        after=lambda program, case: [*program.removed(), *program.uncommitted()],
    ),
    Row(
        "build, uncached",
        "FROM the image, a COPY of 2,000 files, ten RUN, a COPY of one file; nothing is taken from a cache",
        lambda program, case: _built(program, case, cached=False),
        after=lambda program, case: program.unbuilt(),
        input=lambda case: [case.context],
    ),
    Row(
        "build, cached",
        "the same once more, and nothing has changed",
        lambda program, case: _built(program, case, cached=True),
        before=lambda program, case: _built(program, case, cached=True) or [],
        after=lambda program, case: program.unbuilt(),
        input=lambda case: [case.context],
    ),
)

COPIED, RUNS = 2000, 10


def write_context(folder: Path, name: str) -> None:
    """The folder of the build: its Dockerfile begins with the image of that name."""
    for number in range(COPIED):
        below = folder / "tree" / f"{number // 100:02}"
        below.mkdir(parents=True, exist_ok=True)
        (below / f"{number}").write_text(f"{number}\n" * 50)
    (folder / "last").write_text("last\n")
    steps = [f"FROM {name}", "COPY tree /tree", *(f"RUN echo {one} > /{one}" for one in range(RUNS)), "COPY last /"]
    (folder / "Dockerfile").write_text("\n".join(steps) + "\n")
