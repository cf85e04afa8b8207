"""Names of containers and labels of checkpoints: which are valid; and those of containers whose maker gave none, an
adjective and somebody to whom storage owes something."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from layerstore.errors import ConfigError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_LABEL = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}")


def _words(text: str) -> Sequence[str]:
    return text.split()


_HOW = _words("""
able agile airy alert amber ample apt arch artful avid awake aware bold brave breezy bright brisk calm candid
careful cheery clear clever cosy crisp curious daring deft eager early earnest easy even exact fair fast fine firm
fluent fond frank free fresh gentle glad golden grand handy happy hardy honest humble ideal jolly just keen kind
lively loyal lucid lucky mellow merry mild modest neat nimble noble open patient placid polite prompt proud quick
quiet rapid ready rosy serene sharp silent simple sincere smart smooth snug solid sound stable steady still stout
strong subtle sunny sure swift tender thorough tidy trusty upbeat vivid warm wise witty zesty
""")
_WHO = _words("""
aho allen babbage backus bachman bartik bayer bell birkhoff boole borg bosak bray burton cerf chang cheney church
clarke codd conway cook cray date dean deutsch diffie dijkstra engelbart erdos euler fagin floyd gauss goldberg
gosling gray hamilton hamming hellman hoare hopper huffman iverson jacobson johnson joy kahan kay keller kernighan
kilburn knuth lamport lampson leibniz lempel liskov lovelace mauchly mccarthy mccreight mcilroy mckusick merkle
milner minsky naur neumann newman nygaard ousterhout parnas perlis perlman pike postel rabin reed ritchie rivest
rosenblum satya seltzer shamir shannon simon stonebraker sutherland tarjan thompson torvalds traub turing ullman
wilkes wilkinson wirth zimmermann ziv zuse
""")


def random_name() -> str:
    """A name such as `steady_hopper`; not certain to be free."""
    return f"{_one_of(_HOW)}_{_one_of(_WHO)}"


def _one_of(words: Sequence[str]) -> str:
    return words[int.from_bytes(os.urandom(4)) % len(words)]


def valid(name: str) -> str:
    """The name of a container, with docker's slash before it or without. Raises `ConfigError`."""
    bare = name.removeprefix("/")
    if _NAME.fullmatch(bare) is None:
        raise ConfigError(
            f"{name!r} cannot be the name of a container",
            remedy="Use letters, digits, '_', '.' and '-', two or more, and begin with a letter or digit.",
        )
    return bare


def require_label(label: str) -> None:
    """Raise `ConfigError` if a checkpoint cannot be called so."""
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            f"{label!r} cannot be the label of a checkpoint",
            remedy="Use letters, digits, '_', '.' and '-', 128 at most, and begin with a letter or digit.",
        )
