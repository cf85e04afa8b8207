"""The rules by BuildKit's names, and where each is explained."""

from __future__ import annotations

import re
from collections.abc import Mapping

from layerstore.values import frozen

__all__ = ["RULES", "Rule"]

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"


@frozen
class Rule:
    """One of them. An experimental one is asked for by name (`# check=experimental=NAME`)."""

    name: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """The page that explains it."""
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", self.name)
        return f"{_PAGES}{'-'.join(words).lower()}/"


_NAMES = (
    "StageNameCasing",
    "FromAsCasing",
    "NoEmptyContinuation",
    "ConsistentInstructionCasing",
    "DuplicateStageName",
    "ReservedStageName",
    "JSONArgsRecommended",
    "MaintainerDeprecated",
    "UndefinedArgInFrom",
    "WorkdirRelativePath",
    "UndefinedVar",
    "MultipleInstructionsDisallowed",
    "LegacyKeyValueFormat",
    "InvalidBaseImagePlatform",
    "RedundantTargetPlatform",
    "SecretsUsedInArgOrEnv",
    "InvalidDefaultArgInFrom",
    "FromPlatformFlagConstDisallowed",
    "CopyIgnoredFile",
    "ExposeProtoCasing",
    "ExposeInvalidFormat",
)

RULES: Mapping[str, Rule] = {
    **{name: Rule(name) for name in _NAMES},
    "InvalidDefinitionDescription": Rule("InvalidDefinitionDescription", experimental=True),
}
