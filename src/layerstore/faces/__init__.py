"""Faces of a store: other ways to reach it than Python and the command line. Each uses its public names only."""
