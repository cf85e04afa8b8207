"""Some images of an archive, chosen by what people call them. Pure: no byte of the archive is read here.

A name goes before the beginning of an ID, as in a store. An image that is asked for by a name comes under that name
alone, as one that is saved by a name does; one that is asked for by its ID comes under all that the archive gives it.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerstore import reference
from layerstore.digest import Digest, beginning, hex_of, short
from layerstore.errors import Ambiguous, InvalidReference, NotFound
from layerstore.values import frozen

_SHOWN = 20


@frozen
class Offered:
    """An image as an archive offers it.

    `id` is the digest of its config, `digests` are others that it is known by, as that of its manifest. `names` are its
    full names, `words` what an index calls it that need not be a name, as the tag that skopeo writes.
    """

    id: Digest
    names: tuple[str, ...] = ()
    digests: tuple[Digest, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """What people may ask for."""
        names = ", ".join(reference.familiar(name) for name in self.names) or ", ".join(self.words)
        return names or short(self.id)


def choose(wanted: Sequence[str], offered: Sequence[Offered]) -> dict[Digest, tuple[str, ...] | None]:
    """The IDs of the images that are wanted, and the full names to load each under; None: all that it has.

    Several images of one name are one image for several platforms: all of them are chosen. Raises `NotFound`, with what
    there is, and `Ambiguous`.
    """
    chosen: dict[Digest, tuple[str, ...] | None] = {}
    for text in wanted:
        name = _full(text)
        named = [image for image in offered if name is not None and name in image.names]
        found = named or [image for image in offered if text in image.words]
        found = found or _by_number(text, offered) or _by_digits(text, offered)
        if not found:
            raise NotFound(f"the archive has no image {text}", remedy=f"It has {titles(offered)}.")
        for image in found:
            known = chosen.get(image.id, ())
            if not named or name is None or known is None:
                chosen[image.id] = None
            else:
                chosen[image.id] = tuple(dict.fromkeys((*known, name)))
    return chosen


def titles(offered: Sequence[Offered]) -> str:
    """What there is, in words for an error."""
    # An archive may say an image twice, and name it once.
    named = {image.id for image in offered if image.names or image.words}
    found = list(dict.fromkeys(image.title for image in offered if image.names or image.words or image.id not in named))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return (", ".join(found[:_SHOWN]) or "none") + more


def _full(text: str) -> str | None:
    try:
        return reference.normalise(text)
    except InvalidReference:
        return None


def _by_number(text: str, offered: Sequence[Offered]) -> list[Offered]:
    """`@2`: by its place in the list, from 0, as skopeo has it."""
    listed = list(dict.fromkeys(image.id for image in offered))
    if not text.startswith("@") or not text[1:].isdecimal() or not text.isascii() or int(text[1:]) >= len(listed):
        return []
    return [image for image in offered if image.id == listed[int(text[1:])]]


def _by_digits(text: str, offered: Sequence[Offered]) -> list[Offered]:
    first = beginning(text)
    if first is None:
        return []
    found = [image for image in offered if any(known.startswith(first) for known in (image.id, *image.digests))]
    one = [digest for image in found for digest in image.digests if digest == first]
    if len({image.id for image in found}) > 1 and len(one) < len(found):  # else an index for several platforms
        raise Ambiguous(f"several images of the archive have an ID that begins with {hex_of(first)}")
    return found
