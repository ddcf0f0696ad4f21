"""What Prometheus is told of calls and pulls."""

from __future__ import annotations

from api.door import Call
from api.scrape import METRICS, Scrape
from oci.exposition import CONTENT_TYPE
from shim.images.progress import DONE, LayerProgress, Phase, PullProgress, PullTotals

LAYER = LayerProgress(digest="sha256:1", phase=Phase.DOWNLOADING, received=10, total=30)


def pull(stage: str, number: int) -> PullProgress:
    return PullProgress(
        reference="docker.io/library/busybox:latest",
        stage=stage,
        endpoint="",
        credential_source="",
        origin="",
        started_at=1,
        received=10,
        total=30,
        rate=2.25,
        layers=(LAYER,),
        number=number,
    )


def scrape() -> Scrape:
    found = Scrape(
        progress=lambda: (pull(DONE, 1), pull("layers", 2), pull("layers", 3)),
        totals=lambda: PullTotals(ok=4, failed=3, cancelled=2, received=99),
    )
    for code, seconds in (("OK", 0.25), ("OK", 0.5), ("NOT_FOUND", 1.0)):
        found.observe(Call(service="ImageService", method="PullImage", code=code, seconds=seconds))
    return found


def test_the_page_has_every_metric_once_and_no_line_twice() -> None:
    page = scrape().page()
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert [page.count(f"# TYPE {one.name} {one.kind}\n") for one in METRICS] == [1] * len(METRICS)
    assert len(lines) == len(set(lines))
    of_pull = 'image="docker.io/library/busybox:latest",pull="{}",stage="layers"'
    of_layer = 'image="docker.io/library/busybox:latest",pull="{}",layer="sha256:1",phase="downloading"'
    of_call = 'service="ImageService",method="PullImage",code="{}"'
    expected = [
        f"crisp_calls_total{{{of_call.format('OK')}}} 2",
        f"crisp_calls_total{{{of_call.format('NOT_FOUND')}}} 1",
        f"crisp_call_seconds_total{{{of_call.format('OK')}}} 0.75",
        f"crisp_call_seconds_total{{{of_call.format('NOT_FOUND')}}} 1",
        'crisp_image_pulls_total{result="ok"} 4',
        'crisp_image_pulls_total{result="error"} 3',
        'crisp_image_pulls_total{result="cancelled"} 2',
        "crisp_image_pull_received_bytes_total 99",
    ]
    for name, labels, value in (
        ("received_bytes", of_pull, "10"),
        ("total_bytes", of_pull, "30"),
        ("rate_bytes_per_second", of_pull, "2.2"),
        ("layer_received_bytes", of_layer, "10"),
        ("layer_total_bytes", of_layer, "30"),
    ):
        expected += [f"crisp_image_pull_{name}{{{labels.format(number)}}} {value}" for number in (2, 3)]
    assert lines == expected


def test_only_the_page_is_served() -> None:
    served = scrape()
    for target in ("/metrics", "/metrics?collect[]=x"):
        answer = served.answer("GET", target)
        assert (answer.status, answer.content_type, answer.body.decode()) == (
            200,
            CONTENT_TYPE,
            served.page(),
        )
    assert [served.answer(*asked).status for asked in (("POST", "/metrics"), ("GET", "/"))] == [404, 404]
