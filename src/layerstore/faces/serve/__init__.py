"""The store as a registry: the OCI distribution protocol (distribution-spec 1.1).

`app` is a WSGI application; `pulling`, `pushing` and `listing` are what it answers, `uploads` what is on its way in.
`server` runs it on cheroot, with threads, TLS and limits that cheroot itself does not have; `passwords` says who may.
What is served, and under what names: `layerstore.repositories`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerstore.faces.serve.app import Limits, Registry
from layerstore.faces.serve.passwords import Passwords

if TYPE_CHECKING:
    from layerstore.faces.serve.server import Server

__all__ = ["Limits", "Passwords", "Registry", "Server"]


def __getattr__(name: str) -> Any:
    if name != "Server":  # with which comes cheroot: the application needs none of it
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from layerstore.faces.serve.server import Server

    return Server
