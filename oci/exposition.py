"""Numbers in Prometheus' text format 0.0.4. Pure: families in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Point:
    """One number. Equal labels must not come twice in a family."""

    value: float
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    name: str
    kind: str  # "counter" or "gauge"
    help: str
    labels: tuple[str, ...] = ()  # the names of every point's


def exposed(metrics: Iterable[tuple[Metric, Iterable[Point]]]) -> str:
    """The page. A family without a number has its head all the same: dashboards find the name."""
    lines = []
    for metric, points in metrics:
        lines.append(f"# HELP {metric.name} {_escaped(metric.help)}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        for point in points:
            labels = ",".join(
                f'{name}="{_escaped(point.labels[name], quotes=True)}"' for name in metric.labels
            )
            lines.append(f"{metric.name}{{{labels}}} {_number(point.value)}" if labels else
                         f"{metric.name} {_number(point.value)}")  # fmt: skip
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text
