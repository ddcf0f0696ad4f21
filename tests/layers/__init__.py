"""Layers for tests: archives composed byte by byte, trees seen through a mount, and the fuzzer's seeds."""
