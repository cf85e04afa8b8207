"""What a start costs: `import layerstore`, its core, `layerstore version` and `--help`, beside Python's own start.

    python -m benchmarks.start [--rounds 30]

All in turns, each a process of its own. The import is timed within its process; the rest from outside, start and end
of Python included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.bench import Measured, machine, table, write_results
from benchmarks.metering import Cost, meter

IMPORT = "import time; start = time.perf_counter(); import layerstore; print(time.perf_counter() - start)"
PYTHON, WITHIN = "python -c pass", "import layerstore, within its process"
SUBJECTS: dict[str, tuple[str, ...]] = {
    PYTHON: (sys.executable, "-c", "pass"),
    "python -c 'import layerstore'": (sys.executable, "-c", "import layerstore"),
    "python -c 'import layerstore; layerstore.Store'": (sys.executable, "-c", "import layerstore; layerstore.Store"),
    "layerstore version": (str(Path(sys.executable).with_name("layerstore")), "version"),
    "layerstore --help": (str(Path(sys.executable).with_name("layerstore")), "--help"),
}


def measure(rounds: int) -> tuple[dict[str, list[Cost]], list[float]]:
    """What each costs, in turns, and the seconds of the import; the first round does not count."""
    costs: dict[str, list[Cost]] = {subject: [] for subject in SUBJECTS}
    imports: list[float] = []
    for number in range(rounds + 1):
        for subject, command in SUBJECTS.items():
            ran = meter(*command)
            if not ran.is_done:
                sys.exit(f"{subject} failed: {ran.said}")
            if number:
                costs[subject].append(ran.cost)
        said = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout
        if number:
            imports.append(float(said))
    return costs, imports


def tables(costs: dict[str, list[Cost]], imports: list[float]) -> str:
    """Milliseconds, least / median, memory, and the ratio of the processor's medians to that of Python's own start."""
    own = statistics.median(cost.cpu for cost in costs[PYTHON])
    rows = []
    for subject, found in costs.items():
        walls, cpus = [cost.wall for cost in found], [cost.cpu for cost in found]
        memory = statistics.median(cost.peak for cost in found) / (1 << 20)
        ratio = f"{statistics.median(cpus) / own:.2f}"
        rows.append([subject, milliseconds(walls), milliseconds(cpus), ratio, f"{memory:.1f}"])
    rows.append([WITHIN, milliseconds(imports), "", "", ""])
    return table(["ms, least / median", "clock", "processor", "processor, medians : python", "MiB"], rows)


def milliseconds(seconds: list[float]) -> str:
    """The least, and the median."""
    return f"{min(seconds) * 1e3:.2f} / {statistics.median(seconds) * 1e3:.2f}"


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.start", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    facts, load = machine(), os.getloadavg()[0]
    del facts["filesystem"]
    costs, imports = measure(options.rounds)
    measured = [Measured(subject, "", tuple(cost.wall for cost in found)) for subject, found in costs.items()]
    write_results(
        options.results / f"{facts['date']}-start",
        title="What a start costs",
        facts=facts,
        measured=[*measured, Measured(WITHIN, "", tuple(imports))],
        tables=tables(costs, imports),
        remarks=[
            f"{options.rounds} rounds after one that does not count, in turns; compiled modules lie there.",
            f"The machine had a load of {load:.0f} when it began: others worked on it." if load > 1 else "It was idle.",
        ],
    )


if __name__ == "__main__":
    main()
