"""Dockerfiles as people write them, each built by us, by buildah and by docker: the same trees, configs and histories.

And the same as BuildKit's, as it was recorded. What differs is listed below, with the reason; docs/build.md says it to
users. By day a few are built, and docker is not asked; by night all, also those that install packages.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import layerstore.build
from layerstore import Image, Store
from layerstore.testing.trees import differences, listing
from support import histories
from support.buildah import Buildah, busybox, debian
from support.corpus import CORPUS, TAGS, bases_of, context_of, recorded, said_of, tree_of
from support.docker import Docker, daemon

pytestmark = [pytest.mark.root, pytest.mark.tools("buildah", "busybox", "crun", "docker", "dockerd", "runc")]

BY_DAY = ("seed-onbuild", "multi-stage-graph", "args-of-from")
BY_NIGHT = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

NO_FLAGS = "does not know these flags"
NO_HEREDOCS = "does not know heredocs"
CANNOT: Mapping[str, Mapping[str, str]] = {
    "buildah": {
        "chmod-and-chown": "does not know modes in letters",
        "copy-shapes": "does not know modes in letters",
        "users-and-groups": "does not know modes in letters",
        "escape-backtick-paths": "takes a backslash for an escape, whatever the directive says",
        "heredocs": NO_HEREDOCS,
        "heredocs-of-each-kind": NO_HEREDOCS,
        "link-and-parents": NO_FLAGS,
        "link-of-each-kind": NO_FLAGS,
        "mounts-of-each-kind": "wants targets from the root on",
        "overwritten-types": "may make no devices in a chroot",
        "parameter-expansion": "does not know # and % in variables",
        "parents-and-exclude": NO_FLAGS,
        "quotes-and-unicode": "refuses patterns that nothing fits",
        "signals-and-health": NO_FLAGS,
        "stage-names": "knows a stage in its own capitals alone",
        "tars-of-each-kind": NO_FLAGS,
        "windows-line-ends": NO_HEREDOCS,
    },
    "docker": {
        "chmod-and-chown": NO_HEREDOCS,
        "copy-shapes": NO_FLAGS,
        "copy-wildcards": "finds no folder by a pattern that ends with a slash",
        "heredocs": NO_HEREDOCS,
        "heredocs-of-each-kind": NO_HEREDOCS,
        "link-and-parents": NO_FLAGS,
        "link-of-each-kind": NO_FLAGS,
        "lua-apt": NO_FLAGS,
        "mount-bind": NO_FLAGS,
        "mount-cache": NO_FLAGS,
        "mounts-of-each-kind": NO_FLAGS,
        "multi-stage-graph": "builds stages that nothing needs",
        "parameter-expansion": "does not know # and % in variables",
        "parents-and-exclude": NO_FLAGS,
        "quotes-and-unicode": "refuses patterns that nothing fits",
        "signals-and-health": NO_FLAGS,
        "tars-of-each-kind": NO_FLAGS,
        "triggers-of-each-kind": NO_FLAGS,
        "users-and-groups": NO_FLAGS,
        "windows-line-ends": NO_HEREDOCS,
    },
}
"""What a builder refuses, and why."""


def cases() -> list[Any]:
    found = []
    for folder in sorted(CORPUS.iterdir()):
        by_day = folder.name in BY_DAY
        marks = [] if by_day or BY_NIGHT else [pytest.mark.skip(reason="by night: by day a few are built")]
        found.append(pytest.param(folder, id=folder.name, marks=marks))
    return found


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    made = Buildah(tmp_path_factory.mktemp("buildah"))
    yield made
    made.clear()


@pytest.fixture(scope="module")
def rivals(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Buildah | Docker]]:
    """The builders that are asked, by name: by night docker, too, which needs a daemon."""
    if not BY_NIGHT:
        yield {"buildah": buildah}
        return
    with daemon(tmp_path_factory.mktemp("docker")) as docker:
        yield {"buildah": buildah, "docker": docker}


@pytest.fixture(scope="module")
def bases(
    buildah: Buildah, rivals: Mapping[str, Buildah | Docker], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """`bases("busybox")`: the layout of an image that the others have, too."""
    folder, made = tmp_path_factory.mktemp("bases"), dict[str, Path]()

    def base(name: str) -> Path:
        if name not in made:
            root = {"busybox": busybox, "debian": debian}[name](folder / f"{name}.tar")
            for rival in rivals.values():
                rival.base(TAGS[name], root)
            made[name] = buildah.save(TAGS[name], folder / name)
        return made[name]

    return base


@pytest.mark.parametrize("case", cases())
def test_all_builders_make_the_same_of_it(
    case: Path, store: Store, rivals: Mapping[str, Buildah | Docker], bases: Callable[[str], Path], tmp_path: Path
) -> None:
    context = context_of(case, tmp_path / "context")
    begun = {name: store.load(bases(name), names=[TAGS[name]])[0] for name in bases_of(case)}
    ours = layerstore.build.build(store, context, tags=[f"ours/{case.name}"]).image
    assert store.check() == []

    found = [f"buildkit: {line}" for line in differs_from_record(case, ours, begun)]
    for name, rival in rivals.items():
        if case.name in CANNOT[name]:
            with pytest.raises(AssertionError):
                rival.build(context, case.name)
            continue
        rival.build(context, case.name)
        [theirs] = store.load(rival.save(case.name, tmp_path / name), names=[f"{name}/{case.name}"])
        found += [f"{name}: {line}" for line in differs(theirs, ours, name)]
    unknown = [line for line in found if not is_known(line, case.name)]
    assert not unknown, "\n".join(unknown[:40])


def differs(theirs: Image, ours: Image, rival: str) -> list[str]:
    """Paths, members of the config and lines of the history that differ."""
    with theirs.mount() as expected, ours.mount() as actual:
        found = differences(listing(expected), listing(actual), ignoring=("mtime_ns",))
    found += members("", said_of(theirs.config), said_of(ours.config))
    form = {"buildah": histories.brief, "docker": histories.texts}[rival]
    their_lines, our_lines = histories.lines(theirs.config), histories.lines(ours.config)
    if form(their_lines) != form(our_lines):
        return [*found, f"history: {form(our_lines)}, not {form(their_lines)}"]
    pairs = zip(their_lines, our_lines, strict=True)
    return [*found, *(f"empty {our.keyword}: {our.empty}" for their, our in pairs if their.empty != our.empty)]


def differs_from_record(case: Path, ours: Image, bases: Mapping[str, Image]) -> list[str]:
    """The same, of what BuildKit made of it, whose history ours is to the letter."""
    record = recorded()[case.name]
    found = members("", record["said"], json.loads(json.dumps(said_of(ours.config))))
    if "tree" in record:
        below = {}
        if text_of_last_from(case) != "scratch":
            with bases[min(bases)].mount() as base:
                below = listing(base)
        with ours.mount() as root:
            tree = tree_of(listing(root), below)
        found += members("/", record["tree"], tree)
    written, expected = histories.as_written(ours.config), record["history"]
    if [{**line, "empty_layer": None} for line in written] != [{**line, "empty_layer": None} for line in expected]:
        return [*found, f"history: {written}, not {expected}"]
    pairs = zip(written, expected, strict=True)
    return [
        *found,
        *(
            f"empty {line['created_by']}"
            for line, other in pairs
            if line.get("empty_layer") != other.get("empty_layer")
        ),
    ]


def text_of_last_from(case: Path) -> str:
    """What the last stage begins from."""
    lines = (case / "Dockerfile").read_text().splitlines()
    return [line.split()[1] for line in lines if line.upper().startswith("FROM ")][-1]


def members(prefix: str, expected: Mapping[str, Any], actual: Mapping[str, Any]) -> list[str]:
    """Where two mappings differ."""
    names = sorted({*expected, *actual})
    return [
        f"{prefix}{name}: {actual.get(name)!r}, not {expected.get(name)!r}"
        for name in names
        if actual.get(name) != expected.get(name)
    ]


def is_known(line: str, case: str) -> bool:
    return any(fnmatch.fnmatchcase(line, f"{pattern}*") for pattern in (*EVERYWHERE, *KNOWN.get(case, ())))


MOUNTED_ON = ("dev", "proc", "run", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv")
RUN_AGAIN = (
    "/var/log/",
    "/var/cache/",
    "/var/lib/apt/",
    "/var/lib/dpkg/",
    "/etc/*-:",
    "/tmp/",
    "*.pyc",
    "*/cacerts",
    "*.jar",
)
"""What programs that install write differently each time."""

EVERYWHERE = (
    *(f"*: {path}" for path in RUN_AGAIN),
    # Places that it mounts on stay in its layers. Ours are no part of a layer.
    *(f"buildah: /{name}: missing" for name in MOUNTED_ON),
    # What changes nothing makes no layer here; buildah knows no layers of WORKDIR, docker none of COPY over its like.
    "buildkit: empty RUN",
    "buildkit: empty WORKDIR",
    "buildkit: empty COPY",
    "buildah: empty WORKDIR: False",
    "buildah: empty RUN: True",
    "docker: empty COPY: False",
)
ARGS_OF_STAGES = ("/one", "/two", "/three", "/four", "/five", "history", "Labels", "Env")

KNOWN: Mapping[str, tuple[str, ...]] = {
    # A stage's ARGs are there in stages that are built on it, an ARG takes the place of an ENV, and counts in LABEL.
    "args-of-from": ("buildah: Labels", "docker: Labels", "docker: history"),
    "args-of-stages": tuple(f"{rival}: {what}" for rival in ("buildah", "docker") for what in ARGS_OF_STAGES),
    "chmod-and-chown": tuple(f"buildkit: /{folder}:" for folder in (3, 4, 5)),
    "env-mixtures": ("buildah: Env",),  # what is escaped at the end of a line takes the next line with it
    "escape-backtick": ("buildah: Env",),
    "expose-and-labels": ("buildah: ExposedPorts",),  # a range of ports is kept as one
    "labels-and-quotes": ("buildah: Env", "buildah: ExposedPorts"),  # in another order; one protocol of two
    "link-and-parents": ("buildkit: /app:",),
    "link-of-each-kind": ("buildkit: /a:", "buildkit: /q:", "buildkit: /x"),
    "links-between-layers": ("buildkit: /b:", "buildkit: /d:", "docker: /b:", "docker: /d:"),
    "no-health": ("buildah: ExposedPorts",),
    "permissions-and-bits": tuple(f"*: /{name}" for name in ("hard", "suid")),
    "platform-args": ("docker: /platform", "docker: history"),  # it knows none of them
    "scratch-alone": ("buildah: /w:",),  # it makes no folder for WORKDIR before a RUN
    "python-requirements-first": ("buildah: history",),  # which has /bin/sh, whatever SHELL is
    "shell-forms": ("buildah: Cmd", "buildah: Entrypoint", "buildah: history"),  # SHELL is of RUN alone
    "shells": ("buildah: Entrypoint", "buildah: history"),
    "triggers-of-each-kind": ("buildah: /v:", "buildah: history"),
    # What is written below a volume is lost, and its folder is made; both only if there is a RUN after it.
    "volume-then-writes": ("buildah: /", "docker: /", "docker: empty RUN"),
    "user-switches": ("buildah: /app/sub", "docker: /app/sub"),  # WORKDIR's folder is root's
}
"""Beginnings of what differs, by case; docs/build.md says so, too."""
