"""What a stage is between two of its instructions: pure values, and the config of an image that is made of them."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attrs import evolve

from layerstore import ChainID, DiffID, Image, ImageID, Store, StoredLayer
from layerstore.build.language import Scope, begin_config
from layerstore.values import frozen

__all__ = ["COMMENT", "StageState", "config_of", "moment", "on_image", "on_layers", "on_nothing"]

COMMENT = "buildkit.dockerfile.v0"
"""What BuildKit says of each step that a Dockerfile has made; tools look for it."""

_KEPT = ("architecture", "variant", "os", "os.version", "os.features")


@frozen
class StageState:
    """A stack of layers, and what an image of it says.

    `facts` are the members of an image's config beside its parts, `run` is its run configuration (`config`). `made` are
    the steps of this build, by the index in `history` at which they begin.
    """

    top: ChainID | None
    diff_ids: tuple[DiffID, ...]
    facts: Mapping[str, Any]
    run: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...]
    made: int
    base: ImageID | None
    began: str
    """When the base was made; "" if it does not say."""
    scope: Scope

    @property
    def working_dir(self) -> str:
        """Where programs begin, without `..`, which an image's config may have; "" where nothing says so."""
        written = str(self.run.get("WorkingDir") or "")
        return written and posixpath.normpath(written)

    @property
    def user(self) -> str:
        """Who they run as."""
        return str(self.run.get("User") or "")

    def stacked(self, layer: StoredLayer | None) -> StageState:
        """The same with one layer more; None: nothing was written."""
        if layer is None:
            return self
        return evolve(self, top=layer.chain_id, diff_ids=(*self.diff_ids, layer.diff_id))

    def told(self, line: str, created: str | None, *, empty: bool) -> StageState:
        """The same with a line of history more. `created`: None is the time of the line before."""
        step: dict[str, Any] = {"comment": COMMENT, "created_by": line}
        if created is not None:
            step["created"] = created
        if empty:
            step["empty_layer"] = True
        return evolve(self, history=(*self.history, step))


def on_nothing(platform: Mapping[str, str], scope: Scope) -> StageState:
    """`FROM scratch`."""
    run = {**begin_config(None), "WorkingDir": "/"}
    return StageState(None, (), dict(platform), run, (), 0, None, "", scope)


def on_layers(store: Store, top: ChainID | None, platform: Mapping[str, str], scope: Scope) -> StageState:
    """`FROM` a folder, which has become layers."""
    found: list[DiffID] = []
    chain = top
    while chain is not None:
        layer = store.layer(chain)
        found.append(layer.diff_id)
        chain = layer.parent
    state = on_nothing(platform, scope)
    history: tuple[Mapping[str, Any], ...] = ({},) * len(found)
    return evolve(state, top=top, diff_ids=tuple(reversed(found)), history=history, made=len(history))


def on_image(image: Image, scope: Scope) -> StageState:
    """`FROM` an image."""
    config = image.config
    run = begin_config(config.get("config"))
    history = _whole(config, len(image.layers))
    facts = {name: config[name] for name in (*_KEPT, "author") if config.get(name)}
    return StageState(image.chain_id, image.layers, facts, run, history, len(history), image.id, image.created, scope)


def _whole(config: Mapping[str, Any], layers: int) -> tuple[Mapping[str, Any], ...]:
    """The lines of an image's history, with one for each layer of which it tells nothing."""
    lines = tuple(config.get("history") or ())
    told = sum(not line.get("empty_layer") for line in lines)
    return (*lines, *({} for _ in range(layers - told)))


def config_of(
    state: StageState, now: str, always: str | None, *, labels: Mapping[str, str], more: Mapping[str, Any] = {}
) -> bytes:
    """The config of an image of this state, in the one form that images made here have.

    It tells when its steps were made, which may have been in builds before. A line that makes nothing has the time of
    the one before, as in BuildKit, so that a build in which all is known gives the image that there is. `now` is the
    time where no line and no base has one, `always` that of all of it, if there is one.
    """
    history = _timed(state, now)
    last = str(history[-1]["created"]) if len(history) > state.made else state.began or now
    run = dict(state.run)
    if labels:
        run["Labels"] = {**(run.get("Labels") or {}), **labels}
    config: dict[str, Any] = {
        **state.facts,
        **more,
        "created": always or last,
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": list(state.diff_ids)},
        "history": history,
    }
    return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode(errors="replace")


def _timed(state: StageState, now: str) -> list[Mapping[str, Any]]:
    """The lines, those of this build with the times that they lack."""
    own = state.history[state.made :]
    time = next((str(line["created"]) for line in own if "created" in line), state.began or now)
    found = list(state.history[: state.made])
    for line in own:
        time = str(line.get("created", time))
        found.append({**line, "created": time})
    return found


def moment(ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 has them, as Go writes them."""
    seconds, fraction = divmod(ns, 10**9)
    digits = f".{fraction:09d}".rstrip("0") if fraction else ""
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}{digits}Z"
