"""Crisp beside containerd on one machine, with the same work: see docs/performance.md."""
