"""Containers that run: OCI bundles, engines from PATH, what outlives its command, and what all of them left behind.

It stands on the library's public names alone, as a container tool of somebody else would.
"""
