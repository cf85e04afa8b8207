"""What is public: the modules, their names, and what the signatures of these speak of.

Read by the tests that hold it, by `aio_types.py`, which writes down the types of `layerstore.aio`, and by `make docs`.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

MODULES = (
    "layerstore",
    "layerstore.aio",
    "layerstore.blobs",
    "layerstore.build",
    "layerstore.driver",
    "layerstore.faces.serve",
    "layerstore.fs",
    "layerstore.looking",
    "layerstore.patterns",
    "layerstore.platforms",
    "layerstore.reference",
    "layerstore.registry",
    "layerstore.repositories",
    "layerstore.runtime",
)
"""Those whose `__all__` is the interface, at each of their names. `layerstore.testing` has its own page."""


class Member(NamedTuple):
    """A public function, method or property, or a class."""

    name: str
    """`layerstore.Store.load`."""
    thing: Any
    """As it is looked up."""
    function: Callable[..., Any] | None
    """What runs, without what is wrapped around it; None for a class."""


def names(*, but: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each public module (`but`: without that one), each of its names, and what that is."""
    for module in MODULES:
        if module == but:
            continue
        room = import_module(module)
        for name in room.__all__:
            yield module, name, getattr(room, name)


def members() -> Iterator[Member]:
    """All of them, each once, under the name at which it is first met."""
    met: set[int] = set()
    for module, name, thing in names():
        if id(thing) in met or isinstance(thing, ModuleType):
            continue
        if module == "layerstore.aio" and hasattr(thing, "sync"):
            continue  # a face says what the class behind it says
        met.add(id(thing))
        if isinstance(thing, type):
            yield Member(f"{module}.{name}", thing, None)
            for method, attribute, function in methods(thing):
                if is_private(function):
                    continue
                if id(function) not in met:
                    met.add(id(function))
                    yield Member(f"{module}.{name}.{method}", attribute, function)
        elif inspect.isroutine(thing):
            yield Member(f"{module}.{name}", thing, inspect.unwrap(thing))


def is_private(function: Callable[..., Any]) -> bool:
    """Does it say that it is the library's own, as pdoc has the word?"""
    return "@private" in (function.__doc__ or "")


def methods(kind: type) -> Iterator[tuple[str, Any, Callable[..., Any]]]:
    """The public methods and properties of a class, its bases' among them: name, attribute, what runs."""
    seen: set[str] = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("layerstore"):
            continue
        for name, attribute in vars(base).items():
            if name in seen or name.startswith("_"):
                continue
            seen.add(name)
            function = function_of(attribute)
            if function is not None and function.__module__.startswith("layerstore"):
                yield name, attribute, function


def function_of(attribute: Any) -> Callable[..., Any] | None:
    """What runs when it is called or looked up; None if that is nothing."""
    if isinstance(attribute, property):
        attribute = attribute.fget
    elif isinstance(attribute, cached_property):
        attribute = attribute.func
    elif isinstance(attribute, classmethod | staticmethod):
        attribute = attribute.__func__
    return inspect.unwrap(attribute) if inspect.isfunction(attribute) else None


def types_in(thing: Any) -> Iterator[tuple[str, str, ModuleType]]:
    """What a function, or a class of values by its public fields, says of types: of what, the text, where it stands."""
    for base in thing.__mro__ if isinstance(thing, type) else (thing,):
        if base.__module__.startswith("layerstore"):
            own = vars(base).get("__annotations__", {}) if isinstance(base, type) else base.__annotations__
            for name, text in own.items():
                if not isinstance(thing, type) or not name.startswith("_"):
                    yield name, _text(text), sys.modules[base.__module__]


def _text(annotation: Any) -> str:
    return str(getattr(annotation, "__forward_arg__", getattr(annotation, "__name__", annotation)))


def mentioned(text: str) -> Iterator[str]:
    """The names in an annotation."""
    for node in ast.walk(ast.parse(text, mode="eval")):
        if isinstance(node, ast.Name):
            yield node.id


def meaning(name: str, module: ModuleType) -> Any:
    """What a name means in a module, be it imported there for type checkers alone."""
    if name in vars(module):
        return vars(module)[name]
    if hasattr(builtins, name):
        return getattr(builtins, name)
    home, own = imports(module).get(name, ("", ""))
    if not home:
        raise LookupError(f"{module.__name__} knows no {name}")
    room = import_module(home)
    return getattr(room, own) if hasattr(room, own) else meaning(own, room)


@cache
def imports(module: ModuleType) -> dict[str, tuple[str, str]]:
    """What a module imports from elsewhere: name, whence, its name there."""
    found = {}
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = (node.module, alias.name)
    return found
