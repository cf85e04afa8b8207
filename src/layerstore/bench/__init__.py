"""Drivers against each other, on the user's own disk: what `layerstore bench` does.

`running.measure` claims a folder (`place`), lets all who take part (`subjects`) do each of the `workloads` in turn and
gives back `results`; `comparison` tells two of those apart, `advice` says what they mean, `page` shows them. Nothing
here draws on the terminal. The store is used as any user of the library would use it.
"""
