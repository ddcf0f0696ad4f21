"""Run by test_leaks.py alone (its name keeps it out of collection): leaves a link, which must fail it."""

from __future__ import annotations

import subprocess


def test_that_leaves_a_link_behind() -> None:
    subprocess.run(["ip", "link", "add", "crisp-left", "type", "bridge"], check=True)
