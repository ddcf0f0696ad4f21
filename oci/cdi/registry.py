"""All specifications of a node together: which device a name means, and what is wrong where.

Of two specifications that have a device of one name the one in the later directory wins; within one directory
neither does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from oci.cdi.edits import Edits, union
from oci.cdi.names import QualifiedName
from oci.cdi.spec import ContainerEdits, Spec
from oci.errors import BadInput, Unsupported

_MOST_LISTED = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """`directories` are where it was looked, lowest precedence first; `problems` say what was passed over."""

    specs: Mapping[QualifiedName, Spec] = field(default_factory=dict)
    conflicts: Mapping[QualifiedName, tuple[str, ...]] = field(default_factory=dict)  # files
    directories: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, directories: Sequence[tuple[str, Iterable[Spec]]], problems: Iterable[str] = ()) -> Registry:
        """From the specifications of each directory, lowest precedence first."""
        chosen: dict[QualifiedName, Spec] = {}
        conflicts: dict[QualifiedName, tuple[str, ...]] = {}
        for _, specs in directories:
            here: dict[QualifiedName, list[Spec]] = {}
            for spec in specs:
                for name in spec.devices:
                    here.setdefault(QualifiedName(spec.kind, name), []).append(spec)
            for qualified, found in here.items():
                chosen.pop(qualified, None)
                conflicts.pop(qualified, None)
                if len(found) == 1:
                    chosen[qualified] = found[0]
                else:
                    conflicts[qualified] = tuple(spec.source for spec in found)
        return cls(
            specs=chosen,
            conflicts=conflicts,
            directories=tuple(name for name, _ in directories),
            problems=tuple(problems),
        )

    def edits(self, asked: Mapping[QualifiedName, str]) -> Edits:
        """What the devices change together, each specification's own edits once.

        `asked` has the field of the request by name. Raises BadInput for a device that is not there, or
        twice, Unsupported for an edit that cannot be made.
        """
        seen: set[str] = set()
        parts: list[Edits] = []
        for name, where in asked.items():
            spec = self._find(name, where)
            what = f"{where}: {str(name)!r} of {spec.source}"
            if spec.source not in seen:
                seen.add(spec.source)
                parts.append(_edits(spec.edits, what))
            parts.append(_edits(spec.devices[name.name], what))
        return union(parts)

    def _find(self, name: QualifiedName, where: str) -> Spec:
        if name in self.specs:
            return self.specs[name]
        if name in self.conflicts:
            raise BadInput(f"{where}: {str(name)!r} is in several files: {', '.join(self.conflicts[name])}")
        raise BadInput(f"{where}: no device {str(name)!r}; {self._there(name.kind)}")

    def _there(self, kind: str) -> str:
        looked = ", ".join(self.directories) or "no directory"
        known = sorted(str(name) for name in self.specs)
        near = [name for name in known if name.startswith(f"{kind}=")] or known
        listed = ", ".join(near[:_MOST_LISTED]) + (" and more" if len(near) > _MOST_LISTED else "")
        words = f"there are {listed}" if near else "there is none"
        passed = f"; passed over: {'; '.join(self.problems)}" if self.problems else ""
        return f"{words} (specifications are read from {looked}){passed}"


def _edits(found: ContainerEdits, what: str) -> Edits:
    if found.intelRdt is not None:
        raise Unsupported(f"{what}: edits intelRdt, and Crisp manages no resctrl groups")
    if found.netDevices:
        raise Unsupported(f"{what}: edits netDevices, which need OCI runtime-spec 1.3")
    return Edits(
        env=found.env,
        nodes=found.deviceNodes,
        mounts=found.mounts,
        hooks=found.hooks,
        groups=found.additionalGids,
    )
