"""A flag that decides what a step makes is in its key: a step with another value of it is never taken for done."""

from __future__ import annotations

import re

import pytest

from layerstore.build.language.flags import FlagError, flags_of
from support.building import Builder

pytestmark = [pytest.mark.root, pytest.mark.tools("crun")]

LINES = {
    "RUN": "RUN {flag} cat /given/a >/made || echo none >/made",
    "COPY": "COPY {flag} a b /made/",
    "ADD": "ADD {flag} a b /made/",
}
"""Of each instruction that makes files, a line that does with any of its flags."""

COPIED = {
    "chown": ("1", "2"),
    "chmod": ("600", "640"),
    "exclude": ("a", "b"),
}
VALUES: dict[str, dict[str, tuple[str, str]]] = {
    "RUN": {
        "mount": ("type=bind,from=one,target=/given", "type=bind,from=two,target=/given"),
        "network": ("default", "none"),
        "security": ("sandbox", "insecure"),
    },
    "COPY": {**COPIED, "from": ("one", "two")},
    "ADD": COPIED,
}
"""Two values of each flag that make two results."""

DECIDES_NOTHING = {
    "COPY": {"link", "parents"},
    "ADD": {"link", "keep-git-dir", "checksum", "unpack"},
}
"""Those that say how a result comes about, what is refused, or what is copied, which is in the key as it lies."""

CASES = [(instruction, flag) for instruction, flags in VALUES.items() for flag in flags]


@pytest.mark.parametrize("instruction", LINES)
def test_each_flag_has_its_values_here(instruction: str) -> None:
    with pytest.raises(FlagError) as caught:
        flags_of(instruction, ["--xxxxxxxxxxxx"])
    known = set(re.findall(r"--([\w-]+)", caught.value.remedy or ""))
    assert known == VALUES[instruction].keys() | DECIDES_NOTHING.get(instruction, set())


@pytest.mark.parametrize(("instruction", "flag"), CASES)
def test_another_value_is_another_step(make: Builder, instruction: str, flag: str) -> None:
    def is_done(value: str) -> bool:
        line = LINES[instruction].format(flag=f"--{flag}={value}")
        stages = "FROM base AS one\nCOPY a b /\nFROM base AS two\nCOPY b /a\nCOPY a /b\n"
        make(f"{stages}FROM base\n{line}\n", {"a": "a", "b": "b"}, allow=("security.insecure",))
        return any(title.startswith(f"{instruction} --{flag}") for title in make.done)

    first, second = VALUES[instruction][flag]
    assert [is_done(first), is_done(first), is_done(second)] == [True, False, True]
