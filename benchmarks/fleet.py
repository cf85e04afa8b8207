"""10,000 machines that start one image at once: how long it takes, and what is sent by whom. A simulation.

Pure arithmetic, seeded, some seconds. What a machine of this kind needs for its part was measured (`Costs`); what the
networks are is assumed (`Fleet`) and can be set. Whose turn it is to fetch a layer is decided by the code of the store.
Every pipe (a network card, a rack's uplink, a server's processors) gives out one piece of a layer after another; a
machine asks for the next piece when it has the last one, three layers at once, as a pull does.

    python -m benchmarks.fleet --machines 10000 --lost 0.01 --slow 0.02
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from attrs import asdict, define, evolve, field, frozen

from layerstore.registry.remotes.turns import FAN_OUT, Turns

MB: Final = 1_000_000
GBIT: Final = 125_000_000
UPSTREAM: Final = -1


@frozen
class Costs:
    """Measured; docs/fleet.md says how. Seconds, and bytes a second."""

    registry_request: float = 0.0013
    """A core of docker-registry 2.8.2 for a HEAD of a manifest."""
    redirect_request: float = 0.0035
    """The same where it keeps its blobs in an S3, and for a redirect there."""
    registry_bytes: float = 2.1e9
    """What a core of docker-registry sends of blobs in files."""
    object_bytes: float = 1.05e9
    """What a core of SeaweedFS 4.48 sends by S3."""
    peer_bytes: float = 0.9e9
    """What a core of `layerstore serve` sends."""
    ask: float = 0.002
    """A question to another store, asked and answered."""
    take_in: float = 100e6
    """What a core hashes, inflates and unpacks of a compressed layer."""


@frozen
class Fleet:
    """Assumed: a data centre of racks, its registry, its object store."""

    machines: int = 10_000
    rack: int = 40
    card: float = 10 * GBIT
    uplink: float = 40 * GBIT
    """Of a rack, in each direction."""
    registry: float = 25 * GBIT
    registry_cores: int = 16
    objects: float = 200 * GBIT
    """What an object store gives all machines together, and has cores enough for."""
    mirror: float = 25 * GBIT
    """The card of a rack's mirror."""
    spread: float = 2.0
    """Seconds within which all begin."""
    fan_out: int = FAN_OUT
    """To how many a store sends a blob that it is still receiving."""
    lost: float = 0.0
    """The share of machines that vanish while they pull."""
    slow: float = 0.0
    """The share of machines whose card is twenty times slower."""


@frozen
class Image:
    """An image, by the compressed bytes of its layers: those of python:3.12."""

    layers: tuple[int, ...] = (49 * MB, 24 * MB, 64 * MB, 211 * MB, 6 * MB, 25 * MB, 1 * MB, 3 * MB)
    piece: int = 16 * MB

    @property
    def size(self) -> int:
        """All of it."""
        return sum(self.layers)


WORKERS: Final = 3
"""Layers that a pull fetches at once (`max-concurrent-downloads`)."""

REQUESTS: Final = 3
"""A pull's requests before its layers: the tag, the manifest, the config."""

SILENCE: Final = 5.0
"""Seconds after which a machine that was lost is given up (`registry.remotes.remote.SILENCE`)."""


@define
class Pipe:
    """Gives out pieces one after another."""

    rate: float
    free: float = 0.0
    sent: float = 0.0

    def send(self, at: float, size: float) -> float:
        """When a piece that is there at `at` is through."""
        self.free = max(at, self.free) + size / self.rate
        self.sent += size
        return self.free


@define
class Machine:
    """A machine: what it has, and when it had it."""

    number: int
    rack: int
    up: Pipe
    down: Pipe
    cpu: list[Pipe]
    dies: float
    begun: float = 0.0
    left: int = 0
    done: float = 0.0
    queue: list[int] = field(factory=list)
    had: dict[tuple[int, int], float] = field(factory=dict)
    waiting: dict[tuple[int, int], list[int]] = field(factory=lambda: defaultdict(list))


