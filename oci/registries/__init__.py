"""Which registries are asked for an image, in what order, with which credentials, and why.

Three dialects are read: containerd's `certs.d/HOST/hosts.toml` (`hosts_toml.py`), containers'
`registries.conf` (`containers.py`), Docker's `daemon.json` (`docker.py`); credentials come from the request
and from auth files (`logins.py`). `resolver.py` decides among them (docs/decisions/registries.md).
Everything here is given texts and returns values.
"""
