"""Names without a registry: what `fedora` means on this node.

An alias of registries.conf decides, else its `unqualified-search-registries`. Where it has none, a short name
is Docker Hub's, as kubelet, Docker and containerd take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from oci.errors import BadInput
from oci.reference import Reference, parse
from oci.registries.containers import Alias, Registries
from oci.registries.endpoint import Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """The references that a name may stand for, the first to be asked first, and why."""

    references: tuple[Reference, ...]
    steps: tuple[Step, ...] = ()


def is_short(text: str) -> bool:
    """Whether a name that parses has no registry of its own."""
    head, slash, _ = text.partition("@")[0].partition("/")
    return not (slash and ("." in head or ":" in head or head == "localhost" or head.lower() != head))


def meaning(text: str, configured: Registries, *, field: str = "image") -> Meaning:
    """What `text` stands for. Raises BadInput: no reference, or ambiguous where that is not allowed."""
    plain = parse(text, field=field)
    if not is_short(text) or not (configured.aliases or configured.search):
        return Meaning(references=(plain,))
    bare, alias = _alias(text, configured.aliases)
    if alias is not None:
        target = parse(alias.name)
        found = replace(target, tag=plain.tag, digest=plain.digest)
        return Meaning(
            references=(found,),
            steps=(Step(text=f"{bare} is an alias of {alias.name}", origin=alias.origin),),
        )
    if not configured.search:
        return Meaning(references=(plain,))
    if configured.mode == "enforcing" and len(configured.search) > 1:
        names = ", ".join(registry for registry, _ in configured.search)
        raise BadInput(
            f"{field}: {bare} may be of {names}, and short-name-mode is enforcing in"
            f" {configured.mode_origin}: write the registry, or an alias"
        )
    rest = text[len(bare) :]
    found_in = _searched(bare, rest, configured.search, field)
    steps = tuple(
        Step(text=f"{bare} is looked for at {registry}", origin=origin)
        for registry, origin in configured.search
    )
    return Meaning(references=found_in, steps=steps)


def _searched(bare: str, rest: str, search: Iterable[tuple[str, str]], field: str) -> tuple[Reference, ...]:
    return tuple(dict.fromkeys(parse(f"{registry}/{bare}{rest}", field=field) for registry, _ in search))


def _alias(text: str, aliases: Mapping[str, Alias]) -> tuple[str, Alias | None]:
    """The name without tag and digest, and its alias that was not taken back."""
    bare = text.partition("@")[0].partition(":")[0]
    alias = aliases.get(bare)
    return bare, alias if alias is not None and alias.name else None
