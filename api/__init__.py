"""Speaks CRI: protobuf and gRPC, translation to the domain's values and back, and the composition root."""
