"""The page: whole without anything else, whatever names an image has; areas that are as large as the bytes."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.looking.advice import judged
from layerstore.looking.costs import Fate, Payload
from layerstore.looking.lines import Line
from layerstore.looking.page import page
from layerstore.looking.treemap import boxes, squarified, tree_of

EVIL = "<script>alert('x')</script>\x1b[31m\udcff&\"'"


def lines(*texts: str) -> list[Line]:
    return [Line(number + 1, text, "", None, None, 0, number) for number, text in enumerate(texts)]


class Tags(HTMLParser):
    """What a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in ("meta", "rect", "br", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != "rect":
            assert self.open.pop() == tag


def test_names_of_an_image_are_never_more_than_text() -> None:
    name = EVIL.encode(errors="surrogateescape")
    found = [Payload(name + b"/f", 0, 90000, Fate.HIDDEN, 1), Payload(b"etc/" + name, 1, 90000)]
    text = page(judged(EVIL, lines(f"RUN {EVIL}", f"COPY {EVIL}"), found, {}))
    text.encode()  # what is written has to be UTF-8
    assert "\x1b" not in text
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert "script" not in tags.seen
    assert "link" not in tags.seen
    assert not re.search(r"(?:src|href)=|url\(|@import", text)


def test_each_layer_with_bytes_has_a_picture_that_is_right_xml() -> None:
    found = [Payload(b"a/b", 0, 5000), Payload(b"tmp/c", 1, 7000), Payload(b"d", 1, 0)]
    text = page(judged("x", lines("COPY a /", "RUN b", "RUN nothing"), found, {}))
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 2
    kinds = [{group.get("class", "").split()[0] for group in ElementTree.fromstring(one).iter("g")} for one in pictures]
    assert kinds == [{"cache"}, {"kept"}]  # the topmost first


def test_an_image_without_files_has_a_page() -> None:
    text = page(judged("x", [], [], {}))
    assert "<svg" not in text
    assert "0 B" in text


sizes = st.lists(st.integers(1, 10**12), max_size=60).map(lambda found: sorted(found, reverse=True))


@given(sizes, st.floats(5, 2000), st.floats(5, 2000))
def test_areas_are_as_large_as_sizes_and_fill_the_room(found: list[int], width: float, height: float) -> None:
    placed = list(squarified(found, (3.0, 4.0, width, height)))
    assert len(placed) == len(found)
    total = sum(found)
    for size, (x, y, w, h) in zip(found, placed, strict=True):
        assert w * h == pytest.approx(width * height * size / total, rel=1e-6, abs=1e-6)
        assert x >= 3 - 1e-6
        assert y >= 4 - 1e-6
        assert x + w <= 3 + width * (1 + 1e-6) + 1e-6
        assert y + h <= 4 + height * (1 + 1e-6) + 1e-6


paths = st.lists(st.text("ab/", max_size=8), max_size=40)


@given(paths)
def test_what_is_in_a_folder_lies_in_its_rectangle(names: list[str]) -> None:
    drawn = boxes(tree_of((name, 1000 + len(name), "kept") for name in names if name.strip("/")), 900, 400)
    stack = [(0, 0.0, 0.0, 900.0, 400.0)]
    for box in drawn:
        while stack[-1][0] >= box.depth:
            stack.pop()
        _, x, y, width, height = stack[-1]
        assert box.x >= x - 1e-6
        assert box.y >= y - 1e-6
        assert box.x + box.width <= x + width + 1e-6
        assert box.y + box.height <= y + height + 1e-6
        stack.append((box.depth, box.x, box.y, box.width, box.height))


def test_no_rectangle_of_a_folder_lies_on_another() -> None:
    placed = list(squarified([6, 6, 4, 3, 2, 2, 1], (0, 0, 600, 400)))
    for one, other in pairwise(sorted(placed)):
        apart = one[0] + one[2] <= other[0] + 1e-6 or one[1] + one[3] <= other[1] + 1e-6
        assert apart or other[1] + other[3] <= one[1] + 1e-6


def test_thousands_of_small_files_are_one_rectangle_and_deep_folders_end() -> None:
    many = tree_of((f"d/{number}", 1, "kept") for number in range(20_000))
    drawn = boxes(many, 960, 90)
    assert len(drawn) < 5000
    assert any("more" in box.name for box in drawn)
    assert len(boxes(tree_of([("d/" * 2000 + "f", 10, "kept")]), 960, 500)) < 300
