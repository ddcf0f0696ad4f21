"""docs/metrics.md, written from the table of metrics: `python -m api.metrics_page > docs/metrics.md`."""

from __future__ import annotations

import sys

from api.translate.metrics import BASE_LABELS
from oci.metrics import FAMILIES, Needs

_HEAD = """\
# Metrics and usage over CRI

kubelet asks the runtime for usage in two forms: `ListContainerStats` and `ListPodSandboxStats` for
`/stats/summary`, and `ListPodSandboxMetrics` for `/metrics/cadvisor`, the latter with its feature gate
`PodAndContainerStatsFromCRI`. Crisp answers both from one reading: numbers are at most a second old, and each
group of them carries the time at which it was read. Nothing is read while nobody asks.

- A writable layer is measured by walking it. One whose walk takes long is walked less often: not again before
  twenty times as long has passed. Over a million files it is not counted.
- A pod's interfaces are read inside its network namespace by one thread for all pods; no process is started.
  Pods with the host's network have no network numbers.
- A pod without a `cgroup_parent` has no cgroup of its own: its numbers are the sum of its running containers.

## Metrics

`ListMetricDescriptors` names what this machine has, and only that: `container_memory_max_usage_bytes` needs
Linux 5.19 on cgroup version 2, pressure needs version 2. Every sample has the labels LABELS,
then those of the table. Values are whole numbers.

| metric | kind | needs | more labels | meaning |
|---|---|---|---|---|
"""


def page() -> str:
    """The page for users."""
    labels = ", ".join(f"`{label}`" for label in BASE_LABELS)
    rows = [
        f"| `{one.name}` | {one.kind.value} | {'' if one.needs is Needs.NOTHING else one.needs.value}"
        f" | {', '.join(one.labels)} | {one.help} |"
        for one in FAMILIES
    ]
    return _HEAD.replace("LABELS", labels) + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
