"""The processes behind lazy layers: a holder, which keeps readers waiting, and a fetcher, which gets what they want.

`python -m layerstore.holding` starts the holder of a store (`layers.holder`). It has little to do, so that it does not
fail: it reads what the kernel asks (`kernel.watching`), passes it on to the fetcher, and answers. Both have the watch,
so that one of them may die; and a `warden` has it, which does nothing, so that both may.
"""
