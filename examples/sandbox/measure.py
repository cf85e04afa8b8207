"""What a sandbox costs: forks a second, and a request beside one that begins anew. `python measure.py image.tar`

Everything is measured in this process, without HTTP, the ways by turns. What counts is the ratio: a busy machine is
slow for both.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from server import LIMITS, Code, Sandboxes

import layerstore
from layerstore import aio

ROUNDS = 15
SETUP = "mkdir -p /srv; n=0; while [ $n -lt 300 ]; do n=$((n + 1)); echo $n > /srv/$n; done"
CODE = "echo $((6 * 7))"


def spent() -> float:
    """Processor time of this process and of all that it has waited for."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


async def clocked(work: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    """Seconds, and seconds of processors, in milliseconds."""
    cpu, begin = spent(), time.perf_counter()
    await work()
    return (time.perf_counter() - begin) * 1000, (spent() - cpu) * 1000


async def anew(store: aio.Store, image: aio.Image) -> None:
    """A request without a checkpoint: a container of the image, what has to be done in it first, and the code."""
    box = await store.create_container(image, lasts=False)
    await box.run(["sh", "-c", SETUP], isolation="process", check=True)
    await box.run(["sh", "-c", CODE], options=LIMITS, stdout=subprocess.PIPE, check=True)
    await box.remove(force=True, lasts=False)


async def measured(config: layerstore.Config, archive: Path) -> None:
    """All of it, printed as the page has it."""
    async with Sandboxes.opened(config, archive, SETUP, ("sh", "-c")) as sandboxes:
        store = sandboxes.store
        [image] = await store.images()
        asked = Code(code=CODE)
        ways: dict[str, Callable[[], Awaitable[object]]] = {
            "a fork, and the code in it": lambda: sandboxes.run(asked),
            "a container anew, its set-up, and the code": lambda: anew(store, image),
        }
        took: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, work in ways.items():
                took[name].append(await clocked(work))
        first = None
        for name, each in took.items():
            wall, cpu = (statistics.median(column) for column in zip(*each, strict=True))
            first = first or (wall, cpu)
            print(f"| {name} | {wall:.0f} | {cpu:.0f} | {wall / first[0]:.1f} | {cpu / first[1]:.1f} |")

        forks: list[list[aio.Container]] = []

        async def fork() -> None:
            forks.append(await sandboxes.warm.fork())

        async def hundred() -> None:
            await asyncio.gather(*(fork() for _ in range(100)))

        wall, cpu = await clocked(hundred)
        print(f"100 forks at once: {100_000 / wall:.0f} a second, {cpu / 100:.1f} ms of processors each")
        for [box] in forks:
            await box.remove(lasts=False)

        async def crowd() -> None:
            await asyncio.gather(*(sandboxes.run(Code(code=CODE, timeout=10.0)) for _ in range(100)))

        wall, cpu = await clocked(crowd)
        print(f"100 requests at once: {100_000 / wall:.0f} a second, {cpu / 100:.0f} ms of processors each")


def main(archive: Path) -> None:
    """In a folder that is removed."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        config = layerstore.Config(
            data_root=Path(folder).absolute() / "store", exec_root=Path(folder).absolute() / "run"
        )
        asyncio.run(measured(config, archive))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
