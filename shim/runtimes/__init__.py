"""Runtimes: the one driver interface, its implementations, and the table of handlers."""
