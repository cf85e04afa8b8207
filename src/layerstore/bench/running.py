"""One run, from an empty folder to results: who can take part, the images, the rounds, and everything put back.

In each round every workload is given to all, one after another in an order drawn for this turn, so that what drifts
(the disk's age, the machine's load) touches all alike. The first round warms everything up and does not count.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from attrs import Factory, field

from layerstore import plugins
from layerstore.bench import images, machine
from layerstore.bench.place import Place, can_drop_caches, claimed, default_folder, require_room
from layerstore.bench.results import Failure, Figure, Refused, Results
from layerstore.bench.sampling import sampled
from layerstore.bench.subjects import (
    Bare,
    Contestant,
    Driven,
    Probed,
    Unavailable,
    Wanted,
    clean_stores,
    parse_wanted,
    probed,
)
from layerstore.bench.workloads import COLD, WARM, WORKLOADS, Inputs, Turn, Workload
from layerstore.errors import FULL, ConfigError, DriverNotSupported, LayerstoreError
from layerstore.values import define, frozen

__all__ = ["DEPTHS", "QUICK", "Progress", "Settings", "measure"]

DEPTHS: Final = (1, 20, 100, 500)
CACHES: Final = (WARM, COLD)

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps are done, and how many there are."""


@frozen
class Settings:
    """What a user may choose. `drivers`: None for all that are installed; `image`: None for the made one."""

    drivers: str | None = None
    options: tuple[str, ...] = ()
    image: Path | None = None
    scale: float = 1.0
    rounds: int = 5
    depths: tuple[int, ...] = DEPTHS
    only: tuple[str, ...] = ()
    caches: tuple[str, ...] = CACHES
    seed: int = 1

    def workloads(self) -> list[Workload]:
        """Those that are wanted, in their order. Raises `ConfigError`."""
        known = [workload.name for workload in WORKLOADS]
        for name in self.only:
            if name not in known:
                raise ConfigError(f"there is no workload {name!r}", remedy=f"There are: {', '.join(known)}.")
        return [workload for workload in WORKLOADS if not self.only or workload.name in self.only]


QUICK: Final[Mapping[str, Any]] = {"scale": 0.1, "rounds": 3, "depths": (1, 20, 100), "caches": (WARM,)}
"""What `--quick` sets."""


@define
class _Notebook:
    """What was noted of one subject at one variant."""

    count: int
    seconds: list[float] = Factory(list)
    space: list[int] = Factory(list)


@define
class _Run:
    """A run on its way."""

    settings: Settings
    place: Place
    progress: Progress
    contestants: list[Contestant] = Factory(list)
    notes: dict[tuple[str, str, str, str], _Notebook] = Factory(dict)
    failures: dict[tuple[str, str, str, str], str] = Factory(dict)
    order: list[tuple[int, str, str, tuple[str, ...]]] = Factory(list)
    steps: int = 0
    done: int = 0
    chance: random.Random = field(factory=random.Random)

    def told(self, what: str, *, step: bool = True) -> None:
        """Tell that something begins."""
        self.progress(what, self.done, self.steps)
        if step:
            self.done += 1


def measure(folder: Path | None, data_root: Path, settings: Settings, progress: Progress) -> Results:
    """Measure, and leave nothing behind. `folder`: where; None for a new one beside `data_root`."""
    workloads = settings.workloads()
    started, begun = time.strftime("%Y-%m-%dT%H:%M:%S%z"), time.monotonic()
    wanted = _wanted(settings)
    with claimed(folder or default_folder(data_root), clean_stores) as place, ExitStack() as opened:
        able, refused = probed(wanted, place.work)
        if not able:
            raise _nobody(refused)
        run = _Run(settings, place, progress, chance=random.Random(settings.seed))
        caches, notes = _caches(settings, place)
        filesystem = machine.filesystem(place.work)
        inputs = _prepared(run, able, workloads, opened)
        for number in range(settings.rounds + 1):
            for workload in workloads:
                for cache in workload.caches:
                    if cache in caches:
                        _round(run, inputs, number, workload, cache)
        return Results(
            started=started,
            seconds=round(time.monotonic() - begun, 1),
            machine=machine.facts(),
            filesystem=filesystem,
            settings=_told_settings(settings, caches, workloads, inputs),
            subjects=tuple(contestant.describe() for contestant in run.contestants),
            refused=tuple(refused),
            figures=tuple(_figures(run, workloads)),
            failures=tuple(Failure(*place, reason) for place, reason in run.failures.items()),
            notes=tuple(notes),
            order=tuple(run.order),
        )


