"""Faults in the C parts, one at a time: the Nth allocation, listing, read or thread of the extension fails.

`faults.c` is loaded before the C library and answers for it. A test module of faults is named `walk_*.py`, is run in a
process of its own by `run` and takes the fixture of its conftest. What it asks of every single fault is in `walk`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import count
from pathlib import Path
from typing import Generic, TypeVar

from attrs import frozen

from layerstore.errors import LayerstoreError

PROJECT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("faults.c")
MOST = 20_000

Case = TypeVar("Case")


class Kind(IntEnum):
    """Calls of the extension. The numbers are those of faults.c."""

    MEMORY = 1
    LISTING = 2
    DATA = 3
    """Reading, writing and copying the bytes of files."""
    THREAD = 4
    CALL = 5
    """All other calls that name, make and describe files. `Outcome.call` is the name of the one that failed."""


def build(folder: Path) -> Path:
    """The library, compiled."""
    made = folder / "faults.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", made, SOURCE, "-ldl"], check=True
    )
    return made


def run(library: Path, *modules: str) -> subprocess.CompletedProcess[str]:
    """The tests of these modules, in a process that the library is loaded into first."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *modules],
        cwd=PROJECT,
        env={**os.environ, "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


@frozen
class Outcome(Generic[Case]):
    """What one fault led to: `error` is None where it was put up with."""

    case: Case
    nth: int
    result: object
    error: Exception | None
    call: str | None = None


class Faults:
    """The library in this process. Raises `RuntimeError` where it is not loaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        if not hasattr(self._library, "faults_arm"):
            raise RuntimeError("this test runs under support.faults.run alone")
        self._library.faults_arm.argtypes = (ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_int)
        self._library.faults_refused.restype = ctypes.c_char_p
        self._library.faults_disarm.restype = self._library.faults_live.restype = ctypes.c_long

    def outcomes(
        self,
        kind: Kind,
        number: int,
        prepare: Callable[[], Case],
        act: Callable[[Case], object],
        *,
        lasting: bool = False,
    ) -> Iterator[Outcome[Case]]:
        """For N = 1, 2, …, on a case of its own each: what `act` does when its Nth call of the kind fails.

        `lasting`: and all later ones, too. Ends with the first N that `act` has no call for any more, where it must do
        its work. After each, whatever it led to, the same descriptors are open as before, and nothing that the
        extension allocated is left.
        """
        for nth in count(1):
            assert nth < MOST, "this never ends"
            case = prepare()
            error: Exception | None = None
            result: object = None
            before = descriptors()
            assert self._library.faults_arm(kind, nth, number, lasting) == 0
            try:
                result = act(case)
            except (LayerstoreError, MemoryError) as raised:
                error = raised.with_traceback(None)
            finally:
                met = self._library.faults_disarm()
            place = f"fault {nth} of {met}: {error!r}"
            assert self._library.faults_live() == 0, f"memory is left after {place}"
            assert descriptors() == before, f"descriptors are left after {place}"
            if met < nth:
                assert error is None, place
                return
            refused = self._library.faults_refused()
            yield Outcome(case, nth, result, error, None if refused is None else refused.decode())

    def walk(
        self,
        kind: Kind,
        number: int,
        prepare: Callable[[], Case],
        act: Callable[[Case], object],
        check: Callable[[Outcome[Case]], None] = lambda outcome: None,
        *,
        lasting: bool = False,
    ) -> int:
        """`outcomes`, where each fault must be an error that tells of it. Returns how many there were."""
        faults = 0
        for outcome in self.outcomes(kind, number, prepare, act, lasting=lasting):
            faults += 1
            assert outcome.error is not None, f"fault {outcome.nth} was taken for nothing: {outcome.result!r}"
            if isinstance(outcome.error, LayerstoreError):
                assert outcome.error.errno == number, f"fault {outcome.nth}: {outcome.error!r}"
                assert os.strerror(number) in str(outcome.error)
            else:
                assert number == errno.ENOMEM, outcome.error
            check(outcome)
        return faults


def descriptors() -> dict[str, str]:
    """What is open in this process: number and name."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # that of the listing itself
    return found
