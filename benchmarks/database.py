"""A PostgreSQL that is as it was for every test: by rollback, by copies, by templates, by making it anew.

    PYTHONPATH=tests python -m benchmarks.database [--rows 10000,1000000] [--rounds 10]

Timed is what lies between two tests: from the last query of one, which threw its table away, to the first answer in the
next. The server is this machine's, without fsync, and all but `create database` stop it in between.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import layerstore
from benchmarks.bench import Measured, filesystem, machine, run, table, write_results
from support import postgres

DATA = "/var/lib/postgresql/data"
SEED = "CREATE TABLE people AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, {rows}) AS n"
INDEX = "CREATE INDEX ON people (name)"
ROLLBACK, COPY, TEMPLATE, ANEW = (
    "rollback, server started",
    "cp -a of the data directory, server started",
    "DROP DATABASE, CREATE DATABASE … TEMPLATE, server runs on",
    "initdb, server started, seeded",
)


class Server:
    """PostgreSQL in a container, trusted: by namespaces alone."""

    def __init__(self, box: layerstore.Container) -> None:
        self.box = box
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]

    def initdb(self) -> None:
        command = ["initdb", "-D", DATA, "-U", "postgres", "-A", "trust", "--locale=C", "--no-sync"]
        self.box.run(command, user="postgres", isolation="process", check=True, capture_output=True)

    def start(self) -> None:
        command = ["postgres", "-D", DATA, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        self.process = self.box.popen(command, user="postgres", isolation="process", stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "ready to accept connections" in line:
                return
        sys.exit(f"PostgreSQL did not start: {''.join(said)}")

    def stop(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.communicate()

    def query(self, *texts: str, database: str = "postgres") -> str:
        command = ["psql", "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-At"]
        return run(*command, *(word for text in texts for word in ("-c", text)), database).strip()

    def seed(self, rows: int) -> None:
        self.query(SEED.format(rows=rows), INDEX)


def measure(store: layerstore.Store, image: layerstore.Image, rows: int, rounds: int) -> list[Measured]:
    """All four, in turn; the first round does not count."""
    found: dict[str, list[float]] = {}
    with store.create_container(image) as box:
        server = Server(box)
        server.initdb()
        server.start()
        server.seed(rows)
        server.stop(signal.SIGINT)
        box.checkpoint("seeded")
        kept, data = Path("kept"), DATA.lstrip("/")
        with box.mount() as root:
            run("cp", "-a", root / data, kept.absolute())

        def rolled_back() -> None:
            server.stop()
            box.rollback("seeded")
            server.start()

        def copied() -> None:
            server.stop()
            with box.mount() as root:
                shutil.rmtree(root / data)
                run("cp", "-a", kept.absolute(), root / data)
            server.start()

        def anew() -> None:
            server.stop()
            with box.mount() as root:
                for path in (root / data).iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            server.initdb()
            server.start()
            server.seed(rows)

        def templated() -> None:
            server.query("DROP DATABASE tested", "CREATE DATABASE tested TEMPLATE seeded")

        def timed(title: str, act: Callable[[], None], *, database: str, count: bool) -> None:
            server.query("DROP TABLE people", database=database)
            start = time.perf_counter()
            act()
            answer = server.query("SELECT count(*) FROM people", database=database)
            taken = time.perf_counter() - start
            if answer != str(rows):
                sys.exit(f"{title}: {answer} rows instead of {rows}")
            if count:
                found.setdefault(title, []).append(taken)

        for number in range(rounds + 1):
            for title, act in ((ROLLBACK, rolled_back), (COPY, copied), (ANEW, anew)):
                server.start()
                timed(title, act, database="postgres", count=bool(number))
                server.stop()
                box.rollback("seeded")
            server.start()
            server.query(
                "CREATE DATABASE seeded TEMPLATE postgres",
                "CREATE DATABASE tested TEMPLATE seeded",
                database="template1",
            )
            timed(TEMPLATE, templated, database="tested", count=bool(number))
            server.stop()
            box.rollback("seeded")
            print(f"{rows} rows: round {number} of {rounds}", file=sys.stderr, flush=True)
        box.remove()
    shutil.rmtree(kept)
    return [Measured(title, str(rows), tuple(seconds)) for title, seconds in found.items()]


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.database", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", default="10000,1000000", help="how many the table has (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp"), help="where the loop image is made")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    server = postgres.newest()
    if server is None:
        sys.exit("No PostgreSQL is installed: tools/prepare bench")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    facts = machine()
    sizes = [int(part) for part in options.rows.split(",")]
    results = options.results.absolute()
    measured: list[Measured] = []
    with filesystem(options.work, size=8 << 30) as place:
        os.chdir(place)
        config = layerstore.Config(
            data_root=place / "store", exec_root=place / "exec", storage_driver="overlay2", storage_opts=()
        )
        with layerstore.open(config=config) as store:
            [image] = store.load(postgres.archive(place / "postgres.tar"))
            for rows in sizes:
                measured += measure(store, image, rows, options.rounds)
        os.chdir("/")
    facts |= {"load average": f"{os.getloadavg()[2]:.1f} over the last 15 minutes"}
    found = {(one.subject, one.input): one for one in measured}
    lines = [
        [title, *(f"{found[title, str(n)].least * 1e3:.0f} / {found[title, str(n)].median * 1e3:.0f}" for n in sizes)]
        for title in (ROLLBACK, COPY, TEMPLATE, ANEW)
    ]
    write_results(
        results / f"{facts['date']}-database",
        title="A database that is as it was for every test",
        facts=facts,
        measured=measured,
        tables=table(["ms, least / median; rows:", *(f"{n:,}" for n in sizes)], lines),
        remarks=[
            f"{options.rounds} rounds after one that does not count.",
            "Of a table that a test has dropped, until psql has its rows counted again; psql itself is 30 ms of it.",
            f"PostgreSQL {server.name} of the Debian package, without fsync, in a container on overlay2.",
        ],
    )


if __name__ == "__main__":
    main()
