"""What an image store is told at its construction; the composition root makes this from the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a registry or an archive may make us hold. Sizes are bytes."""

    manifest: int = 4 << 20  # manifest, index or image configuration
    layers: int = 500  # layers of one image: overlayfs takes no more
    index_depth: int = 3
    ratio: int = 1100  # uncompressed bytes for a compressed one, beyond the first 64 MiB
    image: int = 100 << 30  # uncompressed bytes of all layers of an image


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How registries are talked to. Times are seconds."""

    retries: int = 3
    connect_timeout: float = 30.0
    read_timeout: float = 30.0
    stall_timeout: float = 60.0
    minimum_rate: int = 1024  # bytes a second, over `stall_timeout`
    parallel: int = 6  # downloads at the same time over all pulls
    layers: int = 4  # layers of one image at the same time
    backoff: float = 0.5  # the first wait between two tries; doubles
    longest_wait: float = 30.0  # a Retry-After beyond this fails at once
    total: float = 4 * 3600.0  # for a whole pull


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustSettings:
    """Where the node says which images it takes. None is nothing of that kind."""

    policy: Path | None = None
    required: bool = False  # a policy file that is not there is an error, not the permission of everything
    policy_dir: Path | None = None  # NAMESPACE.json, for pods of that namespace instead of `policy`
    registries_dir: Path | None = None
    verifier_dir: Path | None = None
    max_verifiers: int = 10  # -1 is no limit
    verifier_timeout: float = 10.0
    gpg: str = "gpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPlaces:
    """Where registries' configuration and credentials lie. A place that is not there is no mistake."""

    directories: tuple[Path, ...] = ()  # certs.d; the first that knows a host decides
    registries_conf: Path | None = None  # its drop-ins lie in PATH.d
    daemon_json: Path | None = None
    auth_files: tuple[Path, ...] = ()
    namespaced_auth_dir: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """`environment` is where HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY are looked up, nothing else."""

    form: str = "auto"  # "auto", "erofs" or "directory"
    registries: RegistryPlaces = RegistryPlaces()
    pinned: tuple[str, ...] = ()  # shell patterns of names
    isolate_unpack: bool = True
    keep_compressed: bool = False  # pulled layers beside their tars, as they came: for re-export
    additional: tuple[Path, ...] = ()  # state directories of others, which are only read
    writable: Path | None = None  # where containers write, if that may be another file system
    limits: Limits = Limits()
    transfer: Transfer = Transfer()
    trust: TrustSettings = TrustSettings()
    environment: Mapping[str, str] = field(default_factory=dict)
    architecture: str = ""  # "" is this machine's, in the words of the OCI index ("amd64", "arm64")
    variant: str = ""
