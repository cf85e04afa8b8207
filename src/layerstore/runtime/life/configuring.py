"""How a container is run, as an image would say it: what its image says, with what it was made with over it.

It is what `commit` gives to the new image, as docker does (moby, daemon/commit.go), and what `inspect` tells, which
adds what the container alone has: its names, streams and volumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from layerstore.runtime.bundle.process import environment
from layerstore.runtime.options import HealthCheck, RunOptions

__all__ = ["configured"]


def configured(said: Mapping[str, Any], options: RunOptions) -> dict[str, Any]:
    """`said`, the section `config` of an image's config, after `options`. What no option is about stays as it is."""
    found = dict(said)
    if options.env:
        found["Env"] = environment(said.get("Env") or (), options.env)
    if options.entrypoint is not None:
        for name in ("Entrypoint", "Cmd"):  # what the image's command was meant for is gone
            found.pop(name, None)
    if options.entrypoint:
        found["Entrypoint"] = list(options.entrypoint)
    if options.args:
        found["Cmd"] = list(options.args)
    if options.labels:
        found["Labels"] = {**(said.get("Labels") or {}), **options.labels}
    if options.ports:
        ports: dict[str, object] = {f"{port.container}/{port.protocol}": {} for port in options.ports}
        found["ExposedPorts"] = {**(said.get("ExposedPorts") or {}), **ports}
    if options.health is not None:
        found["Healthcheck"] = _health(said.get("Healthcheck") or {}, options.health)
    alone = {"User": options.user, "WorkingDir": options.working_dir, "StopSignal": options.stop_signal}
    return found | {name: value for name, value in alone.items() if value}


def _health(said: Mapping[str, Any], given: HealthCheck) -> dict[str, Any]:
    if given.disabled:
        return {"Test": ["NONE"]}
    seconds = {
        "Interval": given.interval,
        "Timeout": given.timeout,
        "StartPeriod": given.start_period,
        "StartInterval": given.start_interval,
    }
    found = {**said, **{name: round(value * 1e9) for name, value in seconds.items() if value}}  # 0 is what is said
    if given.retries:
        found["Retries"] = given.retries
    return found | ({"Test": list(given.test)} if given.test else {})
