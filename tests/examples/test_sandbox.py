"""The sandbox server of `examples/sandbox`, over HTTP: what it runs, what it ends, and what it leaves."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import layerstore
from layerstore import aio
from support import programs
from support.properties import NIGHTLY

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("crun", "conmon"),
    pytest.mark.skipif(not NIGHTLY, reason="by night: a hundred sandboxes"),
]

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "sandbox"
SETUP = "mkdir /srv; echo warm > /srv/state"
PATIENCE = 120.0


@pytest.fixture
def config(backing: Callable[[str], Path]) -> layerstore.Config:
    folder = backing("ext4")
    programs.archive(folder / "image.tar")
    return layerstore.Config(data_root=folder / "store", exec_root=folder / "run")


@asynccontextmanager
async def served(config: layerstore.Config) -> AsyncIterator[tuple[Any, int]]:
    """While inside: the server's module, and the port at which it answers."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        import server
        import uvicorn
    finally:
        sys.path.remove(str(EXAMPLE))
    app = server.application(config, config.data_root.parent / "image.tar", setup=SETUP)
    serving = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", loop="asyncio"))
    task = asyncio.create_task(serving._serve())
    deadline = time.monotonic() + PATIENCE
    while not serving.started:
        assert not task.done(), task.exception()
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    try:
        yield server, serving.servers[0].sockets[0].getsockname()[1]
    finally:
        serving.should_exit = True
        await asyncio.wait_for(task, PATIENCE)


async def ask(port: int, code: str, timeout: float = 10.0) -> Any:
    """Post code; the answer, or the status if that is no 200."""
    body = json.dumps({"code": code, "timeout": timeout}).encode()
    head = f"POST /run HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    reading, writing = await asyncio.open_connection("127.0.0.1", port)
    writing.write(f"{head}Connection: close\r\n\r\n".encode() + body)
    answer = await asyncio.wait_for(reading.read(), PATIENCE)
    writing.close()
    status, _, rest = answer.partition(b"\r\n\r\n")
    return json.loads(rest) if status.startswith(b"HTTP/1.1 200") else int(status.split()[1])


def test_code_runs_in_a_fork_of_its_own_within_limits(config: layerstore.Config) -> None:
    async def work() -> None:
        async with served(config) as (server, port):
            server.MOST_OUTPUT = 1 << 12
            many = 100
            answers = await asyncio.gather(
                *(ask(port, f"echo {n} >> /srv/state; cat /srv/state; exit {n % 3}") for n in range(many)),
                ask(port, "while :; do echo y; done"),
                ask(port, "sleep 1000", 1.0),
                ask(port, "x", 1000.0),
            )
            for n, answer in enumerate(answers[:many]):
                assert (answer["output"], answer["code"]) == (f"warm\n{n}\n", n % 3)
            flood, slow, refused = answers[many:]
            assert (len(flood["output"]), flood["code"], flood["ended"]) == (
                1 << 12,
                None,
                "more than 4096 bytes of output",
            )
            assert (slow["output"], slow["code"], slow["ended"]) == ("", None, "not done after 1 seconds")
            assert refused == 422
            async with aio.open_store(config=config) as store:
                assert [box.name for box in await store.containers()] == ["sandbox-warm"]

    asyncio.run(work())
    with layerstore.open(config=config) as store:
        assert store.containers() == []
        assert store.check() == []
