"""What is allowed in a Dockerfile and probably not meant: BuildKit's checks, by their names. Pure.

`check` looks at a plan, so that it sees what will be done, in the scope in which it will be done; `# check=skip=NAME`
at the top of the file or right above an instruction silences it, `# check=error=true` makes its findings errors.
"""

from layerstore.build.checks.asking import asked_of_context
from layerstore.build.checks.checking import check, refuse
from layerstore.build.checks.rules import RULES, Rule
from layerstore.build.checks.settings import Settings, settings_of

__all__ = ["RULES", "Rule", "Settings", "asked_of_context", "check", "refuse", "settings_of"]
