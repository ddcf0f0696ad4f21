"""Holding images against the node's policy: reading it, finding signatures, asking gpg and verifiers.

What is decided, is decided in `oci/trust/`; `gate.py` is the door.
"""
