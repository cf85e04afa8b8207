"""What lines cost and what could be saved, by images that waste in each way that there is."""

from __future__ import annotations

import pytest

from layerstore import Store
from layerstore.looking import Advice, Fate, Finding, Subject, advise
from layerstore.looking.advice import judged, places_of
from layerstore.looking.caches import leftover_of
from layerstore.looking.costs import Payload
from layerstore.looking.lines import Line, instruction_of
from looking.conftest import Build
from support import images as make


def found(advice: Advice, subject: Subject) -> list[Finding]:
    return [one for one in advice.findings if one.subject is subject]


def summary(finding: Finding) -> tuple[int, int, tuple[str, ...], list[int]]:
    return finding.bytes, finding.files, finding.places, [line.number for line in finding.lines]


@pytest.mark.root
def test_what_a_later_line_removes_is_told_with_both_lines(store: Store, build: Build) -> None:
    objects = make.layer(
        make.folder("build/"), *[make.file(f"build/{number}.o", b"x" * 9000) for number in range(5)],
        make.file("tool", b"y" * 700),
    )  # fmt: skip
    build(
        ("RUN /bin/sh -c make # buildkit", objects),
        ("ENV A=b", None),
        ("RUN /bin/sh -c rm -r /build # buildkit", make.layer(make.whiteout("build"))),
        name="app",
    )
    advice = advise(store, "app")
    [hidden] = found(advice, Subject.HIDDEN)
    assert summary(hidden) == (45000, 5, ("/build",), [1, 3])
    assert (advice.bytes, advice.shown, advice.saved) == (45700, 700, 45000)
    assert [(cost.bytes, cost.files, cost.lost) for cost in advice.costs] == [(45700, 6, 45000), (0, 0, 0), (0, 0, 0)]
    assert found(advice, Subject.ADJACENT) == []  # ENV stands between


@pytest.mark.root
def test_a_change_of_owner_alone_has_all_bytes_once_more(store: Store, build: Build) -> None:
    files = [(f"app/{number}", b"x" * 5000) for number in range(3)]
    build(
        ("COPY app /app # buildkit", make.layer(make.folder("app/"), *[make.file(*one) for one in files])),
        ("RUN /bin/sh -c chown -R 1 /app", make.layer(*[make.file(*one, uid=1) for one in files])),
        name="app",
    )
    [rewritten] = found(advise(store, "app"), Subject.REWRITTEN)
    assert summary(rewritten) == (15000, 3, ("/app",), [1, 2])
    assert rewritten.remedy == "COPY --chown makes it right at once."
    assert "but for owner" in rewritten.text


@pytest.mark.root
def test_caches_that_show_in_the_end_are_left_behind(store: Store, build: Build) -> None:
    lists = make.layer(
        make.file("var/lib/apt/lists/a_Packages", b"x" * 8000), make.file("root/.cache/pip/http/1", b"y" * 6000)
    )
    build(("RUN /bin/sh -c apt-get update", lists), name="app")
    advice = advise(store, "app")
    assert [summary(one) for one in found(advice, Subject.LEFTOVER)] == [
        (8000, 1, ("/var/lib/apt/lists/a_Packages",), [1]),
        (6000, 1, ("/root/.cache/pip/http/1",), [1]),
    ]
    assert advice.saved == advice.bytes == advice.shown == 14000


@pytest.mark.root
def test_logs_are_of_no_use_to_a_next_build_and_caches_are(store: Store, build: Build) -> None:
    files = make.layer(make.file("var/log/x.log", b"x" * 8000), make.file("root/.cache/pip/1", b"y" * 6000))
    build(("RUN /bin/sh -c install", files), name="app")
    remedies = [one.remedy for one in found(advise(store, "app"), Subject.LEFTOVER)]
    assert remedies == [
        "Remove them in the line that makes them.",
        "`pip install --no-cache-dir`; or RUN --mount=type=cache there.",
    ]


@pytest.mark.root
def test_adjacent_lines_tell_what_one_would_save(store: Store, build: Build) -> None:
    build(
        ("RUN /bin/sh -c one", make.layer(make.file("a", b"x" * 9000), make.file("b", b"keep"))),
        ("RUN /bin/sh -c two", make.layer(make.whiteout("a"), make.file("c", b"c"))),
        ("RUN /bin/sh -c three", make.layer(make.file("d", b"d"))),
        ("COPY x / # buildkit", make.layer(make.file("x", b"x"))),
        ("RUN /bin/sh -c four", make.layer(make.file("e", b"e"))),
        name="app",
    )
    [adjacent] = found(advise(store, "app"), Subject.ADJACENT)
    assert summary(adjacent) == (9000, 1, ("/a",), [1, 2, 3])
    assert adjacent.layers == 2


