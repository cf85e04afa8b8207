"""Git repositories as contexts, and for ADD: named as BuildKit names them, checked out by git itself.

What a repository says is not trusted: no hook of it is run, no template of this machine goes in, and git asks nobody
for a password.
"""

from __future__ import annotations

import os
import re
import select
import signal
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from layerstore import Limits
from layerstore.build.errors import BuildError, Place
from layerstore.values import frozen

__all__ = ["GitRepository", "checked_out", "repository_of"]

_GLANCE = 100
"""Milliseconds."""
_SHARE = 20
"""How many times as long as it took to measure what git has written it is not measured again."""
_LINES = 5
_SCP = re.compile(r"[\w.-]+@[\w.-]+:[^/].*|[\w.-]+@[\w.-]+:/.*")
_SURROUNDINGS = {"GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "git:http:https:ssh", "LC_ALL": "C"}
_SETTINGS = ("core.hooksPath=/dev/null", "advice.detachedHead=false", "gc.auto=0", "maintenance.auto=false")


@frozen
class GitRepository:
    """Where it is, the branch, tag or commit that is meant ("": its own choice), and the folder in it that is."""

    url: str
    ref: str = ""
    folder: str = ""

    def __str__(self) -> str:
        behind = f"{self.ref}:{self.folder}" if self.folder else self.ref
        return f"{self.url}#{behind}" if behind else self.url


def repository_of(source: str) -> GitRepository | None:
    """The repository that this means (`URL#ref:folder`), None if it means none.

    `git://`, `ssh://`, `user@host:path`, `http://` and `https://` with `.git` at the end of the path, `github.com/…`.
    """
    url, _, behind = source.partition("#")
    if url.startswith("github.com/"):
        url = f"https://{url}"
    elif not _is_repository(url):
        return None
    ref, _, folder = behind.partition(":")
    return GitRepository(url, ref, folder.strip("/"))


def _is_repository(url: str) -> bool:
    if url.startswith(("git://", "ssh://")) or _SCP.fullmatch(url):
        return True
    return re.fullmatch(r"https?://[^?]+\.git/?", url, re.IGNORECASE) is not None


def checked_out(
    wanted: GitRepository,
    folder: Path,
    *,
    keep_git_dir: bool = False,
    limits: Limits,
    check: Callable[[], object] = lambda: None,
    place: Place | None = None,
) -> tuple[Path, str]:
    """Check a repository out into an empty folder: where what is meant lies, and the commit.

    All files have the time of the commit, so that the same commit is the same layer. Submodules come along.
    `keep_git_dir` leaves `.git` there. `check` is called now and then, and ends it by an error. Raises `BuildError`.
    It may have as many files as a layer, and, with git's own, as many bytes: what has more is ended (`LimitExceeded`).
    Each process of git may remember as much as is remembered of a layer.
    """
    git = _Git(wanted, folder, limits, check, place)
    git.run("init", "--template=", "--initial-branch=main", ".")
    ref = wanted.ref or "HEAD"
    if ref.startswith("-"):
        raise _no_such(wanted, place)
    if git.tries("fetch", "--depth=1", "--no-tags", "--end-of-options", wanted.url, ref):
        target = "FETCH_HEAD"
    else:  # a server that has no commit by its number, or nothing shallow
        everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*", "HEAD")
        git.run("fetch", "--update-head-ok", "--end-of-options", wanted.url, *everything)  # main is checked out here
        target = "FETCH_HEAD" if ref == "HEAD" else ref
        if not git.tries("rev-parse", "--verify", "--end-of-options", f"{target}^{{commit}}"):
            raise _no_such(wanted, place)
    commit = git.run("rev-parse", "--verify", "--end-of-options", f"{target}^{{commit}}").strip()
    git.run("checkout", "--detach", "--force", commit)
    git.run("submodule", "update", "--init", "--recursive", "--depth=1")
    seconds = int(git.run("show", "--no-patch", "--format=%ct", commit))
    if not keep_git_dir:
        import shutil

        shutil.rmtree(folder / ".git")
        for inner in folder.rglob(".git"):
            if inner.is_file():
                inner.unlink()
    _age(folder, seconds * 10**9)
    found = folder
    for name in [part for part in wanted.folder.split("/") if part not in ("", ".")]:
        found /= name
        if name == ".." or not _is_folder(found):
            raise BuildError(
                f"{wanted}: there is no folder {wanted.folder}", place=place, remedy="Write URL#REF:FOLDER."
            )
    return found, commit


def _no_such(wanted: GitRepository, place: Place | None) -> BuildError:
    return BuildError(
        f"{wanted}: {wanted.ref} is no branch, tag or commit there", place=place, remedy="Write URL#REF:FOLDER."
    )


@frozen
class _Git:
    wanted: GitRepository
    folder: Path
    limits: Limits
    check: Callable[[], object]
    place: Place | None

    def run(self, *arguments: str) -> str:
        """What it prints. Raises `BuildError` with its last words."""
        status, said, wrong = self._called(arguments)
        if status:
            words = "\n".join(wrong.strip().splitlines()[-_LINES:])
            raise BuildError(
                f"{self.wanted}: git {arguments[0]} has failed: {words}",
                place=self.place,
                remedy="See whether git can fetch it here by itself, with the rights that it needs.",
            )
        return said

    def tries(self, *arguments: str) -> bool:
        """Whether it succeeds."""
        return self._called(arguments)[0] == 0

    def _called(self, arguments: tuple[str, ...]) -> tuple[int, str, str]:
        """Its exit code, and what it said on both streams. None of what it has started outlives it."""
        import resource
        import subprocess

        command = ("git", *(word for setting in _SETTINGS for word in ("-c", setting)), *arguments)
        # Into memory: a pipe would be waited for until whoever has inherited it has ended, too.
        with open(os.memfd_create("said"), "w+b") as said, open(os.memfd_create("wrong"), "w+b") as wrong:
            try:
                process = subprocess.Popen(
                    command,
                    cwd=self.folder,
                    env={**_without_git(), **_SURROUNDINGS},
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=wrong,
                    start_new_session=True,
                )
            except FileNotFoundError:
                raise BuildError(
                    f"{self.wanted}: there is no git here", place=self.place, remedy="Install git."
                ) from None
            try:
                if most := self.limits.layer_memory:
                    with suppress(ProcessLookupError):  # it has ended already
                        resource.prlimit(process.pid, resource.RLIMIT_DATA, (most, most))
                self._await(process.pid)
            finally:
                # Before anybody waits for it: until then the number of its group is nobody else's.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                status = process.wait()
            texts = []
            for file in (said, wrong):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
            return status, texts[0], texts[1]

    def _await(self, pid: int) -> None:
        """Until the process has ended, which is left to be waited for."""
        ended = select.poll()
        handle = os.pidfd_open(pid)
        try:
            ended.register(handle, select.POLLIN)
            due = 0.0
            while not ended.poll(_GLANCE):
                self.check()
                if (now := time.monotonic()) >= due:
                    self._require_room()
                    due = time.monotonic() + _SHARE * (time.monotonic() - now)
            self._require_room()
        finally:
            os.close(handle)

    def _require_room(self) -> None:
        """Raise `LimitExceeded` if there is more by now than a layer may have: in bytes of files, or in names."""
        size = count = 0
        for above, folders, files in os.walk(self.folder):
            count += len(folders) + len(files)
            self.limits.check("max-layer-entries", count, f"what {self.wanted} gives", "entries")
            for name in files:
                with suppress(OSError):  # git has removed it this moment
                    size += os.lstat(os.path.join(above, name)).st_size
        self.limits.check("max-layer-size", size, f"what {self.wanted} gives")


def _without_git() -> dict[str, str]:
    """This process's variables, but for those by which git would take another repository for this one."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR")
    }


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _age(folder: Path, time: int) -> None:
    for above, folders, files in os.walk(folder, topdown=False):
        for name in (*files, *folders):
            os.utime(os.path.join(above, name), ns=(time, time), follow_symlinks=False)
    os.utime(folder, ns=(time, time))