def _wanted(settings: Settings) -> list[Wanted]:
    if settings.drivers is not None:
        return parse_wanted(settings.drivers, settings.options)
    installed = plugins.names()
    known = [name for name in plugins.PREFERRED if name in installed]
    return parse_wanted(",".join([*known, *(n for n in installed if n not in known)]) or "overlay2", settings.options)


def _nobody(refused: Sequence[Refused]) -> DriverNotSupported:
    reasons = "; ".join(f"{one.name}: {' '.join(one.reason.split())}" for one in refused)
    return DriverNotSupported(
        f"none of the drivers can work there: {reasons}",
        remedy=" ".join(dict.fromkeys(one.remedy for one in refused if one.remedy)) or "Name a folder on another disk.",
    )


def _caches(settings: Settings, place: Place) -> tuple[tuple[str, ...], list[str]]:
    """Which states of the caches can be had, and what to tell of that."""
    notes = []
    if place.swept:
        notes.append("What a killed run had left in the folder was removed first.")
    if COLD in settings.caches and not can_drop_caches():
        if settings.caches == (COLD,):
            raise ConfigError(
                "the kernel's caches cannot be emptied here, so nothing can be measured cold",
                remedy="Run as root, on the machine itself and not in a container.",
            )
        notes.append("The kernel's caches cannot be emptied here (/proc/sys/vm/drop_caches): all figures are warm.")
        return (WARM,), notes
    return settings.caches, notes


# ---- before the rounds


def _prepared(run: _Run, able: Sequence[Probed], workloads: Sequence[Workload], opened: ExitStack) -> Inputs:
    """The images made and loaded, by everybody; what to work on chosen."""
    settings, work = run.settings, run.place.work
    shape = images.Shape(scale=settings.scale, seed=settings.seed, depths=settings.depths)
    wanted = _images(workloads, settings.depths)
    turns = sum(len(set(workload.caches) & set(settings.caches)) for workload in workloads)
    run.steps = len(wanted) * (len(able) + 2) + turns * (settings.rounds + 1) * (len(able) + 1)
    require_room(work, _first_guess(settings, shape, able), "this run")
    for name in ("inputs", "out"):
        (work / name).mkdir()
    run.told("Opening the stores", step=False)
    driven = []
    for number, one in enumerate(able):
        # Closed in reverse at the end, whatever happens.
        contestant = Driven(one.wanted, work / f"store-{number}")
        opened.callback(contestant.close)
        driven.append(contestant)
    bare = Bare(work / "bare")
    inputs: dict[str, Any] = {"chmod": (), "modify": (), "delete": (), "folder": ""}
    for image in wanted:
        run.told(f"Making the image {image}")
        archive = work / "inputs" / f"{image}.tar"
        if image == "main" and settings.image is not None:
            driven[0].make_plain(settings.image, archive)
        else:
            images.make_archive(archive, image, shape)
        if image == "main":
            sizes = [size for _, size in images.members(archive)]
            require_room(work, _needed(sizes, shape, able, wanted), "this run")
        for contestant in driven:
            run.told(f"Loading the image {image} with {contestant.name}")
            contestant.add(image, archive)
        run.told(f"Copying the image {image} by hand")
        for contestant in driven:
            if image not in contestant.lacks:
                with contestant.mounted(image) as root:
                    bare.copy_in(image, root)
                    if image == "main":
                        inputs = sampled(root, settings.seed)
                break
        else:
            bare.lacks[image] = "no driver could take this image"
        if image != "main":
            archive.unlink()
    run.contestants = [bare, *driven]
    return Inputs(archive=work / "inputs" / "main.tar", out=work / "out", depths=settings.depths, **inputs)


def _images(workloads: Sequence[Workload], depths: Sequence[int]) -> list[str]:
    """The images that are needed, each once."""
    found: dict[str, None] = {}
    for workload in workloads:
        for image in workload.images:
            for one in [f"deep-{depth}" for depth in depths] if image == "deep" else [image]:
                found[one] = None
    return list(found)


def _first_guess(settings: Settings, shape: images.Shape, able: Sequence[Probed]) -> int:
    """What is needed, before the layers' sizes are known."""
    if settings.image is None:
        guess = [round(shape.files * 13_000 * share) for share in (0.5, 0.25, 0.15, 0.1)]
    elif settings.image.is_file():
        guess = [settings.image.stat().st_size]
    else:
        guess = [sum(file.stat().st_size for file in settings.image.rglob("*") if file.is_file())]
    return _needed(guess, shape, able, ["main", "big"])


