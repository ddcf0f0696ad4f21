"""What shims and their callers say to each other. `python -m api.proto.generate` makes the modules."""
