"""Exec, attach and port-forward: protocol cores without IO, tokens, and the server around them."""
