"""The life of containers that run: made, started, stopped, removed; what each does now, and what the dead left.

`rows` is what is remembered, `state` what that means now, `places` where files lie. `starting` starts a container, with
a bundle made by `bundling`; `ending` is its end; `recovery` puts in order what was broken off.
"""

from layerstore.runtime.life.runtime import Runtime
from layerstore.runtime.life.state import RunState

__all__ = ["RunState", "Runtime"]
