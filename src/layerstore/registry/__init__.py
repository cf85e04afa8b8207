"""Registries: images pulled, pushed and copied over the OCI distribution protocol."""
