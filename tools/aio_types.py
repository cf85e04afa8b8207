#!/usr/bin/env python3
"""Writes down the types of `layerstore.aio`, whose classes are made at run time: `python -m tools.aio_types`.

They are read off the classes of the library by the same rules by which the faces are made.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tools import interface

import layerstore
from layerstore.aio import THREADS
from layerstore.aio.faces import ENTERED, FACES, Shape, attributes

FILE = Path(__file__).parent.parent / "src/layerstore/aio/__init__.pyi"

_HEAD = "# Made by `python -m tools.aio_types`. Not to be edited.\n\nfrom __future__ import annotations\n\n"

_FACED = {"HasTree": " | Checkpoint | Container | Image", "VolumeOwner": " | Container"}
"""What of faces is taken where what has a tree is."""

_OWN = """\
from layerstore.aio.openings import Context as Context
from layerstore.aio.openings import Iteration as Iteration
from layerstore.aio.openings import Lock as Lock
from layerstore.aio.openings import Opening as Opening
from layerstore.aio.streams import Stream as Stream
from layerstore.aio.threads import THREADS as THREADS

_T = TypeVar("_T")

async def call(function: Callable[..., _T], /, *arguments: Any, **named: Any) -> _T: ...
"""


class Writer:
    """The stub as it is written: what it needs from elsewhere is known at its end."""

    def __init__(self) -> None:
        self.modules: set[str] = {"layerstore"}
        self.names: dict[str, set[str]] = {
            "collections.abc": {"Callable", "Coroutine", "Sequence"},
            "pathlib": {"Path"},
            "types": {"TracebackType"},
            "typing": {"Any", "TypeVar"},
        }
        self.public = [(module, name, thing) for module, name, thing in interface.names(but="layerstore.aio")]

    def text(self) -> str:
        classes = "\n".join(self.class_(name) for name in _in_order())
        opened = inspect.unwrap(layerstore.open)
        given = f"{self.parameters(opened, 'Store')}, threads: int = {THREADS}"
        opening = f"def open_store({given}) -> Opening[Store, Store]: ...\n"
        imports = [f"import {module}\n" for module in sorted(self.modules)]
        imports += [
            f"from {module} import {', '.join(sorted(found))}\n" for module, found in sorted(self.names.items())
        ]
        return _HEAD + "".join(imports) + "\n" + _OWN + opening + "\n" + classes

    def class_(self, name: str) -> str:
        kind = getattr(import_module(FACES[name]), name)
        above = [base.__name__ for base in kind.__mro__[1:] if base.__name__ in FACES]
        inherited = {one for base in kind.__mro__[1:] if base.__name__ in FACES for one, *_ in attributes(base)}
        lines = [f"class {name}({above[0]}):" if above else f"class {name}:"]
        if not above:
            lines += ["    @property", f"    def sync(self) -> {FACES[name]}.{name}: ..."]
            self.modules.add(FACES[name])
        if name == "Runtime":
            lines.append("    def __init__(self, store: Store) -> None: ...")
        for attribute, shape, thing in sorted(attributes(kind), key=lambda found: found[0]):
            if attribute not in inherited or attribute in vars(kind):
                lines += [f"    {line}" for line in self.attribute(name, kind, attribute, shape, thing)]
        if name in ENTERED:
            entered = self.type_(kind.__enter__, inspect.unwrap(kind.__enter__).__annotations__["return"], name)
            lines += [
                f"    async def __aenter__(self) -> {entered}: ...",
                "    async def __aexit__(",
                "        self,",
                "        kind: type[BaseException] | None,",
                "        error: BaseException | None,",
                "        trace: TracebackType | None,",
                "    ) -> None: ...",
            ]
        if hasattr(kind, "__fspath__"):
            lines.append("    def __fspath__(self) -> str: ...")
        return "\n".join([*lines, ""])

    def attribute(self, of: str, kind: type, name: str, shape: int, thing: Any) -> Iterator[str]:
        if of == "Store" and name == "lock":
            yield "def lock(self, name: str, *, shared: bool = False, wait: bool = True) -> Lock: ..."
            return
        if shape in (Shape.AT_ONCE, Shape.FACE, Shape.AWAITED):
            found = self.type_(*_of_property(kind, name, thing), of).replace("IO[Any]", "Stream")
            yield "@property"
            yield f"def {name}(self) -> {f'Coroutine[Any, Any, {found}]' if shape == Shape.AWAITED else found}: ..."
            return
        function = inspect.unwrap(thing)
        returned = self.type_(function, function.__annotations__["return"], of)
        if shape == Shape.ITERATION:
            returned = "Iteration" + returned.removeprefix("Iterator")
        elif shape == Shape.CONTEXT:
            returned = "Context" + returned.removeprefix("AbstractContextManager").removeprefix("Iterator")
        elif shape == Shape.OPENING:
            entered = getattr(import_module(FACES[returned]), returned).__enter__
            inside = self.type_(entered, inspect.unwrap(entered).__annotations__["return"], returned)
            returned = f"Opening[{returned}, {inside}]"
        word = "async def" if shape == Shape.METHOD else "def"
        yield f"{word} {name}({self.parameters(function, of)}) -> {returned}: ..."

    def parameters(self, function: Callable[..., Any], of: str) -> str:
        found, has_star = [], False
        for parameter in inspect.signature(function).parameters.values():
            name = parameter.name
            if parameter.kind is parameter.KEYWORD_ONLY and not has_star:
                found.append("*")
                has_star = True
            if parameter.kind is parameter.VAR_POSITIONAL:
                name, has_star = f"*{name}", True
            if parameter.kind is parameter.VAR_KEYWORD:
                name = f"**{name}"
            if parameter.annotation is not parameter.empty:
                name += f": {self.type_(function, parameter.annotation, of)}"
            if parameter.default is not parameter.empty:
                simple = type(parameter.default) in (bool, int, str, float, type(None)) or parameter.default == ()
                name += f" = {parameter.default!r}" if simple else " = ..."
            found.append(name)
        return ", ".join(found)

    def type_(self, function: Any, text: str, of: str) -> str:
        """An annotation of the library as it is in a face."""
        module = sys.modules[inspect.unwrap(function).__module__]
        tree: ast.AST = _Faced(self, module, of).visit(ast.parse(text, mode="eval"))
        return ast.unparse(tree)

    def elsewhere(self, name: str, module: ModuleType) -> str:
        """How the stub calls what a name means in a module."""
        meant = interface.meaning(name, module)
        home, own = interface.imports(module).get(name, (module.__name__, name))
        return self.called(meant, home, own)

    def called(self, meant: Any, home: str, own: str) -> str:
        """How it calls that, which a module has under some name."""
        for place, public, thing in self.public:
            if thing is meant or (not isinstance(meant, type) and type(thing) is type(meant) and thing == meant):
                self.modules.add(place)
                return f"{place}.{public}" + _FACED.get(public, "")
        if hasattr(builtins, own):
            return own
        assert not home.startswith("layerstore"), f"{home}.{own} is not public"
        self.names.setdefault(home, set()).add(own)
        return own


class _Faced(ast.NodeTransformer):
    """Classes that have a face become that, but for what a function of the caller is given."""

    def __init__(self, writer: Writer, module: ModuleType, of: str) -> None:
        self._writer = writer
        self._module = module
        self._of = of
        self._is_callback = False

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        before = self._is_callback
        if isinstance(node.value, ast.Name):
            if node.value.id == "Literal":
                self.visit(node.value)
                return node
            self._is_callback = before or node.value.id == "Callable"
        node.value, node.slice = self.visit(node.value), self.visit(node.slice)
        self._is_callback = before
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        name = node.id
        if name == "Self":
            return ast.Name(self._of)
        if name in FACES and not self._is_callback:
            meant = interface.meaning(name, self._module)
            if meant is getattr(import_module(FACES[name]), name):
                return ast.Name(name)
        return ast.Name(self._writer.elsewhere(name, self._module))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        assert isinstance(node.value, ast.Name)
        module = interface.meaning(node.value.id, self._module)
        return ast.Name(self._writer.called(getattr(module, node.attr), module.__name__, node.attr))

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            parsed: ast.AST = self.visit(ast.parse(node.value, mode="eval").body)
            return parsed
        return node


def _in_order() -> list[str]:
    """What is derived comes after what it derives from."""
    kinds = {name: getattr(import_module(home), name) for name, home in FACES.items()}
    return sorted(FACES, key=lambda name: (len([base for base in kinds[name].__mro__ if base.__name__ in FACES]), name))


def _of_property(kind: type, name: str, thing: Any) -> tuple[Any, str]:
    if isinstance(thing, property | cached_property):
        function = interface.function_of(thing)
        assert function is not None
        return function, function.__annotations__["return"]
    for base in kind.__mro__:
        text = vars(base).get("__annotations__", {}).get(name)
        if text is not None:
            return base, text if isinstance(text, str) else text.__name__
    raise LookupError(f"nothing says what {kind.__name__}.{name} is")


def stub() -> str:
    """The stub, as it should be."""
    return Writer().text()


if __name__ == "__main__":
    FILE.write_text(stub())
