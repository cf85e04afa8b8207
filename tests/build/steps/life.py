"""A process that builds an image, and is killed at one line of the source: see test_killed.py.

Its arguments: data-root, exec-root, context, and the number of the line, counted over all that it executes of what
builds; 0 is none. It writes what has ended, a line each, and at last how many lines there were.
"""

from __future__ import annotations

import sys
from pathlib import Path

import layerstore
from layerstore.build import build
from layerstore.build.events import Ended, Event
from layerstore.build.steps import guarding
from support.lines import Lines

ROOMS = ("/build/steps/", "/build/building.py", "/build/cache/")

DOCKERFILE = """\
FROM base AS one
RUN echo 1 > /one
WORKDIR /made
RUN --mount=type=cache,target=/c echo 2 > two

FROM base
RUN --mount=type=bind,from=one,source=/made,target=/m,rw cp /m/two /two; echo > /m/three
COPY file /deep/file
COPY --link --from=one /one /linked/
RUN true
RUN rm /bin/yes && mkdir /new && --help || true
CMD ["sh"]
"""


def settings(data_root: Path, exec_root: Path) -> layerstore.Config:
    """The store's configuration."""
    return layerstore.Config(data_root=data_root, exec_root=exec_root, storage_driver="overlay2")


def tell(event: Event) -> None:
    """Write down the steps that have ended."""
    if isinstance(event, Ended) and event.error is None and event.vertex.place is not None:
        print(event.vertex.title, flush=True)


if __name__ == "__main__":
    data_root, exec_root, context, number = sys.argv[1:]
    guarding.LATER = 600.0  # what is left is to be there for whoever builds next
    lines = Lines(ROOMS, int(number))
    with layerstore.open(config=settings(Path(data_root), Path(exec_root))) as opened, lines.counted():
        build(opened, context, tags=["built"], source_date_epoch=1_600_000_000, progress=tell)
    print(lines.count)
