"""How things are written on the screen. Pure."""

from __future__ import annotations

import stat
from collections.abc import Iterator

from rich.text import Text

from layerstore.explore.model import Explored, File, Mark, Row
from layerstore.looking.sizes import size_in_words

__all__ = ["cell", "contents", "details", "file_label", "plain", "size", "summary", "waits"]

_ON_DARK = {Mark.ADDED: "#7ddc8a", Mark.CHANGED: "#ffb347", Mark.REMOVED: "#ff8a80 strike", Mark.KEPT: ""}
_ON_LIGHT = {Mark.ADDED: "#0b5a2b", Mark.CHANGED: "#6b3f00", Mark.REMOVED: "#9a1414 strike", Mark.KEPT: ""}
"""Each so far from what is behind it that it can be read."""
_HIDDEN = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_WIDTH = 16


def plain(text: str) -> str:
    """`text` without what a terminal would obey, and without what no terminal can show."""
    return text.translate(_HIDDEN).encode("utf-8", "backslashreplace").decode()


def cell(text: str) -> Text:
    """A cell of a table, in which brackets mean nothing."""
    return Text(plain(text))


def size(count: int) -> str:
    """Bytes as docker shows them: `1.5MB`."""
    return size_in_words(count, gap="")


def waits(lacking: int) -> str:
    """What is said while nothing is shown yet, because so many bytes of lazy layers lack."""
    return f"{size(lacking)} of lazy layers are waited for"


def summary(of: Explored) -> str:
    """The line above all."""
    return (
        f"{plain(of.title)}   {size(of.bytes)} in {sum(row.level is not None for row in of.rows)} layers   "
        f"wasted {size(of.wasted)}   efficiency {of.efficiency:.1%}"
    )


def file_label(file: File, *, dark: bool) -> Text:
    """One line of the tree of files, on a dark or on a light ground."""
    styles = _ON_DARK if dark else _ON_LIGHT
    mode = stat.filemode(file.mode)
    name = plain(file.name) + ("/" if file.is_folder else "")
    owner = f"{file.uid}:{file.gid}"
    label = Text.assemble(
        (f"{file.mark.value} ", styles[file.mark]),
        (f"{mode} {owner:<9} {size(file.size):>6}  ", "dim"),
        (name, styles[file.mark]),
    )
    if file.is_folder and file.mark is Mark.KEPT and file.changed:
        label.append(" *", style=styles[Mark.CHANGED])
    return label


def details(row: Row) -> str:
    """All that is known of one line."""
    said = [plain(row.text) or "(nothing is said of it)", ""]
    said.append(f"files  {size(row.bytes)}, of which later lines hide or repeat {size(row.lost)}")
    line = row.line
    if line is not None:
        said += [f"DiffID\n{line.diff_id}"] if line.diff_id else ["no layer"]
        said += [f"made  {plain(line.created)}"] if line.created else []
        said += [f"from  {plain(line.base)}"] if line.base else []
        said += [f"line  {plain(line.where)}"] if line.where else []
    return "\n".join(said)


def contents(data: bytes) -> str:
    """What is in a file: text, or hexadecimal digits."""
    if b"\0" not in data:
        try:
            text = data.decode()
        except UnicodeDecodeError as wrong:
            if wrong.start < len(data) - 4:
                return "\n".join(_dumped(data))
            text = data[: wrong.start].decode()  # a character was cut
        return "\n".join(plain(line.expandtabs()) for line in text.split("\n"))
    return "\n".join(_dumped(data))


def _dumped(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), _WIDTH):
        piece = data[at : at + _WIDTH]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in piece)
        yield f"{at:08x}  {piece.hex(' '):<{3 * _WIDTH}} {shown}"
