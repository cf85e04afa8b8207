"""Other places that may have layers: stores that serve theirs, registries, buckets. Asked before the upstream."""
