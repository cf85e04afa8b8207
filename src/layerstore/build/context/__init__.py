"""Where COPY and ADD read from: the build context and others by name, and what their sources mean in a tree.

`context` opens them, `ignore` knows `.dockerignore`, `tree` finds what a source means, `digests` tells it by its
content and remembers what was read (`rows`).
"""

from layerstore.build.context.context import Context, Text, open_context
from layerstore.build.context.digests import Digests
from layerstore.build.context.ignore import Ignore
from layerstore.build.context.tree import Chosen, Tree

__all__ = ["Chosen", "Context", "Digests", "Ignore", "Text", "Tree", "open_context"]
