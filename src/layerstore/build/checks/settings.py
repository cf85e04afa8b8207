"""What `# check=skip=…;error=true;experimental=…` asks for."""

from __future__ import annotations

from collections.abc import Iterable

from layerstore.build.checks.rules import RULES
from layerstore.build.errors import BuildError, Place
from layerstore.build.language.instructions import Dockerfile
from layerstore.build.language.likeness import nearest
from layerstore.values import frozen

__all__ = ["Settings", "settings_of"]

_ALL = "all"
_TRUE = {"1", "t", "T", "true", "TRUE", "True"}
_FALSE = {"0", "f", "F", "false", "FALSE", "False"}


@frozen
class Settings:
    """Which rules are silent, which experimental ones are not, and whether findings are errors."""

    skipped: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    @classmethod
    def read(cls, text: str) -> Settings:
        """Raises `ValueError` for what is not understood; a rule that nobody knows may be a newer one."""
        found = cls()
        for part in filter(None, (part.strip() for part in text.split(";"))):
            name, equals, value = (piece.strip() for piece in part.partition("="))
            names = frozenset(each.strip() for each in value.split(","))
            if not equals or name not in ("skip", "experimental", "error"):
                like = nearest(name, ("skip", "experimental", "error"))
                raise ValueError(f'invalid check option "{name}"{f" (did you mean {like}?)" if like else ""}')
            if name == "error":
                if value not in _TRUE | _FALSE:
                    raise ValueError(f'check option "{part}" is neither true nor false')
                found = cls(found.skipped, found.experimental, value in _TRUE)
            elif name == "skip":
                found = cls(found.skipped | names, found.experimental, found.error)
            else:
                found = cls(found.skipped, found.experimental | names, found.error)
        return found

    def with_comments(self, comments: Iterable[str]) -> Settings:
        """The same at an instruction with these comments above it. What is not understood there is a comment."""
        for comment in comments:
            name, equals, text = comment.partition("=")
            if equals and name.strip() == "check":
                try:
                    more = self.read(text.strip().partition(" ")[0])
                except ValueError:
                    return self
                return Settings(self.skipped | more.skipped, self.experimental | more.experimental, self.error)
        return self

    def wants(self, rule: str) -> bool:
        """Whether this rule is not silent."""
        if RULES[rule].experimental:
            return not self.experimental.isdisjoint((rule, _ALL))
        return self.skipped.isdisjoint((rule, _ALL))


def settings_of(dockerfile: Dockerfile) -> Settings:
    """What the file itself asks for at its top. Raises `BuildError`."""
    text = dockerfile.directives.get("check", "")
    try:
        return Settings.read(text)
    except ValueError as error:
        raise BuildError(
            str(error),
            place=Place(dockerfile.file, 1, 1, f"# check={text}"),
            remedy="Write # check=skip=RULE,RULE;error=true",
        ) from None
