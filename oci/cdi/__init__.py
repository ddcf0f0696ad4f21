"""The Container Device Interface (CDI): specifications, qualified names, and what they change in a bundle.

Pure: files are read and device nodes are looked at in `shim/cdi.py`.
"""

from oci.cdi.edits import Edits
from oci.cdi.names import QualifiedName, asked_names, qualified
from oci.cdi.registry import Registry
from oci.cdi.spec import DeviceNodeEdit, Hook, MountEdit, Spec, parse

__all__ = [
    "DeviceNodeEdit",
    "Edits",
    "Hook",
    "MountEdit",
    "QualifiedName",
    "Registry",
    "Spec",
    "asked_names",
    "parse",
    "qualified",
]
