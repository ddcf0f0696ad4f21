"""The real parts that tests run against and Debian does not have: names, versions, how each is compiled.

The one place where their versions stand. A part is built from its Go module, checked by Go's sum database, or
from its crate, checked by the registry's index and its own lock file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

GO_AT_LEAST = (1, 26, 2)  # what the newest of the modules below asks for; go.lock has one that answers
RUST_AT_LEAST = (1, 88, 0)  # what the crates that they need ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One Go module at one version.

    `programs` maps each binary's name to its package below the module, `tests` the same for test binaries
    (`go test -c`). `beside` maps a binary to a package of a module that this one already requires. `staging`
    is the version of the modules that this one has in its own tree and requires as `v0.0.0` (Kubernetes).
    """

    module: str
    version: str
    programs: Mapping[str, str] = field(default_factory=dict)
    tests: Mapping[str, str] = field(default_factory=dict)
    beside: Mapping[str, str] = field(default_factory=dict)
    staging: str = ""
    tags: str = ""
    cgo: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crate:
    """A Rust program, built with the dependencies that its own Cargo.lock names."""

    name: str
    version: str
    features: tuple[str, ...] = ()


PARTS: Mapping[str, Part | Crate] = {
    "cri-tools": Part(
        module="sigs.k8s.io/cri-tools",
        version="v1.36.0",
        programs={"crictl": "cmd/crictl"},
        tests={"critest": "cmd/critest"},
        beside={"ginkgo": "github.com/onsi/ginkgo/v2/ginkgo"},  # critest runs specs in parallel by it
    ),
    "containerd": Part(
        module="github.com/containerd/containerd/v2",
        version="v2.4.2",
        programs={name: f"cmd/{name}" for name in ("containerd", "containerd-shim-runc-v2", "ctr")},
    ),
    "runc": Part(
        module="github.com/opencontainers/runc",
        version="v1.5.2",
        programs={"runc": "."},
        tags="seccomp",
        cgo=True,
    ),
    # Without cgo: linked dynamically, no sandbox of runsc starts.
    "runsc": Part(
        module="gvisor.dev/gvisor",
        version="v0.0.0-20260905035102-160fafc42237",
        programs={"runsc": "runsc", "containerd-shim-runsc-v1": "shim"},
    ),
    "youki": Crate(name="youki", version="0.7.0", features=("seccomp", "systemd", "v1", "v2")),
    "cni-plugins": Part(
        module="github.com/containernetworking/plugins",
        version="v1.9.1",
        programs={
            name.rpartition("/")[2]: f"plugins/{name}"
            for name in ("main/bridge", "main/loopback", "main/ptp", "ipam/host-local", "meta/portmap")
        },
    ),
    "kubectl": Part(
        module="k8s.io/kubernetes",
        version="v1.37.2",
        programs={"kubectl": "cmd/kubectl"},
        staging="v0.37.2",
    ),
    # The wire definitions of shims, to prove ours equal.
    "containerd-api": Part(module="github.com/containerd/containerd/api", version="v1.12.0"),
    "containerd-cgroups": Part(module="github.com/containerd/cgroups/v3", version="v3.1.3"),
    "ttrpc": Part(module="github.com/containerd/ttrpc", version="v1.2.9"),
    "kubelet": Part(
        module="k8s.io/kubernetes",
        version="v1.37.2",
        programs={"kubelet": "cmd/kubelet"},
        staging="v0.37.2",
    ),
    # The types of what kubectl applies, to hold our manifests against.
    "kube-api": Part(module="k8s.io/api", version="v0.37.2"),
    # What kubelet and kubectl speak to, and what an operator joins a node with.
    "kube-apiserver": Part(
        module="k8s.io/kubernetes",
        version="v1.37.2",
        programs={"kube-apiserver": "cmd/kube-apiserver"},
        staging="v0.37.2",
    ),
    "kubeadm": Part(
        module="k8s.io/kubernetes",
        version="v1.37.2",
        programs={"kubeadm": "cmd/kubeadm"},
        staging="v0.37.2",
    ),
    "etcd": Part(
        module="go.etcd.io/etcd/server/v3",
        version="v3.7.3",
        programs={"etcd": "."},
    ),
    # kubelets that people still run; `--kubelets all` builds them.
    "kubelet-1.34": Part(
        module="k8s.io/kubernetes",
        version="v1.34.4",
        programs={"kubelet": "cmd/kubelet"},
        staging="v0.34.4",
    ),
    "kubelet-1.30": Part(
        module="k8s.io/kubernetes",
        version="v1.30.14",
        programs={"kubelet": "cmd/kubelet"},
        staging="v0.30.14",
    ),
    "cri-api": Part(module="k8s.io/cri-api", version="v0.37.2"),
}
