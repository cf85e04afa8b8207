"""What docker and podman can be told and this program cannot: why, and what to do instead. Read by wrong usage alone.

Whatever docker 28.2 and podman 4.3 list in their `--help` is either an option or command here, or has its reason here:
a test walks their lists. `docs/words.md` is made of the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from layerstore.cli.words.commands import REFUSED
from layerstore.cli.words.options import OPTIONS

__all__ = ["OPTIONS", "REFUSED", "canonical", "of_command", "of_option"]

_SAME = {"container ls": "ps", "container list": "ps", "container ps": "ps", "image ls": "images"}
_SAME |= {"image list": "images", "image rm": "rmi", "unmount": "umount", "container unmount": "umount"}
_OWN = ("exists", "prune", "tree")
"""What a group has that is no command of the program itself."""


def canonical(words: Sequence[str]) -> str:
    """The one name of a command that has several: `container ls` is `ps`, `image build` is `build`."""
    name = " ".join(words)
    if name in _SAME:
        return _SAME[name]
    group, _, rest = name.partition(" ")
    if group in ("container", "image") and rest not in ("", *_OWN) and name not in REFUSED:
        return rest
    return name


def of_command(words: Sequence[str]) -> str | None:
    """Why there is no such command: a sentence's second half. None for one that neither docker nor podman has."""
    for count in range(len(words), 0, -1):
        why = REFUSED.get(" ".join(words[:count]))
        if why is not None:
            return why
    return None


def of_option(words: Sequence[str], name: str) -> str | None:
    """Why that option (`--pod`, `-p`) of a command is not taken; None for one that neither of them has."""
    return OPTIONS.get(canonical(words), {}).get(name)
