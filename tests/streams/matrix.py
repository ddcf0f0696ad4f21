"""Which client was seen to do what: the table of docs/streaming.md, and the test behind each cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from api.streaming.channels import SPDY, WEBSOCKET

COLUMNS: Final = ("exec", "exec, terminal", "attach", "attach, terminal", "port-forward", "cp")
FILES: Final = (
    "tests/component/streaming/test_matrix.py",
    "tests/component/streaming/test_port_forward.py",
    "tests/component/cli/test_streams.py",
    "tests/conformance/test_streaming_clients.py",
    "tests/conformance/test_critest.py",
)
_MATRIX, _FORWARD, _CLI, _CLIENTS, _CRITEST = FILES


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`cells` are node ids of tests, "" where the client has no such operation."""

    client: str
    protocol: str
    cells: tuple[str, ...]


def rows() -> Iterator[Row]:
    """The table, own clients last."""
    for transport, protocol in (("spdy", "SPDY, v4"), ("websocket", "WebSocket, v5")):
        crictl = f"{_CLIENTS}::test_crictl_execs_attaches_and_forwards[{transport}]"
        typed = f"{_CLIENTS}::test_crictl_has_a_terminal[{transport}]"
        cells = (crictl, typed, crictl, typed, crictl, "")
        yield Row(client="crictl 1.36.0", protocol=protocol, cells=cells)
        kubectl = f"{_CLIENTS}::test_kubectl_execs_copies_forwards_and_attaches[{transport}]"
        typed = f"{_CLIENTS}::test_kubectl_has_a_terminal[{transport}]"
        cells = (kubectl, typed, kubectl, typed, kubectl, kubectl)
        yield Row(client="kubectl 1.37.2", protocol=protocol, cells=cells)
    for name, protocol in (
        ("critest_passes", "SPDY, v4"),
        ("streaming_passes_over_websockets_too", "WebSocket, v5"),
    ):
        test = f"{_CRITEST}::test_{name}[runc]"
        yield Row(client="critest 1.36.0", protocol=protocol, cells=(test, test, test, "", test, ""))
    cells = ("exec_passes_input_and_output_and_the_status", "exec_at_a_terminal_is_raw_and_sized")
    yield Row(
        client="crisp",
        protocol="WebSocket, v5; port-forward SPDY",
        cells=(
            *(f"{_CLI}::test_{name}" for name in cells),
            "",
            f"{_CLI}::test_attach_types_into_the_container_and_leaves_it_running",
            f"{_CLI}::test_a_forwarded_port_leads_into_the_pod",
            "",
        ),
    )
    for transport, versions in (("SPDY", SPDY), ("WebSocket", WEBSOCKET)):
        for version in versions.values():
            name = version.name or "(none)"
            made = tuple(
                f"{_MATRIX}::test_{operation}_{how}_a_terminal[{transport} {name}]"
                for operation in ("exec", "attach")
                for how in ("without", "with")
            )
            yield Row(client="the suite's own", protocol=f"{transport}, `{name}`", cells=(*made, "", ""))
    forward = f"{_FORWARD}::test_bytes_go_both_ways_and_halves_close_alone"
    for protocol, test in (
        ("SPDY, `portforward.k8s.io`", f"{forward}[SPDY]"),
        ("WebSocket, `SPDY/3.1+portforward.k8s.io`", f"{forward}[tunnel]"),
        ("WebSocket, `v4.channel.k8s.io`", f"{_FORWARD}::test_the_old_channels_carry_a_port_each"),
    ):
        yield Row(client="the suite's own", protocol=protocol, cells=("", "", "", "", test, ""))


def table() -> str:
    """In Markdown."""
    head = ("client", "protocol", *COLUMNS)
    lines = [head, ("---",) * len(head)]
    lines += [(row.client, row.protocol, *("yes" if cell else "" for cell in row.cells)) for row in rows()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
