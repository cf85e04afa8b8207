"""The store as a registry: the OCI distribution protocol (distribution-spec 1.1).

`app` is a WSGI application; `pulling`, `pushing` and `listing` are what it answers, `uploads` what is on its way in.
`server` runs it on cheroot, with threads, TLS and limits that cheroot itself does not have; `passwords` says who may.
What is served, and under what names: `layerstore.repositories`.
"""

from layerstore.faces.serve.app import Limits, Registry
from layerstore.faces.serve.passwords import Passwords

__all__ = ["Limits", "Passwords", "Registry"]
