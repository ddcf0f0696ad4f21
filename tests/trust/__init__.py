"""Keys, certificates, a transparency log and signatures, made for tests as cosign, Fulcio and Rekor do."""
