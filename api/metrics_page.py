"""docs/metrics.md, written from the table of metrics: `python -m api.metrics_page > docs/metrics.md`."""

from __future__ import annotations

import sys

from api.scrape import METRICS
from api.translate.metrics import BASE_LABELS
from oci.metrics import FAMILIES, Needs

_TAIL = """
## The daemon itself

What the daemon does is told to Prometheus by HTTP at `/metrics`, off unless an address is set:

```toml
# /etc/crisp/config.toml
[metrics]
address = "127.0.0.1" # port 9713
```

Whoever reaches the address may read the names of images; there is no TLS and no password, so let it be one
that only the scraper reaches. Pulls are kubelet's, those of `crisp pull` and those of
`images.preload_dirs`; one that has ended is in the counters alone. `pull` counts them while the daemon
lives, so that two of one image can be told apart. The stages are `manifest`, `layers`, `commit`; the phases
of a layer `waiting`, `downloading`, `unpacking`, `done`, and `shared` (in the store already, or another
pull's). `crisp status` shows the same to people.

| metric | kind | labels | meaning |
|---|---|---|---|
"""

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
    own = [f"| `{one.name}` | {one.kind} | {', '.join(one.labels)} | {one.help} |" for one in METRICS]
    return "".join(
        (_HEAD.replace("LABELS", labels), *(f"{row}\n" for row in rows), _TAIL, *(f"{row}\n" for row in own))
    )


if __name__ == "__main__":
    sys.stdout.write(page())
