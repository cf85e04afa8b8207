"""What `--network` means."""

from __future__ import annotations

from layerstore import ConfigError
from layerstore.runtime.network import usable
from layerstore.runtime.network.kind import Kind
from layerstore.values import frozen

__all__ = ["Mode", "parse"]


@frozen
class Mode:
    """What `--network` was given. `container`: whose network it is; `words`: what the program is told beside."""

    kind: Kind
    container: str = ""
    words: tuple[str, ...] = ()


_NOT_OURS = (
    "Give --network host, which is what there is without it; none; container:NAME; or pasta or slirp4netns, by which "
    "a container has a network of its own and ports can be published (-p)."
)


def parse(text: str) -> Mode:
    """The meaning of a network's name, which may be followed by `:` and words for the program. Raises `ConfigError`.

    `private` is whichever program is installed, for who only wants its ports published.
    """
    name, colon, rest = text.partition(":")
    words = tuple(word for word in rest.split(",") if word)
    match name:
        case "host" | "default" if not colon:
            return Mode(Kind.HOST)
        case "none" if not colon:
            return Mode(Kind.NONE)
        case "container" if rest:
            return Mode(Kind.CONTAINER, container=rest)
        case "private" if not colon:
            return Mode(usable.first())
        case "pasta":
            return Mode(Kind.PASTA, words=words)
        case "slirp4netns":
            return Mode(Kind.SLIRP, words=words)
        case "bridge":
            raise ConfigError("there is no bridge network: nothing here owns bridges and addresses", remedy=_NOT_OURS)
        case _:
            raise ConfigError(f"network {text} not found", remedy=_NOT_OURS)
