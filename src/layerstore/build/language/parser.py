"""The parser that reading stands on, or an error that says how to get it."""

from __future__ import annotations

from layerstore import LayerstoreError

try:
    from e2b_dockerfile_utils import (
        DockerfileAst,
        DockerfileInstruction,
        DockerfileSyntaxError,
        ShellLex,
        parse_dockerfile_ast,
    )
except ModuleNotFoundError as missing:
    if missing.name != "e2b_dockerfile_utils":
        raise
    raise LayerstoreError(
        "reading Dockerfiles needs the package e2b-dockerfile-utils, which is not installed",
        remedy="Install it with: pip install 'layerstore[build]'",
    ) from None

__all__ = ["DockerfileAst", "DockerfileInstruction", "DockerfileSyntaxError", "ShellLex", "parse_dockerfile_ast"]
