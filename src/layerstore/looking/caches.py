"""Folders that a program fills for its next run, and that an image has no use for. Pure."""

from __future__ import annotations

import re

from layerstore.values import frozen

__all__ = ["Leftover", "leftover_of"]


@frozen
class Leftover:
    """What some program leaves behind, and how an image comes to be without it."""

    title: str
    remedy: str
    is_cache: bool
    """Is it of use to a next build?"""


_HOME = r"(?:root|home/[^/]+)/"
_KNOWN: tuple[tuple[str, str, str], ...] = (
    (r"var/lib/apt/lists/", "package lists of apt", "`rm -rf /var/lib/apt/lists/*` at the end of the same RUN"),
    (r"var/cache/apt/", "packages that apt downloaded", "`apt-get clean` at the end of the same RUN"),
    (r"(?:var/cache|etc)/apk/.*\.(?:apk|tar\.gz)$", "cache of apk", "`apk add --no-cache`"),
    (r"var/cache/(?:dnf|libdnf5?|yum)/", "cache of dnf", "`dnf clean all` at the end of the same RUN"),
    (r"var/cache/zypp/", "cache of zypper", "`zypper clean -a` at the end of the same RUN"),
    (r"var/cache/pacman/", "packages that pacman downloaded", "`pacman -Scc --noconfirm` at the end of the same RUN"),
    (_HOME + r"\.cache/pip/", "cache of pip", "`pip install --no-cache-dir`"),
    (_HOME + r"\.cache/uv/", "cache of uv", "`uv --no-cache`"),
    (_HOME + r"\.cache/pypoetry/", "cache of poetry", "`poetry install --no-cache`"),
    (_HOME + r"\.npm/_cacache/", "cache of npm", "`npm cache clean --force` at the end of the same RUN"),
    (rf"(?:usr/local/share/|{_HOME})\.cache/yarn/", "cache of yarn", "`yarn cache clean` at the end of the same RUN"),
    (_HOME + r"\.cache/go-build/", "build cache of go", "build in a stage of its own, and COPY --from it"),
    (rf"(?:{_HOME})?go/pkg/mod/cache/", "downloads of go", "build in a stage of its own, and COPY --from it"),
    (rf"(?:usr/local/cargo|{_HOME}\.cargo)/registry/", "registry of cargo", "build in a stage, and COPY --from it"),
    (_HOME + r"\.gradle/caches/", "caches of gradle", "build in a stage of its own, and COPY --from it"),
    (_HOME + r"\.m2/repository/", "repository of maven", "build in a stage of its own, and COPY --from it"),
    (rf"{_HOME}\.(?:composer/cache|cache/composer)/", "cache of composer", "`composer install --no-cache`"),
    (r"(?:usr/local/bundle|(?:usr/local/lib/ruby|var/lib)/gems/[^/]+)/cache/", "gems as downloaded", "rm them there"),
    (r"opt/(?:conda|miniconda3?)/pkgs/", "packages of conda", "`conda clean -afy` at the end of the same RUN"),
    (_HOME + r"\.(?:cache/)?ccache/", "cache of ccache", "build in a stage of its own, and COPY --from it"),
    (r"(?:var/)?tmp/", "temporary files", "remove them in the line that makes them"),
    (r"var/log/", "logs", "remove them in the line that makes them"),
)
_OF_NO_USE = ("temporary files", "logs")
_FOUND = [
    (re.compile(pattern.encode()), Leftover(title, remedy, title not in _OF_NO_USE))
    for pattern, title, remedy in _KNOWN
]
_ANY = re.compile(b"|".join(b"(?:" + pattern.pattern + b")" for pattern, _ in _FOUND))


def leftover_of(path: bytes) -> Leftover | None:
    """What a file is left over of, if it is; `path` is without a leading slash."""
    if _ANY.match(path) is None:
        return None
    return next((leftover for pattern, leftover in _FOUND if pattern.match(path)), None)
