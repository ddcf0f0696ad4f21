"""The `crisp` command: a client of the daemon's sockets and the node's tools."""
