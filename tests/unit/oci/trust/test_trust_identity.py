"""Which name a signature must have been made for."""

from __future__ import annotations

import pytest

from oci.reference import parse
from oci.trust.identity import (
    MATCH_REPO_DIGEST_OR_EXACT,
    ExactReference,
    ExactRepository,
    Identity,
    MatchExact,
    MatchRepository,
    RemapIdentity,
    accepts,
)

D = f"sha256:{'a' * 64}"
E = f"sha256:{'b' * 64}"
DEFAULT = MATCH_REPO_DIGEST_OR_EXACT
REMAP = RemapIdentity("mirror.example/hub", "docker.io")


@pytest.mark.parametrize(
    ("identity", "pulled", "signed", "good"),
    [
        (DEFAULT, "busybox:1", "docker.io/library/busybox:1", True),
        (DEFAULT, "busybox:1", "busybox:1", True),
        (DEFAULT, "busybox:1", "busybox:2", False),
        (DEFAULT, "busybox:1", "busybox", False),
        (DEFAULT, "busybox", "busybox:latest", True),
        (DEFAULT, f"busybox@{D}", "busybox:2", True),
        (DEFAULT, f"busybox:1@{D}", "busybox:2", True),
        (DEFAULT, f"busybox@{D}", f"busybox@{E}", True),
        (DEFAULT, f"busybox@{D}", "busybox", False),
        (DEFAULT, f"busybox@{D}", "other:1", False),
        (DEFAULT, "busybox:1", f"busybox@{D}", False),
        (MatchExact(), "busybox:1", "busybox:1", True),
        (MatchExact(), f"busybox@{D}", f"busybox@{D}", True),
        (MatchExact(), f"busybox@{D}", "busybox:1", False),
        (MatchExact(), "busybox:1", "busybox", False),
        (MatchRepository(), "busybox:1", "busybox:2", True),
        (MatchRepository(), "busybox:1", "busybox", True),
        (MatchRepository(), f"busybox@{D}", "busybox", True),
        (MatchRepository(), "a.example/busybox:1", "busybox:1", False),
        (ExactReference("a.example/x:1"), "busybox:1", "a.example/x:1", True),
        (ExactReference("a.example/x:1"), "busybox:1", "a.example/x:2", False),
        (ExactReference("a.example/x:1"), "busybox:1", "a.example/x", False),
        (ExactRepository("a.example/x"), "busybox:1", "a.example/x:9", True),
        (ExactRepository("a.example/x"), "busybox:1", "a.example/xy:9", False),
        (REMAP, "mirror.example/hub/library/busybox:1", "docker.io/library/busybox:1", True),
        (REMAP, "mirror.example/hub/library/busybox:1", "docker.io/library/busybox:2", False),
        (REMAP, f"mirror.example/hub/library/busybox@{D}", "docker.io/library/busybox:2", True),
        (REMAP, "mirror.example/hubs/library/busybox:1", "docker.io/library/busybox:1", False),
        (REMAP, "mirror.example/hubs/busybox:1", "mirror.example/hubs/busybox:1", True),
        (RemapIdentity("m.example/a/b", "o.example/c"), "m.example/a/b:1", "o.example/c:1", True),
        (RemapIdentity("m.example", "not a host/"), "m.example/b:1", "m.example/b:1", False),
        (MatchRepository(), "busybox:1", "", False),
        (MatchRepository(), "busybox:1", "No Name", False),
        (MatchRepository(), "busybox:1", "a" * 64, False),
    ],
)
def test_a_name_is_accepted_as_the_identity_says(
    identity: Identity, pulled: str, signed: str, good: bool
) -> None:
    assert accepts(identity, parse(pulled), signed) is good
