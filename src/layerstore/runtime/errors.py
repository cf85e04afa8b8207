"""What can go wrong with containers that run, besides `CannotRun`."""

from __future__ import annotations

from layerstore import CannotRun, LayerstoreError

__all__ = ["EngineNotFound", "NotRunning"]


class EngineNotFound(CannotRun):
    """No OCI runtime is installed, or none of that name."""

    usual_remedy = "Install one: `apt-get install crun`, or runc; or name another in daemon.json's `runtimes`."


class NotRunning(LayerstoreError):
    """What was asked needs a container that runs, or one that is paused, or one that is not."""

    usual_remedy = "`layerstore ps -a` shows what each container does."
