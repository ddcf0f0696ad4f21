"""What the dashboards that most clusters have ask of `/metrics/cadvisor`, and which series answer.

The questions are those of kubernetes-mixin (16f3cbb: the dashboards of a pod, a namespace and a node, and the
recording rules below them). Each is the selector alone, for only that can be empty: sums and rates around it
need no more than two answers of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

CONTAINERS = 'container!=""'
NOT_THE_PAUSE = 'container!="", container!="POD"'
WITH_IMAGE = 'container!="", image!=""'
ON_A_DISK = 'container!="", device=~"(/dev.+)|mmcblk.p.+|nvme.+|rbd.+|sd.+|vd.+|xvd.+|dm-.+|dasd.+"'

OF_CONTAINERS: Mapping[str, str] = {
    "processor time": f"container_cpu_usage_seconds_total{{{WITH_IMAGE}}}",
    "throttled periods": f"container_cpu_cfs_throttled_periods_total{{{CONTAINERS}}}",
    "periods of the quota": f"container_cpu_cfs_periods_total{{{CONTAINERS}}}",
    "working set": f"container_memory_working_set_bytes{{{WITH_IMAGE}}}",
    "anonymous memory": f"container_memory_rss{{{NOT_THE_PAUSE}}}",
    "file cache": f"container_memory_cache{{{NOT_THE_PAUSE}}}",
    "swap": f"container_memory_swap{{{NOT_THE_PAUSE}}}",
}
"""What is summed by container."""

OF_DISKS: Mapping[str, str] = {
    "reads": f"container_fs_reads_total{{{ON_A_DISK}}}",
    "writes": f"container_fs_writes_total{{{ON_A_DISK}}}",
    "bytes read": f"container_fs_reads_bytes_total{{{ON_A_DISK}}}",
    "bytes written": f"container_fs_writes_bytes_total{{{ON_A_DISK}}}",
}
"""By container too, where the kernel counts it."""

OF_PODS: Mapping[str, str] = {
    f"{what} {way}": f"container_network_{way}_{name}_total{{}}"
    for way in ("receive", "transmit")
    for what, name in {"bytes": "bytes", "packets": "packets", "packets dropped": "packets_dropped"}.items()
}
"""What is summed by pod."""


@dataclass(frozen=True, slots=True)
class Series:
    """One line of Prometheus' text format: a metric's name, its labels, its value."""

    name: str
    labels: Mapping[str, str]
    value: float


def series(text: str) -> list[Series]:
    """All series with labels of an answer in Prometheus' text format, version 0.0.4.

    Raises ValueError where a line has a label twice, as where a collector adds one that was there.
    """
    found = []
    for line in text.splitlines():
        matched = re.fullmatch(r"(\w+)\{(.*)\} (\S+)(?: -?\d+)?", line)
        if matched:
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', matched[2])
            if len(dict(pairs)) != len(pairs):
                raise ValueError(f"a label comes twice: {line}")
            found.append(Series(matched[1], dict(pairs), float(matched[3])))
    return found


def select(selector: str, among: list[Series]) -> list[Series]:
    """The series that a selector of PromQL gives: equality and regular expressions, both also negated.

    A label that a series does not have is empty, and an expression is held against the whole of it.
    """
    parts = re.fullmatch(r"(\w+)\{(.*)\}", selector)
    if parts is None:
        raise ValueError(f"no selector: {selector}")
    wanted = re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', parts[2])
    return [
        one
        for one in among
        if one.name == parts[1]
        and all(_holds(one.labels.get(label, ""), sign, value) for label, sign, value in wanted)
    ]


def _holds(given: str, sign: str, value: str) -> bool:
    same = re.fullmatch(value, given) is not None if "~" in sign else given == value
    return same is not sign.startswith("!")
