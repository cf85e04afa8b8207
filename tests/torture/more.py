"""Operations of the rooms above a store: a build without programs, and its cache."""

from __future__ import annotations

from collections.abc import Sequence

from layerstore.build import build
from layerstore.testing.torture import Operation, Place

DOCKERFILE = """\
FROM base:1 AS one
WORKDIR /made
COPY --chown=1:2 tree /d/
FROM base:1
COPY --link --from=one /d /linked
COPY <<END /said
text
END
LABEL a=b
"""


def _build(at: Place) -> None:
    context = at.exec_root / "context"
    context.mkdir(exist_ok=True)
    (context / "tree").mkdir(exist_ok=True)
    for path in (at.given / "tree").iterdir():
        (context / "tree" / path.name).write_bytes(path.read_bytes())
    (context / "Dockerfile").write_text(DOCKERFILE)
    build(at.store, context, tags=["built:1"], source_date_epoch=1_600_000_000)


MORE: Sequence[Operation] = (
    Operation("append", lambda at: at.store.image("made:1").append(at.given / "tree", tags=["grown:1"])),
    Operation("build", _build, has_steps=True),
)
