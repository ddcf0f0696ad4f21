"""Numbers as Prometheus reads them."""

from __future__ import annotations

from oci.exposition import Metric, Point, exposed

PLAIN = Metric(name="a_total", kind="counter", help="One\\two.")
NAMED = Metric(name="b", kind="gauge", help="B.", labels=("x", "y"))


def test_each_family_has_its_head_and_its_points() -> None:
    points = [
        Point(1.5, {"x": 'quote" back\\slash\nline', "y": "", "unnamed": "z"}),
        Point(7, {"x": "é", "y": "2"}),
    ]
    assert exposed([(PLAIN, [Point(12345678901234567, {})]), (NAMED, points), (NAMED, [])]) == (
        "# HELP a_total One\\\\two.\n"
        "# TYPE a_total counter\n"
        "a_total 12345678901234567\n"
        "# HELP b B.\n"
        "# TYPE b gauge\n"
        'b{x="quote\\" back\\\\slash\\nline",y=""} 1.5\n'
        'b{x="é",y="2"} 7\n'
        "# HELP b B.\n"
        "# TYPE b gauge\n"
    )
