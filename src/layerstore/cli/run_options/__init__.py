"""docker's options of `run` and `create`, from words to `RunOptions`.

`declared` are the options as click has them, `values`, `mounts`, `ports` and `pairs` what their values mean, `assembly`
puts them together. Nothing here knows a store; all but `declared` know nothing of click.
"""

from layerstore.cli.run_options.assembly import run_options_of
from layerstore.cli.run_options.declared import many, one, run_options, switch

__all__ = ["many", "one", "run_options", "run_options_of", "switch"]
