"""One repository of a registry: manifests, tags and referrers; blobs read by ranges, and sent in each way there is."""
