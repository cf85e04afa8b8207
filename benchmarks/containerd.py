"""`ctr run` on our snapshotter beside containerd's own overlayfs: a container is made, runs `true`, and is removed.

    PYTHONPATH=tests python -m benchmarks.containerd [--rounds 20] [--drivers overlay2,erofs]

Both snapshotters are of one containerd, on one ext4 in a loop image, and take turns. The image has a layer with busybox
and nineteen with a file each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

import layerstore
from benchmarks.bench import Measured, filesystem, machine, table, write_results
from containerd.daemon import Daemon
from support import images

THEIRS = "containerd's overlayfs"
IMAGE = "docker.io/library/bench:1"
LAYERS = 20


def image(target: Path) -> Path:
    """A docker-archive of it."""
    program = Path(str(shutil.which("busybox"))).read_bytes()
    base = images.layer(
        *(images.folder(name) for name in ("bin", "proc", "sys", "dev", "run")),
        images.file("bin/busybox", program, mode=0o755),
        images.symlink("bin/true", "busybox"),
    )
    others = [images.layer(images.file(f"layer-{number}", str(number))) for number in range(1, LAYERS)]
    return images.docker_archive(target, [base, *others], ["bench:1"])


def measure(place: Path, driver: str, rounds: int) -> list[Measured]:
    """Seconds of each run, in turns; the first of each does not count."""
    config = layerstore.Config(data_root=place / "store", exec_root=place / "exec", storage_driver=driver)
    names = {f"layerstore, {driver}": "layerstore", THEIRS: "overlayfs"}
    found: dict[str, list[float]] = {subject: [] for subject in names}
    with Daemon(config, place / "containerd") as daemon:
        for snapshotter in names.values():
            daemon("images", "import", "--snapshotter", snapshotter, image(place / "bench.tar"))
        for number in range(rounds + 1):
            for subject, snapshotter in names.items():
                start = time.perf_counter()
                daemon.run(IMAGE, f"n{number}", "true", snapshotter=snapshotter)
                if number:
                    found[subject].append(time.perf_counter() - start)
            print(f"{driver}: round {number} of {rounds}", file=sys.stderr, flush=True)
        daemon("images", "rm", "--sync", IMAGE)
    return [Measured(subject, driver, tuple(seconds)) for subject, seconds in found.items()]


def tables(measured: list[Measured]) -> str:
    """Milliseconds, least / median, and the ratio of the medians, which is the aim."""
    rows = []
    for ours, theirs in zip(measured[::2], measured[1::2], strict=True):
        cells = [f"{one.least * 1e3:.0f} / {one.median * 1e3:.0f}" for one in (ours, theirs)]
        rows.append([ours.input, *cells, f"{ours.median / theirs.median:.2f}"])
    return table(["ms, least / median; driver", "on layerstore", f"on {THEIRS}", "medians"], rows)


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.containerd", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--drivers", default="overlay2,erofs", help="of ours (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the loop image is made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    facts, load = machine(), os.getloadavg()[0]
    measured = []
    for driver in options.drivers.split(","):
        with filesystem(options.work, size=2 << 30) as place:
            measured += measure(place, driver, options.rounds)
    write_results(
        options.results / f"{facts['date']}-containerd",
        title="`ctr run` on our snapshotter",
        facts=facts,
        measured=measured,
        tables=tables(measured),
        remarks=[
            f"{options.rounds} rounds after one that does not count; image of {LAYERS} layers; its program is `true`.",
            f"The machine had a load of {load:.0f} when it began: others worked on it." if load > 1 else "It was idle.",
            "A run is `ctr`, containerd, its shim and runc; of that the snapshotter is Prepare, Mounts and Remove.",
        ],
    )


if __name__ == "__main__":
    main()
