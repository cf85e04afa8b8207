"""Go-like templates for `--format`: the part of Go's text/template, and of docker's functions, that people type.

Pure: a template and plain data (dicts, lists, strings, numbers, None) give a string. What it does not know it refuses
with `TemplateError`, naming the piece and what would have been right; it never prints Go's `%!d(string=a)`.
"""

from __future__ import annotations

from layerstore.cli.template.errors import TemplateError
from layerstore.cli.template.run import Template
from layerstore.cli.template.values import (
    NIL,
    NIL_LIST,
    NIL_MAP,
    Duration,
    OpenMap,
    Record,
    Shape,
    Struct,
    as_json,
    shaped,
)

__all__ = [
    "NIL",
    "NIL_LIST",
    "NIL_MAP",
    "Duration",
    "OpenMap",
    "Record",
    "Shape",
    "Struct",
    "Template",
    "TemplateError",
    "as_json",
    "shaped",
]
