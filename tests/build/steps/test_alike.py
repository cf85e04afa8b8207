"""One Dockerfile and one SOURCE_DATE_EPOCH are one image: whatever the driver, the filesystem and the day."""

from __future__ import annotations

from pathlib import Path

import pytest

import layerstore
from layerstore.testing.filesystems import Filesystems
from support.building import Builder

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]

DOCKERFILE = """\
FROM base AS one
WORKDIR /made/here
COPY --chown=someone --chmod=u=rwX,go= dir .
RUN echo $SOME > /var/tmp/x; ln /var/tmp/x /var/tmp/y; rm -r /home; mkdir /home && echo > /home/new
RUN rm /bin/yes; mv /etc/group /etc/groups; chmod 700 /root; mkdir -p /deep/er/est && ln -s ../root /deep/link

FROM base
ENV SOME=thing
COPY --link dir/a /tmp/linked/
COPY --from=one /made /var/tmp/y /copied/
RUN --mount=type=bind,from=one,target=/m cp /m/etc/groups /g && touch /bin/busybox
ADD archive.tar /unpacked
COPY <<END /said
$SOME
END
"""

FORMS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "overlay2 on ext4": ("ext4", "overlay2", ()),
    "overlay2 on xfs": ("xfs", "overlay2", ()),
    "btrfs": ("btrfs", "btrfs", ()),
    "vfs": ("ext4", "vfs", ()),
    "erofs": ("ext4", "erofs", ()),
    "aufs, copied": ("ext4", "aufs", ("aufs.mode=copy",)),
}

FILES = {"dir/a": "a", "dir/sub/b": "b" * 100_000, "dir/sub/empty/": "", "other": "o"}


def built(form: str, filesystems: Filesystems, base: Path, archive: bytes) -> tuple[str, tuple[str, ...]]:
    """The image and its layers. A second build has nothing to do."""
    kind, driver, options = FORMS[form]
    folder = filesystems.folder_on(kind)
    settings = layerstore.Config(
        data_root=folder / "data", exec_root=folder / "exec", storage_driver=driver, storage_opts=options
    )
    with layerstore.open(config=settings) as store:
        store.load(base)
        make = Builder(store, folder / "context")
        made = make(DOCKERFILE, {**FILES, "archive.tar": archive}, source_date_epoch=1_500_000_000)
        again = make(DOCKERFILE, source_date_epoch=1_500_000_000)
        assert again.image.id == made.image.id
        assert make.done == []
        assert store.check(content=True) == []
    return made.image.id, made.image.layers


def test_every_driver_builds_the_same_image(filesystems: Filesystems, base_archive: Path, archive: bytes) -> None:
    expected = built("overlay2 on ext4", filesystems, base_archive, archive)
    for form in FORMS:
        assert built(form, filesystems, base_archive, archive) == expected, form
