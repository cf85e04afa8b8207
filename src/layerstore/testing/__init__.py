"""For the tests of driver authors, of programs that use layerstore, and of layerstore itself. Extra: `testing`.

Nothing in the library imports this package, and it imports what a driver author has: the public names, the interface
of drivers, and `kernel`; never the tar engine or the database, which it is there to judge.
"""
