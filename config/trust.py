"""Settings of trust: which images the node takes."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from config.table import Table
from config.units import Seconds
from config.values import AbsolutePath, PositiveDuration


class TrustSettings(Table):
    """Which images the node takes: containers' signature policy, and containerd's verifier plugins.

    `docs/trust.md` has what a policy can say. The files are looked at for each pull and each container.
    """

    policy: AbsolutePath | None = Field(
        default=None,
        description="The signature policy, as of containers-policy.json(5). Unset:"
        " `/etc/containers/policy.json`, and without that file everything is accepted.",
    )
    policy_dir: AbsolutePath = Field(
        default=Path("/etc/crisp/policies"),
        description="Policies of namespaces: `NAMESPACE.json` holds for its pods instead of `policy`. CRI-O's"
        " `signature_policy_dir` is `/etc/crio/policies`.",
    )
    registries_dir: AbsolutePath = Field(
        default=Path("/etc/containers/registries.d"),
        description="Files `*.yaml`, as of containers-registries.d(5), that say where GPG signatures lie.",
    )
    verifier_dir: AbsolutePath = Field(
        default=Path("/opt/containerd/image-verifier/bin"),
        description="Programs that are asked about each image at its pull, as containerd asks its image"
        " verifiers (`bin_dir`).",
    )
    max_verifiers: int = Field(
        default=10, ge=-1, description="The most programs that are asked, in name order; -1 is no limit."
    )
    verifier_timeout: PositiveDuration = Field(
        default=Seconds(10), description="The longest that one of them may take."
    )
