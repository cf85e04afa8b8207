"""One stage, from its base to its last line: what each instruction makes of the state so far."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from attrs import evolve

from layerstore import KernelError, LayerstoreError, StoredLayer
from layerstore.build.cache import step_key
from layerstore.build.errors import BuildError
from layerstore.build.events import Doing
from layerstore.build.graph import PlannedStage
from layerstore.build.language import (
    Add,
    Copy,
    Instruction,
    Maintainer,
    Run,
    RunMount,
    Workdir,
    apply_config,
    history_line,
)
from layerstore.build.steps import run as running
from layerstore.build.steps.copy import copied
from layerstore.build.steps.origins import Origin
from layerstore.build.steps.run import Box
from layerstore.build.steps.state import StageState
from layerstore.build.steps.work import Record, Work
from layerstore.build.steps.workdir import make_folder

__all__ = ["build_stage", "counted"]

LAYERED = (Run, Copy, Add, Workdir)
"""What may make a layer, and is told of as a step."""


def counted(planned: PlannedStage) -> int:
    """How many steps a stage tells of: its FROM is one, unless that is nothing or a stage of this build."""
    return _begin(planned) + sum(isinstance(instruction, LAYERED) for instruction in planned.stage.instructions)


def _begin(planned: PlannedStage) -> int:
    return int(planned.base.kind in ("image", "context"))


def build_stage(work: Work, planned: PlannedStage, state: StageState, prefix: str) -> StageState:
    """The state after its last line. `prefix` is what its steps are called by, if they have to be told apart."""
    with ExitStack() as after:
        box = Box(work)
        after.callback(box.close)
        walk = _Walk(work, planned, box, prefix)
        for instruction in planned.stage.instructions:
            work.stop.check()
            state = walk.step(state, instruction)
        return state


class _Walk:
    def __init__(self, work: Work, planned: PlannedStage, box: Box, prefix: str) -> None:
        self._work = work
        self._planned = planned
        self._box = box
        self._prefix = prefix
        self._number = _begin(planned)
        self._total = counted(planned)
        stage = planned.stage
        self._anew = work.options.no_cache or bool({stage.shown, str(stage.index)} & set(work.options.no_cache_filter))

    def step(self, state: StageState, written: Instruction) -> StageState:
        """The state after one line."""
        scope = state.scope
        instruction = scope.expand(written)
        line = history_line(instruction, scope, state.run)
        layer: StoredLayer | None = None
        before, created = state, self._work.told_always
        if isinstance(instruction, LAYERED):
            self._number += 1
            width = len(str(self._total))
            title = f"[{self._prefix}{self._number:{width}}/{self._total}] {scope.shown(instruction)}"
            with self._work.teller.doing(title, instruction.place) as doing, _placed(instruction):
                layer = self._layer(state, instruction, doing)
            state = state.stacked(layer)
            created = self._work.told(doing.made)
        run = apply_config(state.run, instruction, command_given=scope.command_given)
        facts: Mapping[str, Any] = state.facts
        if isinstance(instruction, Maintainer):
            facts = {**facts, "author": instruction.author}
        state = evolve(state, run=run, facts=facts, scope=scope.after(instruction))
        if line is not None:
            state = state.told(line, created, empty=state.top == before.top)
        return state

    def _layer(self, state: StageState, instruction: Instruction, doing: Doing) -> StoredLayer | None:
        work = self._work
        if isinstance(instruction, Run):
            origins = partial(self._origin_of, instruction)
            keys = running.keys_of(work, instruction, state, state.scope, origins)

            def make(record: Record) -> StoredLayer | None:
                return running.run(work, self._box, instruction, state, state.scope, doing, origins, record)

            return work.layered(doing, keys, make, parent=state.top, anew=self._anew)
        if isinstance(instruction, Workdir):
            return self._workdir(state, instruction, doing)
        assert isinstance(instruction, Copy | Add)
        base = None if not instruction.from_ else self._planned.sources[instruction.from_]
        return copied(work, instruction, state, doing, base, anew=self._anew)

    def _origin_of(self, instruction: Run, mount: RunMount) -> Origin:
        base = None if not mount.from_ else self._planned.sources[mount.from_]
        return self._work.sources.find(base, instruction.place)

    def _workdir(self, state: StageState, instruction: Workdir, doing: Doing) -> StoredLayer | None:
        work = self._work
        run = apply_config(state.run, instruction, command_given=False)
        path = posixpath.normpath(str(run["WorkingDir"]))
        words = json.dumps({"workdir": path, "user": state.user})

        def key() -> str:
            return step_key(state.top, words, {}, epoch=work.epoch)

        def make(record: Record) -> StoredLayer | None:
            return make_folder(
                work.store, state.top, path, state.user, latest=work.latest, place=instruction.place, record=record
            )

        return work.layered(doing, [key], make, parent=state.top, anew=self._anew)


class _placed:
    """What the store says of a step is told with the line that it is about."""

    def __init__(self, instruction: Instruction) -> None:
        self._instruction = instruction

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LayerstoreError) and not isinstance(error, BuildError):
            raise BuildError(error.message, place=self._instruction.place, remedy=error.remedy) from error
        if isinstance(error, OSError):
            known = KernelError("file access", error.errno or 0, path=error.filename)
            raise BuildError(known.message, place=self._instruction.place, remedy=known.remedy) from error
