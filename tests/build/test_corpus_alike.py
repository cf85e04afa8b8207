"""Dockerfiles of the corpus with SOURCE_DATE_EPOCH: one image, whatever the driver and the filesystem.

By night all that install nothing; what installs writes when it did so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import layerstore
import layerstore.build
from layerstore import Store
from layerstore.testing.filesystems import Filesystems
from support.buildah import busybox
from support.corpus import CORPUS, TAGS, context_of

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("busybox", "crun"),
    pytest.mark.skipif(os.environ.get("HYPOTHESIS_PROFILE") != "nightly", reason="by night"),
]

FORMS = (("ext4", "overlay2"), ("xfs", "overlay2"), ("btrfs", "btrfs"), ("ext4", "vfs"))
DEPENDS_ON_LINKS = ("links-between-layers",)
"""Writes to a file of a layer below that has two names: overlay, unlike the others, then parts them (kernel docs)."""

CASES = [
    case.name
    for case in sorted(CORPUS.iterdir())
    if "FROM debian" not in (case / "Dockerfile").read_text() and case.name not in DEPENDS_ON_LINKS
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tar of the root filesystem that all begin from."""
    return busybox(tmp_path_factory.mktemp("base") / "busybox.tar")


@pytest.fixture
def stores(filesystems: Filesystems, base: Path) -> Iterator[list[Store]]:
    """One for each driver and filesystem."""
    with ExitStack() as after:
        made = []
        for kind, driver in FORMS:
            folder = filesystems.folder_on(kind)
            settings = layerstore.Config(data_root=folder / "data", exec_root=folder / "exec", storage_driver=driver)
            store = after.enter_context(layerstore.open(config=settings))
            if made:
                store.load(base.with_suffix(".image"))
            else:
                image = store.import_tar(base, TAGS["busybox"], instructions=['CMD ["sh"]'])
                store.save([image], base.with_suffix(".image"))
            made.append(store)
        yield made


@pytest.mark.parametrize("case", CASES)
def test_one_image_everywhere(case: str, stores: list[Store], tmp_path: Path) -> None:
    context = context_of(CORPUS / case, tmp_path / "context")
    built = [layerstore.build.build(store, context, source_date_epoch=1_600_000_000).image for store in stores]
    assert len({image.id for image in built}) == 1
