"""Where COPY and ADD read from: the build context and others by name, and what their sources mean in a tree.

`opening` finds what a context is by its name, with `git`, `fetching` and `archives`; `texts` finds the Dockerfile, and
`.dockerignore`, which `ignore` can read. `tree` finds what a source means, `digests` tells it by its content and
remembers what was read (`rows`).
"""

from layerstore.build.context.archives import is_tar
from layerstore.build.context.context import Context
from layerstore.build.context.digests import Digests
from layerstore.build.context.fetching import Fetched, Validators, fetched, fetched_unless, is_remote
from layerstore.build.context.git import GitRepository, checked_out, repository_of
from layerstore.build.context.ignore import Ignore
from layerstore.build.context.opening import Staging, open_context
from layerstore.build.context.texts import Text, ignore_names
from layerstore.build.context.tree import Chosen, Tree

__all__ = [
    "Chosen",
    "Context",
    "Digests",
    "Fetched",
    "GitRepository",
    "Ignore",
    "Staging",
    "Text",
    "Tree",
    "Validators",
    "checked_out",
    "fetched",
    "fetched_unless",
    "ignore_names",
    "is_remote",
    "is_tar",
    "open_context",
    "repository_of",
]
