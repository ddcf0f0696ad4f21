"""Formats: the OCI runtime and image specifications, CNI, cgroup text, logs, as values and pure functions.

Nothing in here opens a file, starts a process or waits: bytes and facts come in as arguments.
"""
