"""The one error of templates. It is a layerstore error, so that the command line shows it like any other."""

from __future__ import annotations

from layerstore.errors import LayerstoreError


class TemplateError(LayerstoreError):
    """A template cannot be read, or asks for what the data does not have."""

    def __init__(self, message: str) -> None:
        super().__init__(f"template: {message}")
