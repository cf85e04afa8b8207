"""Leases that outlive processes and boots: layers that are kept for owners whom the core does not know."""
