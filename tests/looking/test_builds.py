"""Images that a build has made: the lines of the Dockerfile, the seconds that they took."""

from __future__ import annotations

from pathlib import Path

import pytest

from layerstore import Store
from layerstore.build import BuildError, BuildOptions, build
from layerstore.build.lines import inherit, recall
from layerstore.looking import Finding, Subject, advise, advise_build, unused, why
from support import images
from support.building import busybox

pytestmark = [pytest.mark.root, pytest.mark.tools("busybox", "crun")]

DOCKERFILE = """\
# a comment
ARG V=1
FROM base AS first
RUN echo one > /one

FROM first
ENV A=b
ONBUILD RUN true
COPY file /etc/
RUN echo two > /two && \\
    rm /one
LABEL x=y
"""


@pytest.fixture
def folder(store: Store, tmp_path: Path) -> Path:
    """A context with a Dockerfile in it, beside a store with the image that it begins with."""
    layer = busybox()
    config = images.config([layer], config={"Env": ["PATH=/bin"]})
    store.load(images.docker_archive(tmp_path / "base.tar", [layer], ["base:latest"], image_config=config))
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "file").write_text("file")
    return context


def test_each_line_of_history_knows_its_line_of_the_file(store: Store, folder: Path) -> None:
    build(store, folder, tags=["app"])
    lines = [cost.line for cost in advise(store, "app").costs]
    assert [(line.instruction, line.place, line.base) for line in lines] == [
        ("", None, "base:latest"),
        ("RUN", (4, 4), ""),
        ("ENV", (7, 7), ""),
        ("COPY", (9, 9), ""),
        ("RUN", (10, 11), ""),
        ("LABEL", (12, 12), ""),
    ]
    assert {line.file for line in lines[1:]} == {str(folder / "Dockerfile")}
    gone = why(store, "app", "/one")
    assert [step.line.where for step in gone.steps] == [f"{folder}/Dockerfile:10", f"{folder}/Dockerfile:4"]


def test_what_a_line_took_is_told_with_what_it_made(store: Store, folder: Path) -> None:
    build(store, folder, tags=["app"])
    costs = advise(store, "app").costs
    assert [cost.seconds is not None for cost in costs] == [False, True, False, True, True, False]
    assert all(cost.seconds > 0 for cost in costs if cost.seconds is not None)


def test_a_build_from_memory_knows_the_lines_of_now(store: Store, folder: Path) -> None:
    build(store, folder, tags=["app"])
    (folder / "Dockerfile").write_text("# one more line\n" + DOCKERFILE)
    build(store, folder, tags=["app"])
    assert why(store, "app", "/two").steps[0].line.place == (11, 12)


def test_the_lines_of_a_base_that_was_built_here_are_its_own(store: Store, folder: Path, tmp_path: Path) -> None:
    build(store, folder, tags=["app"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "Dockerfile").write_text("FROM app\nRUN echo three > /three\n")
    build(store, other, tags=["next"])
    lines = [cost.line for cost in advise(store, "next").costs]
    assert [(line.file, line.place) for line in lines if line.instruction == "COPY"] == [
        (f"{folder}/Dockerfile", (9, 9))
    ]
    # The trigger of the base runs in front of the first own line, and is said by the base.
    assert lines[-1].where == f"{other}/Dockerfile:2"


@pytest.mark.parametrize("by", ["build", "command"])
def test_a_squashed_image_knows_the_lines_of_what_it_was_made_of(store: Store, folder: Path, by: str) -> None:
    built = build(store, folder, tags=["app"], squash=by == "build")
    image = built.image
    if by == "command":
        image = store.squash("app", since="base", tags=["app"])
        inherit(store, image.id, built.image.id)
    lines = [cost.line for cost in advise(store, image).costs]
    assert [(line.instruction, line.place, line.level) for line in lines] == [
        ("", None, 0),
        ("RUN", (4, 4), None),
        ("ENV", (7, 7), None),
        ("COPY", (9, 9), None),
        ("RUN", (10, 11), None),
        ("LABEL", (12, 12), None),
        ("", None, 1),
    ]
    assert lines[-1].text.startswith("merge ")


def test_what_is_known_of_an_image_goes_with_it(store: Store, folder: Path) -> None:
    built = build(store, folder, tags=["app"])
    assert recall(store, built.image.id) is not None
    store.remove_image("app")
    assert recall(store, built.image.id) is None


# --- a Dockerfile, and its context


def left(store: Store, folder: Path, dockerfile: str, files: dict[str, int], **options: object) -> Finding | None:
    (folder / "Dockerfile").write_text(dockerfile)
    for name, size in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return unused(store, folder, BuildOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        ("COPY . /", None),
        ("COPY file /\nADD data /d/", 300),
        ("COPY dat[a] /d/\nRUN --mount=type=bind,source=more,target=/m true", 4),
        ("ARG W=more\nENV X=${W}\nCOPY $X /m/", 104),
        ("COPY --exclude=*.log more /m/\nCOPY file data /d/", 50),
        ("COPY --from=base /bin/busybox /b", 404),
    ],
)
def test_files_that_no_line_uses_are_counted(store: Store, folder: Path, lines: str, size: int | None) -> None:
    files = {"data/a": 60, "data/b": 40, "more/x.log": 50, "more/y": 250}
    found = left(store, folder, f"FROM base\n{lines}\n", files)
    assert (None if found is None else found.bytes) == size


def test_what_is_ignored_is_no_part_of_the_context(store: Store, folder: Path) -> None:
    (folder / ".dockerignore").write_text("big\n*.md\n")
    found = left(store, folder, "FROM base\nCOPY file /\n", {"big/1": 9000, "a.md": 9, "other/1": 70, "other/2": 30})
    assert found is not None
    assert (found.subject, found.bytes, found.files, found.places) == (Subject.UNUSED, 100, 2, ("/other",))


def test_only_what_the_target_needs_is_used(store: Store, folder: Path) -> None:
    text = "FROM base AS one\nCOPY file /\nFROM base AS two\nCOPY data /\n"
    found = left(store, folder, text, {"data/a": 60}, target="one")
    assert found is not None
    assert (found.bytes, found.places) == (60, ("/data/a",))


def test_a_dockerfile_is_built_for_its_costs_and_leaves_no_image(store: Store, folder: Path) -> None:
    (folder / "useless").write_bytes(b"x" * 20_000)
    (folder / "Dockerfile").write_text(
        "FROM base\nRUN dd if=/dev/zero of=/big bs=1000 count=50 2>/dev/null\nRUN rm /big\n"
    )
    advice = advise_build(store, folder)
    assert [(one.subject, one.bytes, one.files) for one in advice.findings] == [
        (Subject.HIDDEN, 50_000, 1),
        (Subject.ADJACENT, 50_000, 1),
        (Subject.UNUSED, 20_004, 2),
    ]
    assert advice.saved == 50_000
    assert [image.tags for image in store.images()] == [("base:latest",)]
    named = advise_build(store, folder, tags=("kept",))
    assert named.bytes == advice.bytes
    assert len(store.image("kept").layers) == 3


def test_a_dockerfile_that_cannot_be_built_says_where(store: Store, folder: Path) -> None:
    (folder / "Dockerfile").write_text("FROM base\nRUN false\n")
    with pytest.raises(BuildError) as caught:
        advise_build(store, folder)
    assert caught.value.place is not None
    assert caught.value.place.line == 2
