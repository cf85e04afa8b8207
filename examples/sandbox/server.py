"""A server that runs the code of strangers, each in a fork of one warmed container.

    python server.py --image image.tar --port 8000
    curl -s 127.0.0.1:8000/run -H 'content-type: application/json' -d '{"code": "echo $((6 * 7))"}'

What is dear (an image, packages, caches) is made once and kept by a checkpoint. Each request gets a container that
begins there, in milliseconds, and is run by an OCI runtime: docker's seccomp filter, no capabilities, no network,
limits of memory, processes, files, output and time. However it ends, the container is gone with all that it wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

import layerstore
from layerstore import aio
from layerstore.runtime import MountOption, RunOptions, Ulimit

AT_ONCE = 100
"""Sandboxes at the same time. As many as `WAITING` more wait for them; the next are told to come back."""
WAITING = 400
LONGEST = 10.0
"""Seconds that code may take, whatever it asks for."""
MOST_OUTPUT = 1 << 16
"""Bytes of output; who writes more is ended."""
LARGEST_FILE = 16 << 20

LIMITS = RunOptions(
    network="none",
    memory=64 << 20,
    memory_swap=64 << 20,
    pids_limit=32,
    cap_drop=("ALL",),
    security_opt=("no-new-privileges",),
    ulimits=(Ulimit("fsize", LARGEST_FILE, LARGEST_FILE), Ulimit("nofile", 64, 64), Ulimit("core", 0, 0)),
    mounts=(MountOption("tmpfs", "/tmp", options=("size=16m", "nr_inodes=1k")),),
)
MARK = "sandbox-"
"""How the names of the containers begin that are this server's: what a killed one has left is known by it."""


class Code(BaseModel):
    """What is asked for."""

    code: str = Field(max_length=1 << 16)
    timeout: float = Field(default=2.0, gt=0, le=LONGEST)


class Ran(BaseModel):
    """What came of it. `code` is the exit code, as a shell has it; None if it was ended, and `ended` says for what."""

    output: str
    code: int | None
    ended: str | None
    seconds: float


class Sandboxes:
    """The forks of one checkpoint."""

    def __init__(self, store: aio.Store, warm: aio.Checkpoint, command: Sequence[str], options: RunOptions) -> None:
        self.store = store
        self.warm = warm
        self._command = command
        self._options = options
        self._free = asyncio.Semaphore(AT_ONCE)
        self._here = 0

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, config: layerstore.Config, image: Path, setup: str, command: Sequence[str], options: RunOptions = LIMITS
    ) -> AsyncIterator[Sandboxes]:
        """While inside: a store with the image and the warmed container. What another server left is removed before."""
        async with aio.open_store(config=config) as store:
            await swept(store)
            [loaded] = await store.load(image)
            box = await store.create_container(loaded, name=f"{MARK}warm")
            try:
                await box.run(["sh", "-c", setup], isolation="process", check=True)  # ours, and trusted
                yield cls(store, await box.checkpoint("warm"), command, options)
            finally:
                await swept(store)

    async def run(self, asked: Code) -> Ran:
        """Run it in a fork, which is gone when this returns or is cancelled. Raises 503 if too many wait."""
        if self._here >= AT_ONCE + WAITING:
            raise HTTPException(503, "too many sandboxes: come back in a while", {"Retry-After": "1"})
        self._here += 1
        try:
            async with self._free:
                begin = time.perf_counter()
                [box] = await self.warm.fork(names=[f"{MARK}{os.urandom(8).hex()}"])
                try:
                    output, code, ended = await self._in(box, asked)
                finally:
                    await box.remove(force=True, volumes=True, lasts=False)
                return Ran(output=output, code=code, ended=ended, seconds=time.perf_counter() - begin)
        finally:
            self._here -= 1

    async def _in(self, box: aio.Container, asked: Code) -> tuple[str, int | None, str | None]:
        output = b""
        words = [*self._command, asked.code]
        try:
            async with asyncio.timeout(asked.timeout):
                async with box.popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    options=self._options,
                ) as program:
                    assert program.stdout is not None
                    async for piece in program.stdout.pieces():
                        output += piece
                        if len(output) > MOST_OUTPUT:
                            await program.kill()
                            return text_of(output[:MOST_OUTPUT]), None, f"more than {MOST_OUTPUT} bytes of output"
                    code = await program.wait()
        except TimeoutError:
            return text_of(output), None, f"not done after {asked.timeout:g} seconds"
        return text_of(output), code, None


def text_of(output: bytes) -> str:
    """Whatever it wrote."""
    return output.decode("utf-8", "replace")


async def swept(store: aio.Store) -> None:
    """Remove the containers of this kind, with whatever runs in them."""
    for box in await store.containers():
        if box.name.startswith(MARK):
            await box.remove(force=True, volumes=True, lasts=False)


def application(
    config: layerstore.Config, image: Path, *, setup: str = "true", command: Sequence[str] = ("sh", "-c")
) -> FastAPI:
    """The server as an ASGI application. `setup` is run once, `command` is what each request's code is given to."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with Sandboxes.opened(config, image, setup, command) as app.state.sandboxes:
            yield

    app = FastAPI(title="sandboxes", lifespan=life)

    @app.post("/run")
    async def run(asked: Code, request: Request) -> Ran:
        sandboxes: Sandboxes = request.app.state.sandboxes
        return await sandboxes.run(asked)

    return app


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--image", type=Path, required=True, help="an archive, as `docker save` writes it")
    parser.add_argument("--data-root", type=Path, default=Path("/var/lib/sandboxes"))
    parser.add_argument("--setup", default="true", help="what is run once, in a shell, before the checkpoint")
    parser.add_argument("--command", nargs="+", default=["sh", "-c"], help="what the code is given to: python3 -c")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    config = layerstore.Config(data_root=given.data_root, exec_root=given.data_root / "run")
    app = application(config, given.image, setup=given.setup, command=given.command)
    uvicorn.run(app, host="127.0.0.1", port=given.port, timeout_graceful_shutdown=int(LONGEST) + 5)


if __name__ == "__main__":
    main()
