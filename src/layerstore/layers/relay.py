"""A tar from something that writes to something that reads: two threads and a pipe between them.

Used where a stored layer becomes another one (unpacked again on other parents, a commit of what is mounted), so that
nothing is ever spooled or held in memory.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO

from layerstore.errors import named
from layerstore.kernel.files.descriptors import file_of

_CAPACITY = 1 << 20

Write = Callable[[memoryview], object]


@contextmanager
def relay(produce: Callable[[Write], object]) -> Iterator[FileIO]:
    """A stream of what `produce` passes to the function it is given.

    When both sides fail, the producer's error is raised: the reader merely saw the end too early. A reader that leaves
    early stops the producer.
    """
    with named("pipe2"):
        reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _CAPACITY)
    except OSError:
        pass  # over the user's limit of pipe pages, or no memory for them: slower, no less right
    failure: list[BaseException] = []

    def write(data: memoryview) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[os.write(writing, rest) :]

    def run() -> None:
        try:
            produce(write)
        except BrokenPipeError:
            pass  # the reader has gone, and knows why
        except BaseException as error:
            failure.append(error)
        finally:
            os.close(writing)

    thread = threading.Thread(target=run, name="layerstore-relay", daemon=True)
    try:
        thread.start()
    except Exception:  # there are too many, or there is no memory for one
        os.close(reading)
        os.close(writing)
        raise
    try:
        with file_of(reading) as stream:
            yield stream
    except BaseException as error:
        thread.join()
        if failure and isinstance(error, Exception):
            raise failure[0] from error
        raise
    thread.join()
    if failure:
        raise failure[0]