@pytest.mark.root
def test_lines_of_the_base_are_marked(store: Store, build: Build) -> None:
    lower = ("RUN /bin/sh -c one", make.layer(make.file("a", b"x" * 9000)))
    build(lower, name="base:1")
    build(lower, ("RUN /bin/sh -c two", make.layer(make.whiteout("a"))), name="app")
    advice = advise(store, "app")
    [hidden] = found(advice, Subject.HIDDEN)
    assert [line.base for line in hidden.lines] == ["base:1", ""]
    assert hidden.remedy == "It comes with base:1: only another base is without it."
    assert found(advice, Subject.ADJACENT) == []  # they are not one image's to join


@pytest.mark.root
def test_nothing_is_found_where_nothing_is_lost(store: Store, build: Build) -> None:
    build(("COPY a /", make.layer(make.file("a", b"x" * 9000))), ("CMD x", None), name="app")
    advice = advise(store, "app")
    assert (advice.findings, advice.saved, advice.shown) == ((), 0, 9000)


@pytest.mark.root
def test_an_image_without_layers_costs_nothing(store: Store, build: Build) -> None:
    build(("CMD x", None), name="empty")
    advice = advise(store, "empty")
    assert (advice.bytes, advice.findings) == (0, ())


def test_findings_of_few_bytes_are_left_out() -> None:
    lines = [Line(number, f"COPY {number}", "", None, None, 0, number - 1) for number in (1, 2)]
    lost = [Payload(b"a", 0, 100, Fate.HIDDEN, 1)]
    assert judged("x", lines, lost, {}).findings == ()
    assert [one.bytes for one in judged("x", lines, lost, {}, least=100).findings] == [100]


@pytest.mark.parametrize(
    ("paths", "places"),
    [
        ({b"a/b/1": 10, b"a/b/2": 10}, ("/a/b",)),
        ({b"a/b/1": 1000, b"c": 1}, ("/a/b/1",)),
        ({b"a/1": 30, b"b/1": 20, b"c/1": 10, b"d/1": 5}, ("/a", "/b", "/c")),
        ({b"a/x/1": 10, b"a/y/1": 10}, ("/a",)),
        ({b"\xff/1": 10}, ("/\udcff/1",)),
        ({}, ()),
    ],
)
def test_the_place_is_the_deepest_folder_that_has_nearly_all(paths: dict[bytes, int], places: tuple[str, ...]) -> None:
    assert places_of([Payload(path, 0, size) for path, size in paths.items()]) == places


@pytest.mark.parametrize(
    ("path", "title"),
    [
        (b"var/lib/apt/lists/x_Packages", "package lists of apt"),
        (b"var/cache/apk/APKINDEX.1.tar.gz", "cache of apk"),
        (b"home/me/.cache/pip/http/1", "cache of pip"),
        (b"root/.npm/_cacache/index", "cache of npm"),
        (b"usr/local/cargo/registry/cache/x", "registry of cargo"),
        (b"usr/local/lib/ruby/gems/3.3.0/cache/x.gem", "gems as downloaded"),
        (b"go/pkg/mod/cache/download/x", "downloads of go"),
        (b"tmp/x", "temporary files"),
        (b"var/log/dpkg.log", "logs"),
    ],
)
def test_leftovers_are_known_by_their_places(path: bytes, title: str) -> None:
    left = leftover_of(path)
    assert left is not None
    assert left.title == title


@pytest.mark.parametrize("path", [b"var/lib/apt", b"app/var/log/x", b"home/pip/.cached/pip/1", b"etc/apk/repositories"])
def test_what_only_looks_like_one_is_none(path: bytes) -> None:
    assert leftover_of(path) is None


@pytest.mark.parametrize(
    ("created_by", "line"),
    [
        ("/bin/sh -c #(nop)  CMD [\"bash\"]", 'CMD ["bash"]'),
        ("/bin/sh -c #(nop) ADD file:01 in / ", "ADD file:01 in /"),
        ("/bin/sh -c apt-get update", "RUN apt-get update"),
        ("RUN /bin/sh -c make # buildkit", "RUN make"),
        ("RUN |2 A=1 B=two words /bin/sh -c make $A # buildkit", "RUN make $A"),
        ("|1 A=1 /bin/sh -c make", "RUN make"),
        ("COPY a b # buildkit", "COPY a b"),
        ("RUN make all # buildkit", "RUN make all"),
        ("RUN /bin/sh -c a &&\n  b # buildkit", "RUN a && b"),
        ("", ""),
    ],
)  # fmt: skip
def test_lines_are_told_in_the_words_of_a_dockerfile(created_by: str, line: str) -> None:
    assert instruction_of(created_by) == line
