#!/usr/bin/env python3
"""The reference of all that is public, as pages in build/api: `make docs`. By pdoc, from the docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

import pdoc
from pdoc.doc import Module
from tools import interface

FOLDER = Path(__file__).parent.parent / "build" / "api"


def gather_members() -> None:
    """A class shows what it has of bases that nobody else knows."""
    public = {id(thing) for _, _, thing in interface.names()}
    for _, _, kind in interface.names():
        if isinstance(kind, type):
            for base in kind.__mro__[1:]:
                if base.__module__.startswith("layerstore") and id(base) not in public:
                    for name, thing in vars(base).items():
                        if not name.startswith("_") and name not in vars(kind):
                            setattr(kind, name, thing)


def without_constructors(doc: Module) -> None:
    """What is had from a store is not made by its reader: it is shown without a constructor."""
    for one in doc.classes:
        is_value = hasattr(one.obj, "__attrs_attrs__") and not any(
            field.name.startswith("_") for field in one.obj.__attrs_attrs__
        )
        if not is_value and not issubclass(one.obj, BaseException):
            one.members.pop("__init__", None)


def main() -> None:
    """Write the pages."""
    for module, name, thing in interface.names():
        setattr(sys.modules[module], name, thing)  # pdoc looks at what is there, not at what comes when it is asked for
    gather_members()
    pdoc.render.configure(docformat="markdown", show_source=False, footer_text="layerstore")
    every = {name: Module.from_name(name) for name in interface.MODULES}
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, page_of in every.items():
        without_constructors(page_of)
        page = FOLDER / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(pdoc.render.html_module(page_of, every))
    (FOLDER / "index.html").write_text(pdoc.render.html_index(every))
    (FOLDER / "search.js").write_text(pdoc.render.search_index(every))
    print(f"{len(every)} modules: {FOLDER}/index.html", file=sys.stderr)


if __name__ == "__main__":
    main()
