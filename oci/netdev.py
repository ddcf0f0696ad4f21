"""/proc/net/dev: the counters of a network namespace's interfaces (proc_pid_net(5)). Pure."""

from __future__ import annotations

from dataclasses import dataclass

_COLUMNS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class InterfaceCounters:
    """Bytes, packets, and packets lost, since the interface was made."""

    name: str
    rx_bytes: int
    rx_packets: int
    rx_errors: int
    rx_dropped: int
    tx_bytes: int
    tx_packets: int
    tx_errors: int
    tx_dropped: int


def interfaces(text: str) -> tuple[InterfaceCounters, ...]:
    """Every interface but loopback, in the kernel's order. Lines of another form are skipped."""
    found = []
    for line in text.splitlines():
        name, colon, rest = line.strip().rpartition(":")
        words = rest.split()
        if not colon or name == "lo" or len(words) < _COLUMNS or not all(map(str.isdigit, words)):
            continue
        numbers = list(map(int, words))
        found.append(
            InterfaceCounters(
                name=name,
                rx_bytes=numbers[0],
                rx_packets=numbers[1],
                rx_errors=numbers[2],
                rx_dropped=numbers[3],
                tx_bytes=numbers[8],
                tx_packets=numbers[9],
                tx_errors=numbers[10],
                tx_dropped=numbers[11],
            )
        )
    return tuple(found)