def _needed(layers: Sequence[int], shape: images.Shape, able: Sequence[Probed], wanted: Sequence[str]) -> int:
    """About how many bytes are in use at the worst moment."""
    whole = sum(layers)
    cumulative = sum(sum(layers[: number + 1]) for number in range(len(layers)))
    # The archive, what is saved, and by hand the tree, a copy of it and what is loaded.
    total = 5 * whole if "main" in wanted else 0
    large = shape.large if "big" in wanted else 0
    total += 3 * large
    small = 16 * shape.small_image * 8192 if "small" in wanted else 0
    total += small
    for one in able:
        if "main" in wanted:
            total += 2 * cumulative + whole if one.copies else 3 * whole
        total += 3 * large + small
        deep = [int(image.removeprefix("deep-")) for image in wanted if image.startswith("deep-")]
        total += max(deep, default=0) * 110 * 4096 if one.copies else 0
    return total + total // 5 + (100 << 20)


# ---- the rounds


def _round(run: _Run, inputs: Inputs, number: int, workload: Workload, cache: str) -> None:
    """Everybody's turn at one workload, in an order drawn for it."""
    turns = run.contestants.copy()
    run.chance.shuffle(turns)
    run.order.append((number, workload.name, cache, tuple(contestant.name for contestant in turns)))
    which = f"round {number} of {run.settings.rounds}" if number else "warming up"
    for contestant in turns:
        run.told(f"{workload.title}, {cache} ({which}): {contestant.name}")
        if (workload.name, "", cache, contestant.name) not in run.failures:
            _turn(run, inputs, contestant, workload, cache, counts=number > 0)


def _turn(run: _Run, inputs: Inputs, contestant: Contestant, workload: Workload, cache: str, *, counts: bool) -> None:
    turn = Turn(run.place, inputs, cache == COLD, deletions=contestant.drain)

    def failed(variant: str, reason: str) -> None:
        run.failures.setdefault((workload.name, variant, cache, contestant.name), reason)

    try:
        for image in workload.images:
            if image != "deep":
                contestant.require(image)
        workload.run(contestant, turn)
        # What it still deletes must not fall into the next one's turn.
        contestant.drain()
    except Unavailable as lack:
        failed("", str(lack))
    except (LayerstoreError, OSError) as problem:
        # A full disk is nobody's fault, and spoils what comes after it. All else is told beside the figures.
        if problem.errno in FULL:
            raise
        failed("", problem.message if isinstance(problem, LayerstoreError) else str(problem.strerror or problem))
    else:
        for variant, reason in turn.lacking.items():
            failed(variant, reason)
        if counts:
            for variant, (seconds, count) in turn.seconds.items():
                place = (workload.name, variant, cache, contestant.name)
                book = run.notes.setdefault(place, _Notebook(count))
                book.seconds.append(seconds / count)
                if variant in turn.space:
                    book.space.append(turn.space[variant])


# ---- after the rounds


def _figures(run: _Run, workloads: Sequence[Workload]) -> list[Figure]:
    order = {workload.name: place for place, workload in enumerate(workloads)}
    found = [
        Figure(workload, variant, cache, subject, book.count, tuple(book.seconds), tuple(book.space))
        for (workload, variant, cache, subject), book in run.notes.items()
    ]
    return sorted(found, key=lambda figure: (order[figure.workload], CACHES.index(figure.cache)))


def _told_settings(
    settings: Settings, caches: Sequence[str], workloads: Sequence[Workload], inputs: Inputs
) -> dict[str, Any]:
    """The settings as the report and a comparison need them."""
    told: dict[str, Any] = {
        "rounds": settings.rounds,
        "seed": settings.seed,
        "scale": settings.scale,
        "caches": list(caches),
        "workloads": [workload.name for workload in workloads],
        "image": "made" if settings.image is None else settings.image.name,
        "large_file": images.Shape(scale=settings.scale, seed=settings.seed, depths=settings.depths).large,
        "chmod_files": len(inputs.chmod),
    }
    if inputs.archive.exists():
        layers = images.members(inputs.archive)
        told |= {"image_layers": len(layers), "image_bytes": sum(size for _, size in layers)}
    return told
