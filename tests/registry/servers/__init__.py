"""Registries for tests, on 127.0.0.1 and a free port: Debian's docker-registry, and one of our own that misbehaves."""
