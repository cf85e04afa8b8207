"""`attach`: our streams become those of a container that runs already, held by conmon."""

from __future__ import annotations

from contextlib import suppress

from layerstore import Container, LayerstoreError
from layerstore.runtime.errors import NotRunning
from layerstore.runtime.life import Runtime
from layerstore.runtime.streams import Attachment, End, Streams

__all__ = ["attach"]


def attach(runtime: Runtime, container: Container, streams: Streams) -> int:
    """`Runtime.attach`."""
    state = runtime.state(container)
    if not state.is_running:
        raise NotRunning(
            "You cannot attach to a stopped container, start it first",
            remedy=f"To start it: layerstore start {container.name}",
        )
    if state.status == "paused":
        raise NotRunning(
            "You cannot attach to a paused container, unpause it first",
            remedy=f"To let it go on: layerstore unpause {container.name}",
        )
    folder = runtime.folder(container).path
    if not (folder / "attach").exists():
        raise NotRunning(
            f"the streams of container {container.name} are those of the command that runs it",
            remedy="It was started in the foreground with --rm. `exec` runs another program in it.",
        )
    options = runtime.options(container)

    def send(number: int) -> None:
        with suppress(LayerstoreError):  # it has ended meanwhile
            runtime.kill(container, number)

    with Attachment(folder) as attached:
        end = attached.relay(streams, tty=options.tty, takes_input=options.interactive, signal=send)
    return 0 if end is End.DETACHED else runtime.wait(container)
