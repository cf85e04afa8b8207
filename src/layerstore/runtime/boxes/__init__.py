"""Programs in containers as `subprocess` has them, and programs in containers that run already.

`start` is what `Container.popen`, `run` and `arun` find by their entry point. `box` is a program that was started,
`piping` what goes through its pipes; `executing` is `exec`.
"""

from layerstore.runtime.boxes.starting import start

__all__ = ["start"]
