"""Whether anything is lost: the walks of `layerstore.testing.torture` over all drivers, by day a sample, by night all.

`subjects` are the drivers and filesystems, `more` the operations of rooms above the store, `night` is `make torture`.
"""
