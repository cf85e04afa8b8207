"""The page and what it is told, as a WSGI server would ask: what is there, who may ask, and that nothing is altered."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import IO, Any, cast
from urllib.request import Request, urlopen

import pytest
from click.testing import CliRunner

import layerstore
from attached import record
from core.adding import Adder
from layerstore import Image, Store
from layerstore.cli.front import front
from layerstore.faces.ui import Page, documents
from serve.client import Answer
from support import images as make

pytestmark = pytest.mark.root

HOSTILE = '<img src=x onerror="document.title=1">'
BASE, MIDDLE, TOP, OTHER = (make.layer(make.file(name, name * 1000)) for name in ("base", "middle", "top", "other"))


Ask = Callable[..., Answer]


def asking(page: Page) -> Ask:
    """A function that asks: `ask("/api/images", "from=2", Host="other", method="POST")`."""

    def ask(path: str, query: str = "", *, method: str = "GET", **headers: str) -> Answer:
        found: list[Any] = []
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "HTTP_HOST": "127.0.0.1:5080",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": io.StringIO(),
            **{f"HTTP_{name.upper()}": text for name, text in headers.items()},
        }
        body = b"".join(page(environ, lambda line, header: found.extend((line, header))))
        return Answer(int(found[0][:3]), {name.lower(): text for name, text in found[1]}, body)

    return ask


@pytest.fixture
def ask(store: Store) -> Ask:
    """Ask about the store."""
    return asking(Page(store))


def with_images(store: Store) -> tuple[Image, Image]:
    """Two images that share their lowest layer; whatever a config can say is hostile in the second."""
    add = Adder(store)
    said = {"Labels": {HOSTILE: HOSTILE}, "Cmd": [HOSTILE], "Env": [f"A={HOSTILE}"]}
    history = [{"created_by": HOSTILE, "comment": HOSTILE}, {"created_by": "x" * 10_000}]
    first = add(BASE, MIDDLE, TOP, name="app:1")
    config = make.config([BASE, OTHER], config=said, author=HOSTILE, history=history, variant="x" * 10_000)
    return first, add(BASE, OTHER, name="app:2", config=config)


def test_it_says_what_the_store_says(store: Store, ask: Ask) -> None:
    first, second = with_images(store)
    box = store.create_container(second, name="web")
    with box.mount() as root:
        (root / "new").write_bytes(b"x" * 5000)
    box.checkpoint("before")
    store.volumes.create("data")

    images = {row["id"]: row for row in ask("/api/images").json["rows"]}
    assert max(len(row["platform"]) for row in images.values()) < 500  # however long it was
    assert {row["tags"][0] for row in images.values()} == {"app:1", "app:2"}
    layers = ask("/api/layers").json["rows"]

    def stack(row: Mapping[str, Any]) -> list[str]:
        at, found = row["top"], []
        while at is not None:
            found.insert(0, f"sha256:{layers[at]['id']}")
            at = layers[at].get("on")
        return found

    assert [stack(images[one.id[7:]]) for one in (first, second)] == [list(first.layers), list(second.layers)]
    assert len(layers) == 4
    assert {layer["size"] for layer in layers} == {layer.size for layer in store.layers()}

    [shown] = ask("/api/containers").json["rows"]
    assert (shown["name"], shown["image"], shown["state"], stack(shown)) == (
        "web", "app:2", box.state.status, list(second.layers),
    )  # fmt: skip
    [point] = ask("/api/checkpoints").json["rows"]
    assert (point["container"], point["label"]) == (box.id, "before")
    assert [row["name"] for row in ask("/api/volumes").json["rows"]] == ["data"]

    space, usage = ask("/api/space").json, store.disk_usage()
    assert space["images"] == {one.image.id[7:]: [one.shared, one.unique, one.containers] for one in usage.images}
    assert [row[0] for row in space["layers"]] == [one.diff_id[7:] for one in usage.layers]
    assert space["lacking"] == {}
    [[written, in_use]] = space["containers"].values()
    assert (written, in_use) == (usage.containers_size, False)
    assert {row["name"]: row["free"] for row in space["kinds"]}["Images"] == usage.images_reclaimable
    info = ask("/api/info").json
    assert (info["driver"], info["data_root"], info["images"]) == ("overlay2", str(store.data_root), 2)

    told = ask("/api/image", f"id={second.id[7:]}").json
    assert told["inspect"]["Config"]["Labels"] == {HOSTILE: HOSTILE}
    assert told["containers"] == ["web"]
    assert [step["layer"] for step in told["steps"]] == [OTHER_ID := make.digest(OTHER)[7:], make.digest(BASE)[7:]]
    assert len(told["steps"][0]["text"]) < 5000  # however long it was
    assert OTHER_ID in {layer["id"] for layer in layers}
    assert ask("/api/container", f"id={box.id}").json["inspect"]["Name"] == "/web"
    assert ask("/api/volume", "name=data").json["containers"] == []
    assert ask("/api/check").json == {"problems": [], "count": 0}


def test_the_version_is_another_one_when_there_is_something_else_to_be_seen(store: Store, ask: Ask) -> None:
    first, _ = with_images(store)
    before = ask("/api/version").json
    raw = store.version
    first.tag("app:new")
    assert store.version != raw
    tagged = ask("/api/version").json
    assert tagged["version"] != before["version"]
    assert ask("/api/images").json["version"] == tagged["version"]
    raw = store.version
    with layerstore.open(config=store.config) as other:  # as another process would
        other.create_container("app:2", name="web")
    assert store.version != raw
    made = ask("/api/version").json
    assert (made["version"], made["containers"] == before["containers"]) == (tagged["version"], False)
    with store.browse("app:1"):  # which writes a row that nobody sees
        assert ask("/api/version").json == made


def test_answers_are_bounded(store: Store, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    with_images(store)
    monkeypatch.setattr(documents, "_MOST_ROWS", 3)
    part = ask("/api/layers").json
    rest = ask("/api/layers", "from=3").json
    assert (len(part["rows"]), part["next"], part["total"], len(rest["rows"]), rest["next"]) == (3, 3, 4, 1, None)
    assert ask("/api/layers", "from=99").json["rows"] == []
    deep: Any = "x" * 10_000
    for _ in range(50):
        deep = {"in": [deep] * 20}
    assert (
        len(json.dumps(documents._bounded({"deep": deep, "many": list(range(10**5)), "long": "x" * 10**6}))) < 100_000
    )


def test_nothing_can_be_altered(ask: Ask) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"):
        for path in ("/", "/api/images", "/api/check", "/v2/"):
            answer = ask(path, method=method)
            assert (answer.status, answer.header["allow"]) == (405, "GET, HEAD")


def test_what_is_not_there_is_said_so(ask: Ask) -> None:
    for path, query, status in (
        ("/../app.py", "", 404), ("/page/page.html", "", 404), ("/page.js/", "", 404), ("//page.js", "", 404),
        ("/%2e%2e/app.py", "", 404), ("/\xff", "", 400), ("/api/", "", 404), ("/api/../page.js", "", 404),
        ("/api/image", "id=../../etc/passwd", 404), ("/api/image", "", 404), ("/api/image", f"id={'0' * 64}", 404),
        ("/api/volume", "name=../../../etc", 404), ("/api/volume", "name=", 404), ("/api/container", "id=web", 404),
        ("/api/images", "from=-1", 400), ("/api/images", "from=1e9", 400), ("/api/images", "from=%C2%B2", 400),
        ("/api/images", "&".join(f"a{number}=1" for number in range(100)), 400),
    ):  # fmt: skip
        answer = ask(path, query)
        assert answer.status == status, (path, query)
        assert answer.header["content-type"] == "application/json"
        assert answer.json["errors"][0]["message"]


def test_who_is_asked_for_must_be_an_address_or_a_known_name(store: Store) -> None:
    ask = asking(Page(store, names=["Store.Example"]))
    for host in ("127.0.0.1:1", "localhost", "LOCALHOST:99", "[::1]:5080", "192.0.2.7", "store.example:80"):
        assert ask("/api/info", Host=host).status == 200, host
    for host in (
        "",
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:5080",
        "a@127.0.0.1",
        "[::1",
        "x y",
    ):
        for path in ("/", "/api/info"):
            assert ask(path, Host=host).status == 421, host


def test_other_pages_and_other_users_are_told_nothing(store: Store) -> None:
    ask = asking(Page(store, token="secret"))
    known = {"Authorization": "Bearer secret"}
    assert ask("/").status == 200  # in which there is nothing yet
    assert ask("/api/info", **known).status == 200
    for wrong in (
        {},
        {"Authorization": "Bearer Secret"},
        {"Authorization": "secret"},
        {"Authorization": "Bearer \xe9"},
    ):
        answer = ask("/api/info", **wrong)
        assert (answer.status, b"data_root" in answer.body) == (401, False)
    for page in ({"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://evil.example"}):
        assert ask("/api/check", **known, **page).status == 403
    own = {"Sec_Fetch_Site": "same-origin", "Origin": "http://127.0.0.1:5080"}
    assert ask("/api/info", **known, **own).status == 200


def test_a_look_borrows_nothing_of_an_attached_store(backing: Callable[[str], Path]) -> None:
    place = backing("ext4")
    config = layerstore.Config(data_root=place / "own", exec_root=place / "run", storage_driver="overlay2")
    with layerstore.open(config=config, attach=[f"docker:{record.unpacked('docker', place / 'docker')}"]) as store:
        ask = asking(Page(store))
        for image in store.attached_images():
            assert ask("/api/image", f"id={image.id[7:]}").status == 404
        assert (ask("/api/images").json["rows"], store.images()) == ([], [])
        assert ask("/api/info").json["attached"] == [f"docker:{place / 'docker'}"]


def test_one_check_at_a_time(store: Store) -> None:
    page = Page(store)
    assert page._documents._checking.acquire(blocking=False)
    answer = asking(page)("/api/check")
    assert (answer.status, "wait" in answer.json["errors"][0]["message"]) == (409, True)


class Seen(HTMLParser):
    """What a page refers to, and whether anything in it could run or be styled from within."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.refers: set[str] = set()
        self.ids: set[str] = set()
        self.named: set[str] = set()
        self.odd: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.refers |= {value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"}
        self.ids |= {value for name, value in attrs if name == "id" and value}
        self.named |= {value for name, value in attrs if name in ("for", "aria-labelledby") and value}
        self.odd += [f"{tag} {name}" for name in known if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and not known.get("src")):
            self.odd.append(tag)


def test_the_page_is_whole_and_holds_nothing_that_runs_within_it(ask: Ask) -> None:
    folder = resources.files("layerstore.faces.ui").joinpath("page")
    page = ask("/")
    assert page.header["content-type"] == "text/html; charset=utf-8"
    policy = page.header["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self';")
    assert "unsafe" not in policy
    assert page.header["x-content-type-options"] == "nosniff"
    seen = Seen(page.body.decode())
    assert (seen.odd, seen.named - seen.ids) == ([], set())
    wanted, got = set(seen.refers), set()
    while wanted - got:
        name = (wanted - got).pop()
        answer = ask(f"/{name}")
        assert answer.status == 200, name
        assert ask(f"/{name}", method="HEAD").body == b""
        wanted |= set(re.findall(r'from "\./([\w.]+)"', answer.body.decode()))
        got.add(name)
    assert got == {one.name for one in folder.iterdir()} - {"page.html"}
    markup = re.compile(r"(inner|outer)HTML|insertAdjacent|document\.write|\beval\b|new Function|srcdoc")
    for name in got:
        text = folder.joinpath(name).read_text()
        # Texts become nodes; nothing is read as markup or as a script, and nothing comes from elsewhere.
        assert not markup.search(text), name
        if name.endswith(".js"):
            for id_ in re.findall(r'(?:byId|getElementById)\("([\w-]+)"\)', text):
                assert id_ in seen.ids, id_


def test_the_command_prints_an_address_with_a_token_and_ends_when_it_is_told_to(data_root: Path) -> None:
    command = [sys.executable, "-m", "layerstore.cli", "--root", str(data_root), "ui", "--address", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = cast(IO[str], process.stdout).readline()
        found = re.fullmatch(r"Listening on (http://127\.0\.0\.1:\d+)/#token=([\w-]{32})\n", line)
        assert found, line + process.communicate()[1]
        with urlopen(f"{found[1]}/", timeout=20) as reply:
            assert b"<title>layerstore" in reply.read()
        asked = Request(f"{found[1]}/api/info", headers={"Authorization": f"Bearer {found[2]}"})
        with urlopen(asked, timeout=20) as reply:
            assert json.load(reply)["data_root"] == str(data_root)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20) == ("", "")
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_it_listens_on_this_machine_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    for words in ((), ("--htpasswd", "users"), ("--tls-cert", "c", "--tls-key", "k", "--no-token")):
        done = CliRunner().invoke(front, ["--root", str(tmp_path / "root"), "ui", "--address", "0.0.0.0:0", *words])
        assert done.exit_code == 1
        assert "whoever reaches 0.0.0.0 could see what the store holds" in done.output
        assert "--insecure-listen" in done.output
        assert not (tmp_path / "root").exists()
