"""What a template sees of one object of a list. Apart from `listing`, for only `--format` needs templates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from layerstore.cli.template import Record

if TYPE_CHECKING:
    from layerstore.cli.listing import Column

T = TypeVar("T")


class Row(Record, Generic[T]):
    """What a template sees of one object: its columns by name, computed when they are asked for."""

    def __init__(self, columns: Mapping[str, Column[T]], subject: T) -> None:
        self._columns = columns
        self._subject = subject

    def __getitem__(self, name: str) -> object:
        return self._columns[name].value(self._subject)

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def in_json(self) -> Iterable[str]:
        return (name for name in sorted(self._columns) if self._columns[name].listed)
