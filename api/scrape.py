"""The metrics of the daemon itself, for Prometheus: calls by their outcome, and every pull as it goes.

What containers use is asked over CRI instead (`docs/metrics.md`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from api.door import Call
from api.plain_http import Answer
from oci.exposition import CONTENT_TYPE, Metric, Point, exposed
from shim.images.progress import DONE, PullProgress, PullTotals

_PULL = ("image", "pull", "stage")
_LAYER = ("image", "pull", "layer", "phase")

CALLS = Metric(
    name="crisp_calls_total", kind="counter", help="Calls that ended, by their code.",
    labels=("service", "method", "code"),
)  # fmt: skip
SECONDS = Metric(
    name="crisp_call_seconds_total", kind="counter", help="What they took together.",
    labels=("service", "method", "code"),
)  # fmt: skip
PULLS = Metric(
    name="crisp_image_pulls_total", kind="counter",
    help="Pulls that ended: well, with an error, or because their last caller went.", labels=("result",),
)  # fmt: skip
CAME = Metric(
    name="crisp_image_pull_received_bytes_total", kind="counter",
    help="Compressed bytes of layers that came from registries, also such as were given up.",
)  # fmt: skip
RECEIVED = Metric(
    name="crisp_image_pull_received_bytes", kind="gauge",
    help="Of each pull under way: compressed bytes of layers that are here.", labels=_PULL,
)  # fmt: skip
TOTAL = Metric(
    name="crisp_image_pull_total_bytes", kind="gauge",
    help="Of each pull under way: compressed bytes of its layers.", labels=_PULL,
)  # fmt: skip
RATE = Metric(
    name="crisp_image_pull_rate_bytes_per_second", kind="gauge",
    help="Of each pull under way: the mean of what came over the network since it began.", labels=_PULL,
)  # fmt: skip
LAYER_RECEIVED = Metric(
    name="crisp_image_pull_layer_received_bytes", kind="gauge",
    help="Of each layer of a pull under way: compressed bytes that are here.", labels=_LAYER,
)  # fmt: skip
LAYER_TOTAL = Metric(
    name="crisp_image_pull_layer_total_bytes", kind="gauge",
    help="Of each layer of a pull under way: its compressed bytes.", labels=_LAYER,
)  # fmt: skip

METRICS = (CALLS, SECONDS, PULLS, CAME, RECEIVED, TOTAL, RATE, LAYER_RECEIVED, LAYER_TOTAL)


class Scrape:
    """Counts calls while they end, and reads how pulls go when it is asked."""

    def __init__(
        self, *, progress: Callable[[], Sequence[PullProgress]], totals: Callable[[], PullTotals]
    ) -> None:
        self._progress = progress
        self._totals = totals
        self._calls: Counter[tuple[str, str, str]] = Counter()
        self._seconds: dict[tuple[str, str, str], float] = {}

    def observe(self, call: Call) -> None:
        key = (call.service, call.method, call.code)
        self._calls[key] += 1
        self._seconds[key] = self._seconds.get(key, 0.0) + call.seconds

    def answer(self, method: str, target: str) -> Answer:
        """`GET /metrics`; nothing else is there."""
        if method not in ("GET", "HEAD") or target.partition("?")[0] != "/metrics":
            return Answer(status=404, body=b"GET /metrics\n", content_type="text/plain")
        return Answer(status=200, body=self.page().encode(), content_type=CONTENT_TYPE)

    def page(self) -> str:
        totals = self._totals()
        running = [one for one in self._progress() if one.stage != DONE]
        ended = {"ok": totals.ok, "error": totals.failed, "cancelled": totals.cancelled}
        return exposed(
            (
                (CALLS, [Point(n, _named(CALLS, key)) for key, n in self._calls.items()]),
                (SECONDS, [Point(n, _named(SECONDS, key)) for key, n in self._seconds.items()]),
                (PULLS, [Point(n, {"result": result}) for result, n in ended.items()]),
                (CAME, [Point(totals.received, {})]),
                (RECEIVED, [Point(one.received, _pull(one)) for one in running]),
                (TOTAL, [Point(one.total, _pull(one)) for one in running]),
                (RATE, [Point(round(one.rate, 1), _pull(one)) for one in running]),
                (LAYER_RECEIVED, [point for one in running for point in _layers(one, "received")]),
                (LAYER_TOTAL, [point for one in running for point in _layers(one, "total")]),
            )
        )


def _named(metric: Metric, values: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, values, strict=True))


def _pull(one: PullProgress) -> dict[str, str]:
    return {"image": one.reference, "pull": str(one.number), "stage": one.stage}


def _layers(one: PullProgress, member: str) -> Iterator[Point]:
    for layer in one.layers:
        labels = {**_pull(one), "layer": layer.digest, "phase": layer.phase.value}
        yield Point(getattr(layer, member), labels)
