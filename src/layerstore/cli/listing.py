"""Lists and objects in the form that `--format` asks for: a table, JSON, a template, or a table by a template.

A command says once which columns there are and which of them its table has; values are computed when they are shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import click

from layerstore.cli import output
from layerstore.cli.table import aligned
from layerstore.errors import NotFound
from layerstore.values import frozen

if TYPE_CHECKING:
    from layerstore.cli.template import Template

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_TABLE: Final = "table"


@frozen
class Column(Generic[T]):
    """One thing to know of each row. `listed`: it is in `{{json .}}`, too; a costly one and a method are not."""

    heading: object
    value: Callable[[T], object]
    listed: bool = True


@frozen
class Form:
    """How to show something. Without a template: as the command does by itself."""

    template: Template | None = None
    is_table: bool = False
    is_json: bool = False

    @classmethod
    def of_rows(cls, text: str | Form) -> Form:
        """The value of `--format` of a list, which can be a table, and where `\\t` is a tab."""
        if isinstance(text, str) and text.split(None, 1)[:1] == [_TABLE]:
            rest = text.strip()[len(_TABLE) :].strip()
            return cls(_template(rest, escapes=True) if rest else None, is_table=True)
        return cls.of_object(_each(text) if isinstance(text, str) else text, escapes=True)

    @classmethod
    def of_object(cls, text: str | Form, *, escapes: bool = False) -> Form:
        """The value of `--format` of objects."""
        if isinstance(text, Form):
            return text
        return cls(_template("{{json .}}" if text == "json" else text, escapes=escapes), is_json=text == "json")


def _each(text: str) -> str:
    """What podman lets a template of a list say, `{{range .}}ROW{{end}}`, as the ROW: each is rendered alone here."""
    found = re.fullmatch(r"\{\{-?\s*range\s+\.\s*-?\}\}(.*)\{\{-?\s*end\s*-?\}\}", text.strip(), re.DOTALL)
    if found is None or re.search(r"\{\{-?\s*end\s*-?\}\}.*\{\{-?\s*range\s+\.\s*-?\}\}", found[1], re.DOTALL):
        return text
    return found[1].removesuffix("\n").removesuffix("\\n")


def _template(text: str, *, escapes: bool) -> Template:
    from layerstore.cli.template import Template, TemplateError

    try:
        return Template(text, escapes=escapes)
    except TemplateError as wrong:
        raise click.BadParameter(wrong.message) from None


def format_option(*names: str, rows: bool) -> Callable[[F], F]:
    """The option `--format` of a command that shows a list (`rows`) or objects."""
    forms = "table, table TEMPLATE, json or TEMPLATE" if rows else "json or TEMPLATE"
    return click.option(
        *(names or ("--format",)),
        "form",
        type=Form.of_rows if rows else Form.of_object,
        default=Form(),
        metavar="FORMAT",
        help=f"Form of the output: {forms}",
    )


def heading_option(*names: str) -> Callable[[F], F]:
    """podman's option of a list to leave the headings of its table out."""
    return click.option(*names, "--noheading", "bare", is_flag=True, help="Leave the headings out")


def show_rows(
    subjects: Iterable[T],
    columns: Mapping[str, Column[T]],
    form: Form,
    usual: str,
    quiet: str | None = None,
    *,
    bare: bool = False,
) -> None:
    """Print one row a subject. `usual` is the template of the command's own table, `quiet` that of `-q` if it is on.

    `bare`: a table has no headings.
    """
    lines = rows(subjects, columns, form, usual, quiet)
    is_table = form.is_table or (form.template is None and quiet is None)
    output.lines(islice(lines, 1, None) if bare and is_table else lines)


def rows(
    subjects: Iterable[T], columns: Mapping[str, Column[T]], form: Form, usual: str, quiet: str | None = None
) -> Iterator[str]:
    """The lines of `show_rows`."""
    if form.template is not None and not form.is_table:
        yield from _rendered(subjects, columns, form.template)
    elif quiet is not None:
        yield from _plain(subjects, columns, quiet)
    elif form.template is not None:
        head = form.template.render_headings({name: column.heading for name, column in columns.items()})
        yield from aligned(chain([head], _rendered(subjects, columns, form.template)))
    else:
        head = "\t".join(str(columns[name].heading) for name in _names(usual))
        yield from aligned(chain([head], _plain(subjects, columns, usual)))


def _rendered(subjects: Iterable[T], columns: Mapping[str, Column[T]], template: Template) -> Iterator[str]:
    from layerstore.cli.record import Row

    for subject in subjects:
        # What a list shows came with it; what has to be asked for, as a size, may be gone since, and its row with it.
        with suppress(NotFound):
            yield template.render(Row(columns, subject))


def _plain(subjects: Iterable[T], columns: Mapping[str, Column[T]], own: str) -> Iterator[str]:
    """The same by a command's own template: columns alone, with tabs between, for which no templates are imported."""
    values = [columns[name].value for name in _names(own)]
    for subject in subjects:
        with suppress(NotFound):
            yield "\t".join(_shown(value(subject)) for value in values)


def _names(own: str) -> list[str]:
    return [field.removeprefix("{{.").removesuffix("}}") for field in own.split("\t")]


def _shown(value: object) -> str:
    if isinstance(value, str):
        return value
    from layerstore.cli.template.values import shown

    return shown(value)


def label_heading(name: str) -> str:
    """The heading of a column of one label: the last part of its name."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def show_object(value: object, form: Form) -> None:
    """Print one object by a template, or as JSON."""
    from layerstore.cli.template import as_json

    output.lines([form.template.render(value) if form.template is not None else as_json(value, indent=4)])
