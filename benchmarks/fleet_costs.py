"""What the parts of a fleet cost one machine: the figures from which `benchmarks.fleet` reckons.

    PYTHONPATH=tests .venv/bin/python -m benchmarks.fleet_costs

Processor time of the servers (from /proc, so that a busy machine alters little) for a request and for a byte:
docker-registry on files and over S3, SeaweedFS, `layerstore serve`; and for a byte that a pull takes in. Root, as it
makes a store. Servers are those of the tests, on loopback.
"""

from __future__ import annotations

import gzip
import http.client
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import layerstore
from registry.servers.debian import DockerRegistry
from registry.servers.seaweed import Seaweed
from support import images as make

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SIZE = 64 << 20


def processor(pid: int) -> float:
    """Seconds that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def ask(host: str, method: str, target: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
    """One request by a connection of its own. Its body, if it is large, is read and thrown away."""
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request(method, target, body, {name.replace("_", "-"): text for name, text in headers.items()})
    reply = connection.getresponse()
    buffer = bytearray(1 << 20)
    while reply.readinto(buffer):
        pass
    connection.close()
    return reply


def cost(pid: int, times: int, act: Callable[[], object]) -> tuple[float, float]:
    """Processor seconds of `pid`, and wall seconds, for one of `times`."""
    act()
    used, began = processor(pid), time.monotonic()
    for _ in range(times):
        act()
    return (processor(pid) - used) / times, (time.monotonic() - began) / times


def push(host: str, blob: bytes) -> str:
    """An image of one plain layer, `a/b:1`; the blob's digest."""
    config = b"{}"
    for data in (blob, config):
        begun = ask(host, "POST", "/v2/a/b/blobs/uploads/")
        place = urlsplit(begun.getheader("Location") or "")
        ask(host, "PUT", f"{place.path}?{place.query}&digest={make.digest(data)}", data)
    parts = [{"mediaType": CONFIG, "digest": make.digest(config), "size": len(config)}]
    parts += [{"mediaType": LAYER, "digest": make.digest(blob), "size": len(blob)}]
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": parts[0], "layers": parts[1:]}
    done = ask(host, "PUT", "/v2/a/b/manifests/1", json.dumps(manifest).encode(), Content_Type=MANIFEST)
    assert done.status == 201, done.status
    return make.digest(blob)


def of_registry(registry: DockerRegistry, found: dict[str, float], name: str) -> str:
    """A request for a manifest; where the blob is sent from."""
    assert registry._process is not None
    digest = push(registry.host, os.urandom(SIZE))
    pid, blob = registry._process.pid, f"/v2/a/b/blobs/{digest}"
    head = lambda: ask(registry.host, "HEAD", "/v2/a/b/manifests/1", Accept=MANIFEST)  # noqa: E731
    found[f"{name}: HEAD of a manifest, ms"] = cost(pid, 300, head)[0] * 1e3
    reply = ask(registry.host, "GET", blob)
    if reply.status == 307:
        found[f"{name}: redirect of a blob, ms"] = cost(pid, 300, lambda: ask(registry.host, "GET", blob))[0] * 1e3
        return reply.getheader("Location") or ""
    found[f"{name}: blobs, MB/s a core"] = SIZE / cost(pid, 10, lambda: ask(registry.host, "GET", blob))[0] / 1e6
    return ""


def of_store(folder: Path, found: dict[str, float]) -> None:
    """`serve`: blobs in its three forms, and questions; and what is taken in."""
    tar = make.layer(*(make.file(f"file{n}", os.urandom(20_000) + bytes(20_000)) for n in range(SIZE // 40_000)))
    blob, kept = gzip.compress(tar, 6), os.urandom(SIZE)
    place = folder / "store"
    settings = layerstore.Config(data_root=place, exec_root=folder / "exec", storage_driver="overlay2")
    with layerstore.open(config=settings) as store:
        used = processor(os.getpid())
        archive = make.oci_layout(folder / "oci", [tar])
        used = processor(os.getpid())
        store.load(archive)
        found["a load of gzip: compressed MB/s a core"] = len(blob) / (processor(os.getpid()) - used) / 1e6
        store.blobs.put(io.BytesIO(kept))
    (folder / "daemon.json").write_text(
        json.dumps({"data-root": str(place), "exec-root": str(folder / "exec"), "storage-driver": "overlay2"})
    )
    command = [sys.executable, "-m", "layerstore.cli", "--config", str(folder / "daemon.json"), "serve"]
    with subprocess.Popen([*command, "--address", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            host = process.stdout.readline().strip().rpartition("//")[2]
            for name, data in (("kept blobs", kept), ("layers as tars", tar)):
                target = f"/v2/_layerstore/blobs/{make.digest(data)}?size={len(data)}"
                seconds = cost(process.pid, 10, lambda target=target: ask(host, "GET", target))[0]  # type: ignore[misc]
                found[f"serve: {name}, MB/s a core"] = len(data) / seconds / 1e6
            turn = json.dumps({"digest": make.digest(kept), "store": "1" * 32, "lost": [], "gives": True}).encode()
            has = json.dumps({"digests": [make.digest(bytes([n])) for n in range(20)]}).encode()
            for name, question in (("turn", turn), ("has", has)):
                spent = cost(process.pid, 300, lambda *_: ask(host, "POST", f"/v2/_layerstore/{name}", question))  # noqa: B023
                found[f"serve: the question {name}, ms of processor"] = spent[0] * 1e3
                found[f"serve: the question {name}, ms"] = spent[1] * 1e3
        finally:
            process.terminate()


def measure() -> dict[str, float]:
    """Each cost by its name."""
    found: dict[str, float] = {}
    folder = Path(tempfile.mkdtemp(prefix="layerstore-costs"))
    with ExitStack() as running:
        running.callback(shutil.rmtree, folder, ignore_errors=True)
        of_registry(running.enter_context(DockerRegistry(folder / "files")), found, "docker-registry")
        objects: Any = running.enter_context(Seaweed(folder / "weed"))
        redirected = running.enter_context(DockerRegistry(folder / "s3", objects=objects))
        place = urlsplit(of_registry(redirected, found, "docker-registry over S3"))
        seconds = cost(objects._process.pid, 10, lambda: ask(place.netloc, "GET", f"{place.path}?{place.query}"))[0]
        found["SeaweedFS: objects, MB/s a core"] = SIZE / seconds / 1e6
        of_store(folder, found)
    return found


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name:50} {value:10.2f}")
