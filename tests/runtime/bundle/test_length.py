"""How long arguments and variables may be: as the kernel of this machine has it."""

from __future__ import annotations

import errno
import os
import resource
import subprocess

import pytest

from layerstore import CannotRun
from layerstore.runtime.bundle import require_short

_STACKS = (1 << 20, 8 << 20, 64 << 20)
_PROGRAM = "/bin/true"


def takes(args: list[str], env: list[str], stack: int) -> bool:
    """Does the kernel execute it?"""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_STACK, (stack, resource.getrlimit(resource.RLIMIT_STACK)[1]))

    try:
        subprocess.run(args, env=dict(one.split("=", 1) for one in env), executable=_PROGRAM, preexec_fn=limit)
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        return False
    return True


def is_refused(args: list[str], env: list[str], stack: int) -> bool:
    try:
        require_short(args, env, stack)
    except CannotRun as error:
        return error.code == 126
    return False


def test_the_longest_string_is_the_kernel_s() -> None:
    longest = 32 * os.sysconf("SC_PAGE_SIZE") - 1
    for length, fits in ((longest, True), (longest + 1, False)):
        for args, env in ((["true", "x" * length], []), (["true"], ["A=" + "x" * (length - 2)])):
            assert takes(args, env, 8 << 20) is fits
            assert is_refused(args, env, 8 << 20) is not fits


@pytest.mark.parametrize("stack", _STACKS)
def test_all_of_them_together_are_as_long_as_the_kernel_has_it(stack: int) -> None:
    room = min(6 << 20, max(stack // 4, 1 << 17))
    each = 1000 + 1 + 8  # with its NUL, and its pointer
    for count, fits in (((room - 100) // each, True), (room // each + 1, False)):
        args = ["true", *["x" * 1000] * count]
        assert takes(args, [], stack) is fits
        assert is_refused(args, [], stack) is not fits


def test_it_is_counted_in_bytes_and_the_variable_is_named() -> None:
    with pytest.raises(CannotRun, match="the variable WORDS has 131072 bytes, and one may have 131071"):
        require_short(["true"], ["WORDS=" + "\u00e4" * 65533])
    require_short(["true", "\udcff"], ["A=b"])  # no UTF-8
    require_short(["true"], ["A=b"], -1)
