"""Namespaces of pods: made without a process that stays, kept by bind mounts, swept by name."""
