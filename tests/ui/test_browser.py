"""The page in a real browser: by keys alone, light and dark, on a telephone and on a wide screen, with 2,000 images.

By night: chromium takes most of a minute to install, which `tools/prepare night` does. With LAYERSTORE_PICTURES,
pictures are left in that folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from benchmarks.scale import LAYERS, make

from core.adding import Adder
from layerstore import Store
from layerstore import open as open_store
from layerstore.faces.serve.server import Server
from layerstore.faces.ui import Page
from serve.conftest import QUICK
from support import images as made
from ui.browser import Browser
from ui.test_page import HOSTILE, with_images

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="its browser takes a minute"),
]

Show = Callable[..., str]

PAINTED = "document.documentElement?.dataset.painted"
CUT = """[...document.querySelectorAll("section:not([hidden]) *")].filter((one) => one.scrollWidth > one.clientWidth
    && ["auto", "scroll"].includes(getComputedStyle(one).overflowX))"""
"""What of a section has to be pushed aside to be seen whole."""
SECTIONS = ("overview", "images", "layers", "containers", "volumes")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture
def show(store: Store, browser: Browser) -> Iterator[Show]:
    """`show(width=360)`: the page of the store, whole, in the browser."""
    browser.events.clear()
    with Server("127.0.0.1", 0, Page(store, token="secret"), timing=QUICK) as server:

        def opened(token: str = "#token=secret", *, width: int = 1280, dark: bool = False) -> str:
            browser.open(f"{server.url}/{token}", width=width, dark=dark)
            if token:
                browser.wait(f"{PAINTED} == 'all'")
            return server.url

        yield opened
    assert [one for one in browser.problems if "401" not in one] == []


def filled(store: Store) -> None:
    """Images that share layers, one of them hostile; a container with a checkpoint; a volume."""
    _, second = with_images(store)
    Adder(store)(made.layer(made.file("alone", "x")))
    box = store.create_container(second, name="web")
    with box.mount() as root:
        (root / "new").write_text("new")
    box.checkpoint("before")
    store.volumes.create("data", labels={HOSTILE: HOSTILE})


def test_all_of_it_is_reached_by_keys_and_nothing_hostile_runs(store: Store, show: Show, browser: Browser) -> None:
    filled(store)
    show()
    assert browser.value("location.hash") == "#/overview"  # without the token
    browser.press("2")
    browser.wait("document.activeElement.closest('#images tr')")
    assert browser.value("document.querySelectorAll('#images tbody tr').length") == 3
    browser.press("/")
    browser.wait("document.activeElement.id == 'search'")
    browser.type("app:2")
    browser.wait("document.querySelectorAll('#images tbody tr').length == 1")
    browser.press("Enter")
    browser.wait("document.activeElement.closest('#images tbody tr')")
    browser.press("Enter")
    browser.wait("document.getElementById('details').open")
    shown = browser.value("document.getElementById('details').innerText")
    assert shown.count(HOSTILE) >= 5  # labels, variables, command, author, lines
    assert browser.value("[...document.images].map(one => one.src.split('/').pop()).join()") == "icon.svg"
    assert browser.value("document.title").endswith("– layerstore")
    browser.press("Escape")
    browser.wait("!document.getElementById('details').open && location.hash == '#/images'")
    browser.wait("document.activeElement.closest('#images tbody tr')")  # where one was
    browser.press("Escape")
    browser.wait("document.querySelectorAll('#images tbody tr').length == 3")
    browser.press("/")
    browser.type("unused")
    browser.wait("document.querySelectorAll('#images tbody tr').length == 2")  # all but the container's
    browser.press("Escape", "?")
    browser.wait("document.getElementById('keys').open")
    browser.press("Escape")

    browser.press("3")
    browser.wait("document.activeElement.closest('svg.icicle g')")
    browser.press("Home")
    level = "Number(document.activeElement.getAttribute('aria-level'))"
    label = "document.activeElement.getAttribute('aria-label')"
    assert "in 2 images: app:" in browser.value(label)  # what both share is drawn once
    browser.press("ArrowUp")
    assert browser.value(level) == 2
    above = browser.value(label)
    browser.press("ArrowRight")
    assert (browser.value(level), browser.value(label) == above) == (2, False)
    browser.press("ArrowDown")
    assert "in 2 images" in browser.value(label)
    browser.press("Enter")  # zooms in, and then opens it
    browser.wait("!document.querySelector('.legend button').hidden")
    browser.press("Enter")
    browser.wait("document.getElementById('details').open")
    browser.press("Escape")
    browser.wait("!document.getElementById('details').open")
    browser.press("Escape")
    browser.wait("document.querySelector('.legend button').hidden")

    for key, name in (("4", "web"), ("5", "data")):
        browser.press(key)
        browser.wait("document.activeElement.closest('section:not([hidden]) tbody tr')")
        browser.press("Enter")
        browser.wait(f"document.getElementById('details-title').innerText.endsWith('{name}')")
        browser.press("Escape")
        browser.wait("!document.getElementById('details').open")
    browser.press("1")
    browser.wait("!document.getElementById('overview').hidden")
    browser.value("[...document.querySelectorAll('#overview button')].find(one => /Check/.test(one.innerText)).focus()")
    browser.press("Enter")
    browser.wait("/Nothing is missing, damaged or left over/.test(document.getElementById('overview').innerText)")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 800, 1600])
@pytest.mark.parametrize("size", ["none", "few"])
def test_it_fits_and_everything_has_a_name(
    store: Store, show: Show, browser: Browser, width: int, colours: str, size: str
) -> None:
    if size == "few":
        filled(store)
    show(width=width, dark=colours == "dark")
    for number, section in enumerate(SECTIONS, 1):
        browser.press(str(number))
        browser.wait(f"!document.getElementById('{section}').hidden")
        room = browser.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert room[0] <= room[1], (section, room)
        assert browser.value(f"{CUT}.map(one => one.className)") == [], section
        assert browser.value("scrollY") == 0, section  # its beginning is seen, and not below the header
        browser("Accessibility.enable")
        for node in browser("Accessibility.getFullAXTree")["nodes"]:
            if node.get("role", {}).get("value") in (
                "button",
                "link",
                "searchbox",
                "grid",
                "tree",
                "treeitem",
                "dialog",
            ):
                assert node.get("ignored") or node["name"]["value"], (section, node)
        if folder := os.environ.get("LAYERSTORE_PICTURES"):
            browser.picture(Path(folder, f"{size}-{section}-{width}-{colours}.png"))


def test_it_says_when_the_store_has_changed(store: Store, show: Show, browser: Browser) -> None:
    filled(store)
    show()
    browser.press("2")
    store.tag("app:2", "fresh:1")
    browser.wait("/has changed/.test(document.getElementById('notice').innerText)")
    assert "fresh:1" not in browser.value("document.getElementById('images').innerText")
    browser.press("r")
    browser.wait("document.getElementById('notice').hidden")
    browser.wait("/\\+1/.test(document.getElementById('images').innerText)")


def test_who_has_no_token_is_asked_for_it(store: Store, show: Show, browser: Browser) -> None:
    show("", width=360)
    browser.wait("document.getElementById('token')?.open")
    assert not browser.value(PAINTED)
    browser.type("secret")
    browser.press("Enter")
    browser.wait(f"{PAINTED} == 'all'")


def test_of_two_thousand_images_those_are_drawn_that_can_be_seen(
    backing: Callable[[str], Path], browser: Browser
) -> None:
    """Counted, not timed: rows that are there at first, blocks of the picture, bytes and number of the answers."""
    large = make(backing("ext4"), 2000, "overlay2")
    browser.events.clear()
    with open_store(config=large.config) as store, Server("127.0.0.1", 0, Page(store), timing=QUICK) as server:
        browser.open(f"{server.url}/#/images", width=1600)
        browser.wait(PAINTED)
        assert browser.value("document.querySelectorAll('#images tbody tr').length") <= 500
        browser.wait(f"{PAINTED} == 'all'")
        sizes = "performance.getEntriesByType('resource').map(one => one.decodedBodySize)"
        assert browser.value(f"Math.max(...{sizes})") < 2 << 20
        assert browser.value(f"{sizes}.length") < 40
        browser.press("3")
        browser.wait("document.querySelectorAll('svg.icicle g').length")
        assert browser.value("document.querySelectorAll('svg.icicle g').length") < 1600
        browser.press("Enter", "Enter")
        browser.wait("document.querySelectorAll('svg.icicle g rect.one').length")
        browser.press("2", "End")
        browser.wait("/scale:0\\b/.test(document.activeElement.innerText)")
        assert browser.value("document.getElementById('images').querySelector('table').ariaRowCount") == "2001"
        assert store.info().layers == 2000 * LAYERS
        assert browser.problems == []  # before the server ends, which the page notices
