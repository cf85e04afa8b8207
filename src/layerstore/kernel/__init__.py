"""Everything that talks to Linux: the compiled shim and the modules that front it. Nothing else makes a system call."""
