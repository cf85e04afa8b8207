"""Lazy layers that are read without a mount: what is asked for comes, and nothing is taken for zeros."""

from __future__ import annotations

import pytest

from layerstore import KernelError
from lazy.conftest import LARGE, Lazies, bytes_of
from lazy.gate import Gate
from registry.servers.quirks import Quirks

pytestmark = pytest.mark.root


def test_what_is_read_without_a_mount_is_fetched_first(lazies: Lazies, pushed: str, quirks: Quirks) -> None:
    gate = Gate(quirks)
    with lazies.open() as store, store.pull(pushed, lazy=True).browse() as tree:
        assert {entry.path for entry in tree.walk("etc")} == {"etc", "etc/hosts", "etc/motd"}
        assert tree.find("large").size == len(LARGE)
        gate.is_open = True
        with tree.open("large") as file:
            file.seek(5 << 20)
            assert file.read(100) == LARGE[5 << 20 :][:100]
        assert tree.read("data/7") == bytes_of(300_000, 7)
        assert tree.read("large") == LARGE


def test_what_does_not_come_as_it_was_is_an_error_in_words(lazies: Lazies, pushed: str, quirks: Quirks) -> None:
    gate = Gate(quirks)
    with lazies.open() as store, store.pull(pushed, lazy=True).browse() as tree:
        gate.spoil()
        gate.is_open = True
        with pytest.raises(KernelError, match="read /second"):
            tree.read("second")
