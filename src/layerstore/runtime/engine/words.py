"""What an engine says of a failure, and which error that is.

With `--log-format json` runc, crun and youki write one object a line, with `level` and `msg`; the text of crun is bare
words, and of errors alone. Only those texts are understood that say what docker's exit codes 126 and 127 stand for:
each engine has its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from layerstore import CannotRun, read_own

__all__ = ["code_of", "failure", "words_in", "words_of"]

_MISSING = re.compile(
    r"executable file [`\"']?.*not found|exec: \".*\": stat .*: no such file or directory"
    r"|executable .* (doesn't exist|not found)|find executable|exec .*: no such file or directory$",
    re.IGNORECASE,
)
_NOT_EXECUTABLE = re.compile(
    r"open executable: |exec: \".*\": (permission denied|is a directory)|exec .*: permission denied$"
    r"|exec format error|not executable|execve?\b.*permission denied",
    re.IGNORECASE,
)
_NOT_ALLOWED = re.compile(r"cgroup|operation not permitted|permission denied", re.IGNORECASE)
_NO_FOLDER = re.compile(r"chdir", re.IGNORECASE)
_COLOURED = re.compile(r"^\x1b\[[\d;]*m\S+Z: (.*)\x1b\[0m$")
"""As crun writes to a terminal, and to its log beside that: in red, behind the time."""

_PREFIX = re.compile(
    r"^(runc|crun|youki) (run|create|start|exec) failed: |^unable to start container process: |^exec failed: "
)


def words_in(log: Path) -> list[str]:
    """The errors that an engine's log tells of; none if there is no log."""
    try:
        return words_of(read_own(log))
    except FileNotFoundError:
        return []


def words_of(log: bytes) -> list[str]:
    """The errors of a log, in order, each once, without the log's form. A line that is no JSON is taken as it is."""
    found: list[str] = []
    for line in log.decode(errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            text = _COLOURED.sub(r"\1", line.strip())
        elif str(told.get("level", "error")).lower() in ("error", "fatal", "panic"):
            text = str(told.get("msg", "")).strip()
        else:
            continue
        text = _bare(text)
        if text and text not in found:
            found.append(text)
    return found


def _bare(text: str) -> str:
    while (shorter := _PREFIX.sub("", text)) != text:
        text = shorter
    return text


_REMEDIES = {
    127: "Look which programs the image has: in a folder of its PATH, or give the whole path.",
    126: "It has to be an executable file, of this machine's kind, that the container's user may execute.",
}


def code_of(words: Iterable[str]) -> int:
    """docker's exit code for what an engine says: 127 (no such program), 126 (it cannot be executed), else 125."""
    texts = list(words)
    if any(_MISSING.search(text) for text in texts):
        return 127
    return 126 if any(_NOT_EXECUTABLE.search(text) for text in texts) else 125


def failure(what: str, words: Sequence[str], *, is_told: bool = False, usual: int = 125) -> CannotRun:
    """The error for what could not be done (`container web cannot be started`), with the engine's words.

    `usual`: its code where docker has none for these words.
    """
    if not words:
        return CannotRun(f"{what}: the engine does not say why", remedy="The kernel's log (dmesg) may say more.")
    code = code_of(words)
    remedy = _REMEDIES.get(code)
    if any(_NO_FOLDER.search(text) for text in words):
        remedy = "Begin in a folder that the container has, and that its user may enter."
    elif code == 125 and _is_users() and any(_NOT_ALLOWED.search(text) for text in words):
        remedy = "An OCI runtime wants the machine's root. As another user, run programs with --isolation process."
    code = usual if code == 125 else code
    return CannotRun(f"{what}: {'; '.join(words)}", code=code, remedy=remedy, is_told=is_told)


def _is_users() -> bool:
    """Is this an ordinary user's namespace, whose root may not do what the machine's may?"""
    try:
        return Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]
    except OSError:  # a kernel without such namespaces
        return False
