"""The plots of the report, as SVG that can stand in a page. Drawn by matplotlib; only this file knows it.

Nothing of the outside remains in them: no metadata, no namespaces, no fonts, no scripts. Colours are the page's: where
a plot is drawn in a stand-in, the page's variable takes its place, so one plot serves a light and a dark page.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree

from layerstore.bench.units import seconds_in_words, size_in_words
from layerstore.values import frozen

__all__ = ["COLOURS", "Bar", "Group", "times", "toll"]

# What matplotlib draws in, and what the page puts there.
_INK: Final = "#010203"
_FAINT: Final = "#040506"
COLOURS: Final = 8
"""How many subjects can be told apart."""
_STAND_INS: Final = tuple(f"#0a0b{number:02x}" for number in range(COLOURS))
_SWAPS: Final[Mapping[str, str]] = {
    _INK: "var(--ink)",
    _FAINT: "var(--faint)",
    **{colour: f"var(--c{number})" for number, colour in enumerate(_STAND_INS)},
}

_ROW: Final = 0.27
_WIDE: Final = 8.6


@frozen
class Bar:
    """One subject's figure: where its middle half lies, and its least."""

    label: str
    colour: int
    least: float
    low: float
    median: float
    high: float


@frozen
class Group:
    """Bars that belong together."""

    title: str
    bars: tuple[Bar, ...]


def times(groups: Sequence[Group], *, description: str) -> str:
    """A dot for each median on an axis of time, a line over the middle half of the rounds, a tick at the least."""
    return _dots(groups, description=description, words=seconds_in_words, label="time, shorter is better")


def toll(groups: Sequence[Group], *, description: str) -> str:
    """The same for bytes."""
    return _dots(groups, description=description, words=size_in_words, label="space on disk, less is better")


def _dots(groups: Sequence[Group], *, description: str, words: Any, label: str) -> str:
    figure_of, ticker = _matplotlib()
    rows = sum(len(group.bars) for group in groups) + 0.9 * len(groups)
    figure = figure_of(figsize=(_WIDE, rows * _ROW + 0.55))
    # Names of drivers have options in them. Eight hundredths of an inch are a character.
    left = max(max(len(_short(bar.label)) for group in groups for bar in group.bars) * 0.08 + 0.15, 1.2) / _WIDE
    axes = figure.add_axes((left, 0.45 / (rows * _ROW + 0.55), 0.97 - left, 1 - 0.5 / (rows * _ROW + 0.55)))
    place = 0.0
    labels: list[tuple[float, str]] = []
    for group in groups:
        place += 0.75
        axes.text(
            0, place, group.title, transform=_at_left(axes, left), color=_INK, fontsize=9.5, weight="bold", va="center"
        )
        for bar in group.bars:
            place += 1
            colour = _STAND_INS[bar.colour % COLOURS]
            axes.plot([bar.low, bar.high], [place, place], color=colour, linewidth=5, alpha=0.4, solid_capstyle="butt")
            axes.plot([bar.least], [place], color=colour, marker="|", markersize=9, markeredgewidth=1.4)
            axes.plot([bar.median], [place], color=colour, marker="o", markersize=6.5)
            end = (max(bar.high, bar.median), place)
            style = {"color": _INK, "fontsize": 9, "va": "center", "textcoords": "offset points"}
            axes.annotate(words(bar.median), end, xytext=(9, 0), **style)
            labels.append((place, _short(bar.label)))
        place += 0.15
    _set_axis(axes, [bar for group in groups for bar in group.bars], ticker, words)
    axes.set_ylim(place + 0.7, 0.1)
    axes.set_yticks([where for where, _ in labels], [text for _, text in labels])
    axes.set_xlabel(label, color=_INK, fontsize=9.5)
    return _inline(figure, description)


def _set_axis(axes: Any, bars: Sequence[Bar], ticker: Any, words: Any) -> None:
    """Logarithmic where the values are far apart, else from zero."""
    values = [value for bar in bars for value in (bar.least, bar.high, bar.median)]
    least, most = min(values), max(values)
    if least > 0 and most / least > 8:
        axes.set_xscale("log")
        # The value stands to the right of its dot, and needs room.
        axes.set_xlim(least / 1.6, most * (most / least) ** 0.16 * 1.3)
        axes.xaxis.set_major_locator(ticker.LogLocator(base=10))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
    else:
        axes.set_xlim(min(0, least * 1.1), (most or 1) * 1.17)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: words(value)))
    axes.grid(visible=True, axis="x", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=9.5, length=0)
    for side in axes.spines.values():
        side.set_visible(False)


def _short(label: str) -> str:
    return label if len(label) <= 26 else f"{label[:25]}…"


def _at_left(axes: Any, left: float) -> Any:
    """Titles of groups begin where the names of the subjects do, whatever the axis shows."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    figure = axes.get_figure()
    moved = ScaledTranslation(0.1 - left * _WIDE, 0, figure.dpi_scale_trans)
    return blended_transform_factory(axes.transAxes, axes.transData) + moved


def _matplotlib() -> tuple[Any, Any]:
    """Imported when something is drawn: it takes half a second."""
    from matplotlib import rcParams, ticker
    from matplotlib.figure import Figure

    # Text stays text: it is drawn in the page's font, can be searched, and read aloud.
    rcParams["svg.fonttype"] = "none"
    rcParams["svg.hashsalt"] = "layerstore"
    rcParams["font.family"] = "sans-serif"
    return Figure, ticker


def _inline(figure: Any, description: str) -> str:
    """The figure as an `svg` element that needs nothing else and disturbs nothing else."""
    file = io.StringIO()
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(file.getvalue())
    wanted = set(re.findall(r"#([\w.-]+)", " ".join(_references(root))))
    for element in root.iter():
        element.tag = _bare(element.tag)
        attributes = {_bare(name): value for name, value in element.attrib.items()}
        # Several plots share a page: only what a plot refers to itself keeps its name.
        if attributes.get("id") not in wanted:
            attributes.pop("id", None)
        element.attrib.clear()
        element.attrib.update({name: _coloured(value) for name, value in attributes.items()})
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style")]:
            parent.remove(child)
    _rename(root, wanted, description)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _references(root: ElementTree.Element) -> list[str]:
    return [
        value
        for element in root.iter()
        for name, value in element.attrib.items()
        if _bare(name) == "href" or "url(#" in value
    ]


def _rename(root: ElementTree.Element, names: set[str], description: str) -> None:
    """Names that no other plot of the page has."""
    mine = re.sub(r"\W+", "-", description.lower()).strip("-")
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "id":
                element.set(name, f"{mine}-{value}")
            elif name == "href" and value[1:] in names:
                element.set(name, f"#{mine}-{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{mine}-"))


def _bare(name: str) -> str:
    return name.rpartition("}")[2]


def _coloured(value: str) -> str:
    for colour, variable in _SWAPS.items():
        value = value.replace(colour, variable)
    # The page says in which font.
    return re.sub(r"font-family: [^;]*;? ?", "", value) if value.startswith("font-") else value
