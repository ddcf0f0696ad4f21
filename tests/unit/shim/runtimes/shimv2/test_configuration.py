"""The file that gVisor's shim reads: what Crisp writes, and what it understands of others."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from oci.errors import BadInput
from oci.features import RuntimeVersion
from oci.quirks import quirks_of
from shim.runtimes.shimv2 import configuration
from shim.runtimes.shimv2.configuration import Named

RUNSC = quirks_of(RuntimeVersion(name="runsc", version="release-20260905.0"))
FILE = Path("/etc/crisp/runsc.toml")


def written(*namespaces: str) -> dict[str, Any]:
    spec = {"linux": {"namespaces": [{"type": kind} for kind in namespaces]}}
    return tomllib.loads(configuration.written(Path('/opt/my "runsc"'), Path("/run/h/runsc"), RUNSC, spec))


def test_runtime_root_and_flags_are_written_and_those_of_the_hosts_network_only_for_it() -> None:
    flags = {"oci-seccomp": "true"}
    told = {"binary_name": '/opt/my "runsc"', "root": "/run/h/runsc", "runsc_config": flags}
    assert written("network", "ipc") == told
    assert written("ipc") == {**told, "runsc_config": {**flags, "network": "host"}}


def test_somebody_elses_file_names_runtime_and_state_or_leaves_them_to_the_shim() -> None:
    text = 'binary_name = "/opt/runsc"\nroot = "/run/mine"\ngrouping = true\n'
    assert configuration.named(FILE, text) == Named(program="/opt/runsc", root=Path("/run/mine/crisp"))
    assert configuration.named(FILE, "") == Named(program="runsc", root=Path("/run/containerd/runsc/crisp"))


@pytest.mark.parametrize(
    ("text", "words"),
    [("binary_name = ", r"runsc\.toml: Invalid value \(at end of document"), ("root = 5", "must be texts")],
)
def test_a_file_that_cannot_be_read_is_named(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        configuration.named(FILE, text)
