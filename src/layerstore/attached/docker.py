"""docker's own store of images (graph drivers; the default until version 28), as it lies in dockerd's data-root.

`image/<driver>` has the images (`imagedb`), their names (`repositories.json`) and the layers by ChainID (`layerdb`),
each with the name of its folder (`cache-id`) and its tar-split (moby, `layer/filestore.go`, `image/fs.go`). Links and
`lower` files of the driver are not looked at: what lies on what is said by the config.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from layerstore import reference
from layerstore.attached import splits
from layerstore.attached.root import Root
from layerstore.attached.values import MOST_CONFIG, AttachedLayer, Write, verified, wrong_layer
from layerstore.digest import ChainID, DiffID, ImageID, chain_ids, hex_of, of_bytes
from layerstore.digest import parse as parse_digest
from layerstore.errors import ConfigError, InvalidDigest, InvalidReference

__all__ = ["Docker", "full_name", "with_split"]

_HOMES: Final = {"overlay2": ("overlay2/{}/diff", False), "vfs": ("vfs/dir/{}", True)}
"""By driver: where a layer's files are, and whether those of the layers below are with them."""
_MOST_NAMES, _MOST_WORD = 64 << 20, 4096
_KEY = re.compile(r"[0-9a-z]{1,64}")
_HEX = re.compile(r"[0-9a-f]{64}")


class Docker:
    """See `AttachedStore`."""

    def __init__(self, root: Root) -> None:
        self.root = root

    def require(self) -> None:
        """See `AttachedStore`."""
        self.root.require("image", "containerd")
        if not self._drivers():
            kept = ", ".join(self.root.names("image")) or "containerd"
            raise ConfigError(
                f"attach {self.root.spec}: its images are kept by {kept}; "
                f"only docker's {' and '.join(_HOMES)} can be read",
                remedy="Where dockerd keeps images in containerd, attach that: containerd:/var/lib/containerd.",
                path=self.root.path,
            )

    def names(self) -> Mapping[str, ImageID]:
        """See `AttachedStore`."""
        found: dict[str, ImageID] = {}
        for driver in self._drivers():
            name = f"image/{driver}/repositories.json"
            said = self.root.document(name, _MOST_NAMES)
            repositories = {} if said is None else said.get("Repositories") if isinstance(said, dict) else None
            if not isinstance(repositories, dict):
                raise self.root.wrong(name, "it does not say which images there are")
            for images in repositories.values():
                for text, image in images.items() if isinstance(images, dict) else ():
                    is_image = isinstance(image, str) and _HEX.fullmatch(hex_of(image)) is not None
                    if is_image and (full := full_name(text)) is not None:
                        found.setdefault(full, ImageID(image))
        return found

    def ids(self) -> Sequence[ImageID]:
        """See `AttachedStore`."""
        found: dict[str, None] = {}
        for driver in self._drivers():
            found.update(dict.fromkeys(self.root.names(f"image/{driver}/imagedb/content/sha256")))
        return [ImageID(f"sha256:{name}") for name in found if _HEX.fullmatch(name)]

    def config(self, image: ImageID) -> bytes | None:
        """See `AttachedStore`."""
        for driver in self._drivers():
            name = f"image/{driver}/imagedb/content/sha256/{hex_of(image)}"
            if (data := self.root.read(name, MOST_CONFIG)) is not None:
                if ImageID(of_bytes(data)) != image:
                    raise self.root.wrong(name, "the config of the image is not what its name says")
                return data
        return None

    def parent(self, image: ImageID) -> ImageID | None:
        """See `AttachedStore`."""
        for driver in self._drivers():
            word = self._word(f"image/{driver}/imagedb/metadata/sha256/{hex_of(image)}/parent")
            if word is not None and _HEX.fullmatch(hex_of(word)):
                return ImageID(word)
        return None

    def size(self, image: ImageID, layers: Sequence[DiffID]) -> int:
        """See `AttachedStore`: the bytes of the files."""
        return sum(self._size(chain) for chain in chain_ids(layers))

    def _size(self, chain: ChainID) -> int:
        for place, _ in self._places(chain):
            word = self._word(f"{place}/size")
            if word is not None and word.isascii() and word.isdecimal():
                return min(int(word), 1 << 62)
        return 0

    def layer(self, chain: ChainID, diff_id: DiffID) -> AttachedLayer | None:
        """See `AttachedStore`."""
        for place, driver in self._places(chain):
            key, said = self._word(f"{place}/cache-id"), self._word(f"{place}/diff")
            if key is None or said is None:
                continue
            try:
                verified(self.root, f"{place}/diff", DiffID(parse_digest(said)), diff_id)
            except InvalidDigest:
                raise self.root.wrong(f"{place}/diff", "it is no digest") from None
            if not _KEY.fullmatch(key):
                raise self.root.wrong(f"{place}/cache-id", "it is no name of a layer's folder")
            home, whole = _HOMES[driver]
            folder = self.root.folder(home.format(key))
            if folder is None:
                continue
            split = f"{place}/tar-split.json.gz"
            layer = AttachedLayer(diff_id, folder, whole)
            if not self.root.has(split):
                return layer
            return with_split(self.root, layer, folder, split)
        return None

    def _places(self, chain: ChainID) -> Iterator[tuple[str, str]]:
        for driver in self._drivers():
            yield f"image/{driver}/layerdb/sha256/{hex_of(chain)}", driver

    def _word(self, name: str) -> str | None:
        data = self.root.read(name, _MOST_WORD)
        return None if data is None else data.decode(errors="replace").strip()

    def _drivers(self) -> list[str]:
        return [driver for driver in _HOMES if self.root.folder(f"image/{driver}") is not None]


def with_split(root: Root, layer: AttachedLayer, folder: Path, split: str) -> AttachedLayer:
    """A layer whose files are in `folder`, and of which there is a tar-split of this name."""
    wrong = wrong_layer(root, split, layer.diff_id)

    def write(given: Write) -> None:
        file = root.open(split)
        if file is None:
            raise wrong("it was removed meanwhile")
        with file:
            splits.write_tar(file, folder, layer.diff_id, given, wrong)

    def measure() -> tuple[int, int]:
        file = root.open(split)
        if file is None:
            raise wrong("it was removed meanwhile")
        with file:
            return splits.measured(file, wrong)

    return AttachedLayer(layer.diff_id, folder, layer.whole, layer.unfit, partial(write), partial(measure))


def full_name(text: object) -> str | None:
    """A name in full: a tag, or a name with a digest; None if it is none."""
    try:
        name = reference.parse(text) if isinstance(text, str) else None
    except InvalidReference:
        return None
    # What is called sha256:… is an ID, by which CRI has images, too.
    return None if name is None or name.familiar_name == "sha256" else name.pinned or name.full
