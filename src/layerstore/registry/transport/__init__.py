"""One request to a registry, and what it takes: where it is, who we are, connections, retries, errors in words."""
