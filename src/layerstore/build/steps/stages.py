"""The stages of a plan, each in a thread of its own: they begin at once, and wait for each other where they must.

A stage waits for its base before its first line, for others at the line that takes something from them. As many work
at the same time as there are cores. The first failure ends the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial

from layerstore.build.graph import Plan, PlannedStage
from layerstore.build.steps.state import StageState
from layerstore.build.steps.stopping import Stop, Stopped
from layerstore.build.steps.together import together

__all__ = ["Stages"]


class Stages:
    """What comes of the stages of a plan. `build` makes one; it is called in a thread of the stage's own."""

    def __init__(self, plan: Plan, build: Callable[[PlannedStage], StageState], stop: Stop) -> None:
        self._plan = plan
        self._build = build
        self._stop = stop
        self._results: Mapping[int, Future[StageState]] = {stage.index: Future() for stage in plan.stages}

    def state(self, index: int) -> StageState:
        """What a stage is at its end; waits for it. Raises `Stopped` if it will never be there."""
        try:
            return self._results[index].result()
        except Stopped:
            raise
        except BaseException:  # whoever failed has told of it
            raise Stopped from None

    def run(self) -> StageState:
        """Build them all; the state of the target. Raises what the first that failed has raised."""
        deeds = [partial(self._do, stage) for stage in self._plan.stages]
        together(deeds, self._stop, name="layerstore-stage")
        return self._results[self._plan.target].result()

    def _do(self, stage: PlannedStage) -> None:
        try:
            self._results[stage.index].set_result(self._build(stage))
        except BaseException as error:
            self._results[stage.index].set_exception(error)
            raise
