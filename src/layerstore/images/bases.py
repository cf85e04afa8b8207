"""What images are built on from Python: other images, or nothing. How is in `growing`, imported with first use."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from attrs import field

from layerstore.values import frozen
from layerstore.wording import in_words

if TYPE_CHECKING:
    from layerstore.images.growing import Ground
    from layerstore.images.image import Image
    from layerstore.images.images import Images
    from layerstore.layers import Progress

__all__ = ["Base", "Scratch"]


@in_words("an image")
class Base(ABC):
    """An image, or nothing. Nothing is run in it, and no container is made."""

    @property
    @abstractmethod
    def _ground(self) -> Ground:
        """What `growing` has to know of it."""

    def append(
        self,
        source: str | os.PathLike[str] | BinaryIO,
        at: str = "/",
        *,
        created_by: str = "",
        message: str = "",
        author: str | None = None,
        tags: Sequence[str] = (),
        instructions: Sequence[str] = (),
        owner: tuple[int, int] | None = (0, 0),
        latest: int | None = None,
        progress: Progress | None = None,
    ) -> Image:
        """Make an image with a layer more: what is in a folder of the host, or a tar, a file or an open one.

        What is in a folder comes to lie at the path `at`, which has no symbolic links. It belongs to `owner`, user and
        group; None: to whom it belongs on the host. Folders that the image has already stay as they are. `latest`, in
        ns since the epoch: later times become this one; without it, the time of SOURCE_DATE_EPOCH does, if that is
        set. A tar, compressed or not, is the layer as it is, whiteouts and all.

        `created_by`, `message` and `author` are for the history; `instructions` are those of a Dockerfile (`CMD`,
        `ENV`, ...), for the configuration. The image gets the names `tags`.

        Raises `CannotCopy`, `CannotRepresent`, `InvalidArchive`, `KernelError`, `ConfigError`, `DepthExceeded`, and
        leaves the store as it was.
        """
        from layerstore.images import growing

        step = growing.Step(created_by, message, author, tags)
        return growing.append(
            self._ground,
            source,
            at,
            step,
            owner=owner,
            latest=latest,
            instructions=instructions,
            progress=progress,
        )

    def with_config(
        self,
        *,
        instructions: Sequence[str] = (),
        env: Mapping[str, str | None] | None = None,
        labels: Mapping[str, str | None] | None = None,
        entrypoint: Sequence[str] | None = None,
        cmd: Sequence[str] | None = None,
        user: str | None = None,
        working_dir: str | None = None,
        stop_signal: str | None = None,
        ports: Iterable[str] = (),
        volumes: Iterable[str] = (),
        created_by: str = "",
        message: str = "",
        author: str | None = None,
        tags: Sequence[str] = (),
    ) -> Image:
        """Make an image of the same layers with another configuration; what is not given stays as it is.

        `env` and `labels` are added to those that there are, a value of None takes one away. `entrypoint` and `cmd` are
        programs with their arguments; an entrypoint without a `cmd` takes the old `cmd` away, as in a Dockerfile.
        `ports` (`80`, `53/udp`) and `volumes` (paths) are added. `instructions` are those of a Dockerfile, and come
        before all of that. The rest is as for `append`. Raises `ConfigError`.
        """
        from layerstore.images import growing

        return growing.with_config(
            self._ground,
            growing.Step(created_by, message, author, tags),
            instructions=instructions,
            env=env or {},
            labels=labels or {},
            settings={
                "Entrypoint": entrypoint,
                "Cmd": cmd,
                "User": user,
                "WorkingDir": working_dir,
                "StopSignal": stop_signal,
            },
            ports=ports,
            volumes=volumes,
        )


@frozen(slots=False)
class Scratch(Base):
    """Nothing, to build an image on. `platform` is what the image will be for; None: this machine's."""

    platform: str | None
    _images: Images = field(repr=False, eq=False)

    @property
    def _ground(self) -> Ground:
        return self._images.ground(None, self.platform)
