"""What leaves a public method is an error in words: `in_words`, a decorator of classes and functions.

Most calls that the system may refuse say themselves what they were about (`errors.named`, a driver's `blamed`). Where
one does not, Python's own `OSError` would get out. So what is public stands behind this door, which knows what was
asked, and of what; path and reason are the error's own. What a caller's own function raises is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import _GeneratorContextManager
from functools import cached_property, partial, wraps
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, TracebackType
from typing import Any, NoReturn, TypeVar

from layerstore.errors import KernelError, file_of

__all__ = ["in_words"]

T = TypeVar("T")

_SPECIAL = ("__enter__", "__exit__")
"""Methods that are public, whatever they are called."""

_FUNCTIONS = frozenset({FunctionType, MethodType, BuiltinFunctionType, partial})
_LATER = frozenset({GeneratorType, _GeneratorContextManager})

_ASYNCHRONOUS = 0x80 | 0x200
"""`inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR`, whose import would take longer than all else here."""

_THEIRS = "_of_callers"
"""An attribute of errors: the calls whose caller's function has raised it."""


def in_words(title: str) -> Callable[[T], T]:
    """Let every `OSError` of a public method become a `KernelError` that says what was asked of what, and the path.

    `title` says what an object is, and is formatted with it (`container {0.name}`) when there is an error; of a
    function it says what that does. What iterators and context managers raise that are returned is told, too, but not
    what is raised by those who are in the latter. `TimeoutError` says all that there is to say, and passes.
    """

    def decorate(thing: Any) -> Any:
        if not isinstance(thing, type):
            return _told(thing, title)
        for name, attribute in list(vars(thing).items()):
            if name.startswith("_") and name not in _SPECIAL:
                continue
            deed = f"{title}: {name.strip('_').replace('_', ' ')}"
            if isinstance(attribute, FunctionType) and not attribute.__code__.co_flags & _ASYNCHRONOUS:
                setattr(thing, name, _told(attribute, deed))
            elif isinstance(attribute, property) and attribute.fget is not None:
                setattr(thing, name, attribute.getter(_told(attribute.fget, deed)))
            elif isinstance(attribute, cached_property):
                attribute.func = _told(attribute.func, deed)
        return thing

    return decorate


def _told(function: Callable[..., Any], deed: str) -> Callable[..., Any]:
    @wraps(function)
    def told(*arguments: Any, **named: Any) -> Any:
        for one in (*arguments, *named.values()):
            if type(one) in _FUNCTIONS:
                return _Asked(deed, arguments).answered(function, named)
        try:
            result = function(*arguments, **named)
        except OSError as error:
            _Asked(deed, arguments).tell(error)
        return _Asked(deed, arguments).going_on(result) if type(result) in _LATER else result

    return told


class _Asked:
    """One call of a method."""

    __slots__ = ("_arguments", "_deed")

    def __init__(self, deed: str, arguments: tuple[Any, ...]) -> None:
        self._deed = deed
        self._arguments = arguments

    def answered(self, function: Callable[..., Any], named: Mapping[str, Any]) -> Any:
        """What the method returns that is given functions of the caller, whose errors are known again."""
        given = [self._marking(one) if type(one) in _FUNCTIONS else one for one in self._arguments]
        more = {name: self._marking(one) if type(one) in _FUNCTIONS else one for name, one in named.items()}
        try:
            return self.going_on(function(*given, **more))
        except OSError as error:
            self.tell(error)

    def going_on(self, result: Any) -> Any:
        """What was returned, with what may be raised later in words, too."""
        match result:
            case GeneratorType():
                return self._each(result)
            case _GeneratorContextManager():
                return _Entered(result, self)
        return result

    def tell(self, error: OSError) -> NoReturn:
        """Raise it in words, if it is not the caller's own."""
        if error.errno is None or isinstance(error, TimeoutError) or self in getattr(error, _THEIRS, ()):
            raise error
        deed, path = self._deed.format(*self._arguments[:1]), file_of(error)
        raise KernelError(deed if path is None else f"{deed}:", error.errno, path=path) from error

    def _marking(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def marked(*arguments: Any, **named: Any) -> Any:
            try:
                return function(*arguments, **named)
            except OSError as error:
                setattr(error, _THEIRS, (*getattr(error, _THEIRS, ()), self))
                raise

        return marked

    def _each(self, found: Iterator[T]) -> Iterator[T]:
        try:
            yield from found
        except OSError as error:
            self.tell(error)


class _Entered:
    """A context manager whose own errors are told, and not those of whoever is in it."""

    def __init__(self, inner: Any, asked: _Asked) -> None:
        self._inner = inner
        self._asked = asked

    def __enter__(self) -> Any:
        try:
            return self._inner.__enter__()
        except OSError as error:
            self._asked.tell(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        try:
            is_done: bool | None = self._inner.__exit__(kind, error, trace)
        except OSError as own:
            if own is error:
                raise
            self._asked.tell(own)
        return is_done