class Simulation:
    """One way to bring an image to all machines: from `Simulation.ways`."""

    ways: Final = ("registry", "registry + S3", "mirror a rack", "peers", "peers + S3")

    def __init__(self, way: str, fleet: Fleet, image: Image, costs: Costs, seed: int) -> None:
        self.way, self.fleet, self.image, self.costs = way, fleet, image, costs
        chance = random.Random(seed)
        cores = fleet.registry_cores
        self.requests = Pipe(cores / (costs.redirect_request if way.endswith("S3") else costs.registry_request))
        self.registry = Pipe(min(fleet.registry, cores * costs.registry_bytes))
        self.objects = Pipe(fleet.objects)
        racks = -(-fleet.machines // fleet.rack)
        self.uplinks = [Pipe(fleet.uplink) for _ in range(racks)]
        self.mirrors = [Pipe(min(fleet.mirror, 4 * costs.registry_bytes)) for _ in range(racks)]
        self.mirrored: list[dict[tuple[int, int], float]] = [{} for _ in range(racks)]
        self.turns = [Turns(fan_out=fleet.fan_out) for _ in range(racks)]
        self.events: list[tuple[float, int, int, int, int]] = []
        self.tries = 0
        self.machines = [self._machine(number, chance) for number in range(fleet.machines)]

    def _machine(self, number: int, chance: random.Random) -> Machine:
        fleet, costs = self.fleet, self.costs
        card = fleet.card / (20 if chance.random() < fleet.slow else 1)
        begun = chance.uniform(0, fleet.spread)
        dies = begun + chance.uniform(0, 10) if chance.random() < fleet.lost else float("inf")
        up = Pipe(min(card, 2 * costs.peer_bytes))
        layers = sorted(range(len(self.image.layers)), key=lambda layer: -self.image.layers[layer])
        return Machine(
            number,
            number // fleet.rack,
            up,
            Pipe(card),
            [Pipe(costs.take_in) for _ in range(WORKERS)],
            dies,
            begun,
            len(layers),
            queue=layers,
        )

    # --- running

    def run(self) -> None:
        """Until every machine that is not lost has the image."""
        for machine in self.machines:
            ready = self.requests.send(machine.begun, REQUESTS)
            for _ in range(WORKERS):
                self._next_layer(machine, ready)
        while self.events:
            at, number, layer, piece, source = heapq.heappop(self.events)
            machine = self.machines[number]
            if at < machine.dies:
                self._want(at, machine, layer, piece, source)

    def _next_layer(self, machine: Machine, at: float) -> None:
        if machine.queue:
            layer = machine.queue.pop(0)
            at, source = self._source(at, machine, layer, ())
            heapq.heappush(self.events, (at, machine.number, layer, 0, source))

    def _source(self, at: float, machine: Machine, layer: int, lost: Sequence[str]) -> tuple[float, int]:
        """From whom a machine is to have a layer, and when it knows."""
        if not self.way.startswith("peers"):
            return (at if self.way == "mirror a rack" else self.requests.send(at, 1)), UPSTREAM
        self.tries += 1
        name = self.turns[machine.rack].take(str(layer), str(machine.number), lost=lost)
        at += self.costs.ask
        return (self.requests.send(at, 1), UPSTREAM) if name is None else (at, int(name))

    def _want(self, at: float, machine: Machine, layer: int, piece: int, source: int) -> None:
        """A machine asks for a piece: it comes, or it is waited for, or its source is gone."""
        if source == UPSTREAM:
            self._came(self._from_upstream(at, machine, layer, piece), machine, layer, piece, source)
            return
        other = self.machines[source]
        if at >= other.dies:
            at, source = self._source(at + SILENCE, machine, layer, [str(source)])
            heapq.heappush(self.events, (at, machine.number, layer, piece, source))
        elif (layer, piece) in other.had:
            at = max(at, other.had[layer, piece])
            size = self._size(layer, piece)
            self._came(max(other.up.send(at, size), machine.down.send(at, size)), machine, layer, piece, source)
        else:
            other.waiting[layer, piece].append(machine.number)
            if other.dies < float("inf"):
                heapq.heappush(self.events, (other.dies, machine.number, layer, piece, source))

    def _from_upstream(self, at: float, machine: Machine, layer: int, piece: int) -> float:
        size = self._size(layer, piece)
        uplink = self.uplinks[machine.rack]
        if self.way == "mirror a rack":
            kept = self.mirrored[machine.rack]
            if (layer, piece) not in kept:
                if piece == 0:
                    at = self.requests.send(at, 1)
                kept[layer, piece] = max(self.registry.send(at, size), uplink.send(at, size))
            at = max(at, kept[layer, piece])
            return max(self.mirrors[machine.rack].send(at, size), machine.down.send(at, size))
        server = self.objects if self.way.endswith("S3") else self.registry
        return max(server.send(at, size), uplink.send(at, size), machine.down.send(at, size))

    def _came(self, at: float, machine: Machine, layer: int, piece: int, source: int) -> None:
        if (layer, piece) in machine.had:
            return
        machine.had[layer, piece] = at
        for number in machine.waiting.pop((layer, piece), ()):
            heapq.heappush(self.events, (at, number, layer, piece, machine.number))
        if piece + 1 < self._pieces(layer):
            heapq.heappush(self.events, (at, machine.number, layer, piece + 1, source))
        else:
            machine.left -= 1
            self._next_layer(machine, at)
        # The unpacking goes on behind, a core a layer.
        core = min(machine.cpu, key=lambda pipe: pipe.free)
        machine.done = max(machine.done, core.send(at, self._size(layer, piece)))

    def _pieces(self, layer: int) -> int:
        return -(-self.image.layers[layer] // self.image.piece)

    def _size(self, layer: int, piece: int) -> int:
        return min(self.image.piece, self.image.layers[layer] - piece * self.image.piece)

    # --- what came of it

    def outcome(self) -> Outcome:
        """What it took."""
        done = sorted(machine.done - machine.begun for machine in self.machines if not machine.left)
        size = self.image.size
        return Outcome(
            way=self.way,
            machines=len(done),
            alone=self.image.size / min(self.fleet.card, self.costs.take_in * WORKERS),
            median=done[len(done) // 2],
            late=done[len(done) * 99 // 100],
            last=max(machine.done for machine in self.machines if not machine.left),
            registry_requests=round(self.requests.sent),
            copies=(self.registry.sent + self.objects.sent) / size,
            busiest_uplink=max(pipe.sent for pipe in self.uplinks) / size,
            busiest_machine=max(machine.up.sent for machine in self.machines) / size,
        )


@frozen
class Outcome:
    """Seconds of a machine's pull (`median`, `late`: 99 of 100), until the `last` of all ends; images that are sent."""

    way: str
    machines: int
    alone: float
    """Seconds that one machine takes when nobody else is there: the least, as it takes the layers in."""
    median: float
    late: float
    last: float
    registry_requests: int
    copies: float
    """From registry and object store."""
    busiest_uplink: float
    busiest_machine: float


def simulate(fleet: Fleet, image: Image, costs: Costs, seed: int) -> Iterator[Outcome]:
    """Each way in turn."""
    for way in Simulation.ways:
        simulation = Simulation(way, fleet, image, costs, seed)
        simulation.run()
        yield simulation.outcome()


def main() -> None:
    """Print a table, or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.partition("\n")[0])
    parser.add_argument("--machines", type=int, default=Fleet().machines)
    parser.add_argument("--rack", type=int, default=Fleet().rack, help="machines in a rack")
    parser.add_argument("--lost", type=float, default=0.0, help="share of machines that vanish while they pull")
    parser.add_argument("--slow", type=float, default=0.0, help="share of machines with a card 20 times slower")
    parser.add_argument("--fan-out", type=int, default=FAN_OUT, help="stores that have a blob from one other")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    fleet = evolve(
        Fleet(),
        machines=given.machines,
        rack=given.rack,
        lost=given.lost,
        slow=given.slow,
        fan_out=given.fan_out,
    )
    outcomes = list(simulate(fleet, Image(), Costs(), given.seed))
    if given.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
        return
    print("way               median s   99 % s   last s   requests   copies sent   busiest uplink   busiest machine")
    for one in outcomes:
        print(
            f"{one.way:16}{one.median:10.1f}{one.late:9.1f}{one.last:9.1f}{one.registry_requests:11,}"
            f"{one.copies:14,.0f}{one.busiest_uplink:17.1f}{one.busiest_machine:18.1f}"
        )


if __name__ == "__main__":
    main()
