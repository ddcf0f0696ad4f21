"""ttrpc, the client: the small RPC protocol that shims speak over a stream socket. Knows no service."""
