"""What is answered instead of a result: a code of gRPC, as containerd understands it, and a sentence."""

from __future__ import annotations

from enum import Enum

__all__ = ["Code", "Refused"]


class Code(Enum):
    """The codes that mean something to containerd. Their values are gRPC's names."""

    ALREADY_EXISTS = "ALREADY_EXISTS"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    NOT_FOUND = "NOT_FOUND"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    UNAVAILABLE = "UNAVAILABLE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    """Of a diff: containerd asks the next of its differs."""
    UNKNOWN = "UNKNOWN"


class Refused(Exception):
    """A call that cannot be done, for a reason that the API has a code for."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
