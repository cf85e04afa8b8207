"""A page with a picture of each layer: one file, no scripts, nothing from elsewhere.

The template beside has the page, with its style; here it gets its contents. Every text is escaped there: names of files
and lines of histories are whoever's who made the image.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from layerstore.looking.advice import Advice, Cost, Finding
from layerstore.looking.caches import leftover_of
from layerstore.looking.costs import Fate, Payload
from layerstore.looking.sizes import size_in_words
from layerstore.looking.treemap import Box, boxes, tree_of
from layerstore.values import frozen

__all__ = ["page"]

_WIDTH = 960.0
_TALLEST, _LEAST = 520.0, 90.0
_LETTER = 6.1  # the width of a letter of 10 px, about
_KINDS = {
    "kept": "shows in the end",
    "cache": "left behind by a program for its next run",
    "rewritten": "once more in a later layer, for other attributes",
    "hidden": "removed or overwritten by a later layer",
}


@frozen
class _Picture:
    """One layer."""

    cost: Cost
    share: float
    """Of the bytes of all layers."""
    kinds: tuple[tuple[str, int], ...]
    picture: Markup


def page(advice: Advice) -> str:
    """The report as HTML."""
    text = resources.files("layerstore.looking").joinpath("page.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["size"] = size_in_words
    environment.filters["plain"] = _plain
    environment.filters["prose"] = _prose
    return environment.from_string(text).render(
        advice=advice,
        pictures=list(_pictures(advice)),
        kinds=_KINDS,
        findings=[(finding, _title(finding)) for finding in advice.findings],
        saved_share=advice.saved / advice.bytes if advice.bytes else 0,
        timed=any(cost.seconds is not None for cost in advice.costs),
    )


def _plain(text: str) -> str:
    """Without what no page can have: control characters, and bytes that are no UTF-8."""
    whole = os.fsencode(text).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in whole)


def _prose(text: str) -> Markup:
    """Escaped, and with what stands between backquotes as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _title(finding: Finding) -> str:
    saved = size_in_words(finding.bytes)
    if finding.layers:
        saved += f" and {finding.layers} layer{'s' * (finding.layers > 1)}"
    return saved


def _pictures(advice: Advice) -> Iterator[_Picture]:
    largest = max((cost.bytes for cost in advice.costs), default=0)
    by_level: dict[int, list[Payload]] = {}
    for one in advice.payloads:
        by_level.setdefault(one.level, []).append(one)
    for cost in reversed(advice.costs):
        if cost.line.level is None or not cost.bytes:
            continue
        tree = tree_of((os.fsdecode(one.path), one.size, _kind_of(one)) for one in by_level[cost.line.level])
        height = max(_LEAST, _TALLEST * (cost.bytes / largest) ** 0.5)
        kinds = tuple((kind, tree.sizes[kind]) for kind in _KINDS if tree.sizes.get(kind))
        yield _Picture(
            cost, cost.bytes / advice.bytes, kinds, _drawn(boxes(tree, _WIDTH, height), height, str(cost.line))
        )


def _kind_of(one: Payload) -> str:
    if one.fate is Fate.HIDDEN:
        return "hidden"
    if one.fate is Fate.REWRITTEN:
        return "rewritten"
    return "kept" if leftover_of(one.path) is None else "cache"


def _drawn(found: list[Box], height: float, title: str) -> Markup:
    """The picture as SVG, with a word on each rectangle that has room for it, and all on hovering."""
    shapes = []
    for box in found:
        words = f"{_plain(box.path)}\n{size_in_words(box.size)}, {box.files} files, {_KINDS[box.kind]}"
        role = f"{box.kind} {'leaf' if box.is_leaf else 'folder'}"
        place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
        shapes.append(f'<g class="{role}"><rect {place}/><title>{escape(words)}</title>{_label(box)}</g>')
    return Markup(
        f'<svg viewBox="0 0 {_WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(_plain(title))}">'
        f"{''.join(shapes)}</svg>"
    )


def _label(box: Box) -> str:
    room = int((box.width - 6) / _LETTER)
    if box.height < 13 or room < 3:
        return ""
    name = _plain(box.name)
    shown = name if len(name) <= room else f"{name[: room - 1]}…"
    lines = [f'<text x="{box.x + 3:.1f}" y="{box.y + 10:.1f}">{escape(shown)}</text>']
    size = size_in_words(box.size)
    if box.is_leaf and box.height >= 26 and len(size) <= room:
        lines.append(f'<text class="size" x="{box.x + 3:.1f}" y="{box.y + 22:.1f}">{size}</text>')
    return "".join(lines)
