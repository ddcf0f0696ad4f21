"""Who may have made an image: containers' `policy.json`, its requirements, and the signatures that meet them.

Formats and decisions only: files, registries and gpg are asked by `shim/images/trust/`, which hands in what
it found. Sources: containers-policy.json(5), containers-registries.d(5), containers-signature(5), cosign's
signature specification, Rekor's and Fulcio's specifications.
"""
