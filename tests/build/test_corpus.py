"""Dockerfiles as people write them, each built by us and by buildah: the same trees, and the same configs.

What differs is listed below, with the reason; docs/build.md says it to users. By day a few are built; by night all,
also those that install packages.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import layerstore.build
from layerstore import Image, Store
from layerstore.testing.trees import differences, listing
from support.buildah import Buildah, busybox, debian

pytestmark = [pytest.mark.root, pytest.mark.tools("buildah", "busybox", "crun")]

CORPUS = Path(__file__).parent / "corpus"
BY_DAY = ("seed-onbuild", "multi-stage-graph", "user-switches")
BY_NIGHT = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"

CANNOT = {
    "heredocs": "buildah 1.28 knows no heredocs",
    "link-and-parents": "buildah 1.28 knows neither COPY --link, --parents nor --exclude",
}

SAID = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Healthcheck", "Labels", "OnBuild", "Shell", "StopSignal", "User")
SAID += ("Volumes", "WorkingDir")
"""What a config says of how the image is run."""

RUN_AGAIN = ("/var/log/*", "/var/cache/*", "/var/lib/apt/*", "/var/lib/dpkg/*", "/etc/*-", "/tmp/*", "*.pyc")
"""What programs that install write differently each time."""


def cases() -> list[Any]:
    found = []
    for folder in sorted(CORPUS.iterdir()):
        needs_debian = "FROM debian" in (folder / "Dockerfile").read_text()
        by_day = folder.name in BY_DAY and not needs_debian
        marks = [] if by_day or BY_NIGHT else [pytest.mark.skip(reason="by night: by day a few are built")]
        found.append(pytest.param(folder, id=folder.name, marks=marks))
    return found


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    made = Buildah(tmp_path_factory.mktemp("buildah"))
    yield made
    made.clear()


@pytest.fixture(scope="module")
def bases(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`bases("busybox")`: the layout of an image that buildah has, too."""
    folder, made = tmp_path_factory.mktemp("bases"), dict[str, Path]()

    def base(name: str) -> Path:
        if name not in made:
            root = {"busybox": busybox, "debian": debian}[name](folder / f"{name}.tar")
            tag = {"busybox": "busybox:latest", "debian": "debian:bookworm"}[name]
            buildah.base(tag, root)
            made[name] = buildah.save(tag, folder / name)
        return made[name]

    return base


@pytest.mark.parametrize("case", cases())
def test_both_builders_make_the_same_of_it(
    case: Path, store: Store, buildah: Buildah, bases: Callable[[str], Path], tmp_path: Path
) -> None:
    text = (case / "Dockerfile").read_text()
    for name, tag in (("busybox", "busybox:latest"), ("debian", "debian:bookworm")):
        if f"FROM {name}" in text:
            store.load(bases(name), names=[tag])

    ours = layerstore.build.build(store, case, tags=[f"ours/{case.name}"]).image
    assert store.check() == []
    if case.name in CANNOT:
        with pytest.raises(AssertionError):
            buildah.build(case, case.name)
        return
    buildah.build(case, case.name)
    [theirs] = store.load(buildah.save(case.name, tmp_path / "theirs"))

    with theirs.mount() as expected, ours.mount() as actual:
        found = differences(listing(expected), listing(actual), ignoring=("mtime_ns",))
    said, expected_facts = facts(ours), facts(theirs)
    differs = [
        f"{name}: {said[name]!r}, not {expected_facts[name]!r}" for name in SAID if said[name] != expected_facts[name]
    ]
    unknown = [line for line in [*found, *differs] if not is_known(line, case.name)]
    assert not unknown, "\n".join(unknown[:40])


def is_known(line: str, case: str) -> bool:
    path = line.partition(":")[0]
    patterns = (*RUN_AGAIN, *KNOWN.get(case, ()))
    return line in LEFT_BY_BUILDAH or any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


MOUNTED_ON = ("dev", "proc", "run", "sys", "etc/hosts", "etc/hostname", "etc/resolv.conf", "run/.containerenv")
LEFT_BY_BUILDAH = [f"/{name}: missing" for name in MOUNTED_ON]
"""Places that it mounts on, which stay in its layers. Ours are no part of a layer."""

KNOWN: Mapping[str, tuple[str, ...]] = {
    "escape-backtick": ("Env",),  # buildah takes a backslash for an escape, whatever the directive says
    "expose-and-labels": ("ExposedPorts",),  # buildah writes a range of ports as one
    "permissions-and-bits": ("/hard", "/suid"),  # a link to a file of a layer below is a file of its own in buildah's
    "shell-forms": ("Cmd", "Entrypoint"),  # SHELL is that of CMD and ENTRYPOINT, too; buildah's only of RUN
    "user-switches": ("/app/sub",),  # WORKDIR's folder belongs to USER, as with BuildKit; with buildah to root
}
"""Paths, or facts of the config, in which a case differs; docs/build.md says so, too."""


def facts(image: Image) -> dict[str, Any]:
    """What a config says of how the image is run."""
    config = image.config.get("config") or {}
    said = {name: config.get(name) or None for name in SAID}
    labels = {name: value for name, value in (said["Labels"] or {}).items() if name != "io.buildah.version"}
    return {**said, "Labels": labels or None, "WorkingDir": said["WorkingDir"] or "/"}
