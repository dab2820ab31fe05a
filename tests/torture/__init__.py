"""Faults injected into whole runs, counted: `make torture`."""
