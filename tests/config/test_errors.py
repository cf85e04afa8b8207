"""Errors: each says what failed, on what, and what to do."""

from __future__ import annotations

import errno
import inspect
import os
from pathlib import Path

import pytest

from layerstore import errors
from layerstore.errors import InvalidArchive, KernelError, LayerstoreError, NotFound, named, remedy_for

REMEDIES = {
    errno.ENOENT: "Look whether the path is right.",
    errno.ENOTDIR: "what is before its last / has to be a folder",
    errno.EISDIR: "name a file",
    errno.EEXIST: "take another name",
    errno.ENOTEMPTY: "take another name",
    errno.ENAMETOOLONG: "take a shorter one",
    errno.ELOOP: "symbolic links",
    errno.ENOSPC: "`layerstore prune --all` removes",
    errno.EDQUOT: "`layerstore prune --all` removes",
    errno.EROFS: "mount it writable",
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "fs.file-max",
    errno.EFBIG: "ulimit -f",
    errno.EIO: "dmesg",
    errno.ENOMEM: "Memory ran out",
    errno.EBUSY: "fuser -vm",
    errno.EBADF: "redirect it",
    errno.EOPNOTSUPP: "use ext4, xfs or btrfs",
    errno.ENOSYS: "Linux 5.6",
}


@pytest.mark.parametrize(("number", "words"), REMEDIES.items(), ids=errno.errorcode.get)
def test_an_error_of_the_kernel_says_what_to_do(number: int, words: str) -> None:
    error = KernelError("open", number, path="/x")
    assert error.message == f"open /x: {os.strerror(number)}"
    assert words in str(error.remedy)


def test_only_what_a_store_lacks_is_looked_for_in_it(tmp_path: Path) -> None:
    (tmp_path / "layerstore.db").touch()
    for path in (tmp_path / "overlay2/x/diff", os.fsencode(tmp_path / "skeletons/x")):
        remedy = str(KernelError("open", errno.ENOENT, path=path).remedy)
        assert "`layerstore check`" in remedy
        assert "path is right" not in remedy
    for path in (tmp_path.parent / "in.tar", "in.tar", "", "/", "/a\0b/c"):
        assert KernelError("open", errno.ENOENT, path=path).remedy == "Look whether the path is right."


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_no_error_is_the_kernel_s_words_alone(number: int) -> None:
    with pytest.raises(KernelError) as caught, named("rename", "/y"):
        raise OSError(number, os.strerror(number))
    assert caught.value.message == f"rename /y: {os.strerror(number)}"
    assert str(caught.value.remedy).endswith(".")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_who_is_not_root_is_told_to_be(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "Run as the user" in remedy_for(number)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "root is refused, too" in remedy_for(number)


def test_a_remedy_that_is_known_better_counts() -> None:
    assert KernelError("open", errno.ENOSPC, remedy="Do this.").remedy == "Do this."
    assert "prune" not in remedy_for(errno.ENOSPC, elsewhere=True)
    assert NotFound("no such thing").remedy == "`layerstore images` and `layerstore ps -a` show what there is."
    assert NotFound("no such thing", remedy="Do that.").remedy == "Do that."
    assert "again" in str(InvalidArchive("it is cut short").remedy)


def test_every_error_is_one_of_ours() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__]
    assert len(kinds) > 15
    assert all(issubclass(kind, LayerstoreError) for kind in kinds)
