"""Building OCI runtime configurations: pure fragments, joined by `build` and `sandbox_init`.

Knows the runtime specification; must not know where the facts came from, nor how a runtime is called.
"""

from oci.bundle.build import OCI_VERSION, build
from oci.bundle.inputs import (
    Built,
    BundleDefaults,
    BundleInputs,
    HandlerTraits,
    NamespacePaths,
    PodFiles,
    ResolvedDevice,
    ResolvedMount,
    Rlimit,
    SandboxInitInputs,
)
from oci.bundle.process import exec_process
from oci.bundle.sandbox import sandbox_init

__all__ = [
    "OCI_VERSION",
    "Built",
    "BundleDefaults",
    "BundleInputs",
    "HandlerTraits",
    "NamespacePaths",
    "PodFiles",
    "ResolvedDevice",
    "ResolvedMount",
    "Rlimit",
    "SandboxInitInputs",
    "build",
    "exec_process",
    "sandbox_init",
]
