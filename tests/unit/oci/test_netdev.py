from __future__ import annotations

from oci.netdev import InterfaceCounters, interfaces

TEXT = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    1000      10    0    0    0     0          0         0     1000      10    0    0    0     0       0          0
  eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0
eth0.1:99:11 12 13 14 0 0 0 0 15 16 17 18 0 0 0 0
  net1: 1 2 3 odd 0 0 0 0 5 6 7 8 0 0 0 0
  net2: 1 2
"""  # noqa: E501 - as the kernel writes it


def test_all_interfaces_but_loopback_are_read_and_odd_lines_skipped() -> None:
    assert interfaces(TEXT) == (
        InterfaceCounters(
            name="eth0", rx_bytes=1, rx_packets=2, rx_errors=3, rx_dropped=4,
            tx_bytes=5, tx_packets=6, tx_errors=7, tx_dropped=8,
        ),
        InterfaceCounters(
            name="eth0.1:99", rx_bytes=11, rx_packets=12, rx_errors=13, rx_dropped=14,
            tx_bytes=15, tx_packets=16, tx_errors=17, tx_dropped=18,
        ),
    )  # fmt: skip
    assert interfaces("") == ()
