"""The RuntimeDefault seccomp profile: a table of our own, and the filter made from it."""

from oci.bundle.seccomp.profile import runtime_default

__all__ = ["runtime_default"]
