"""Every field of a request with every value that it should not have, made from the interface's descriptors.

Knows messages and nothing of what they mean: a new field of the interface is walked without a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

MEGABYTE = 1 << 20
LONG = "x" * MEGABYTE

_TEXTS: tuple[tuple[str, str], ...] = (
    ("empty", ""),
    ("a NUL", "a\0b"),
    ("a newline", "a\nb"),
    ("a blank", " "),
    ("climbing", "../../../etc/passwd"),
    ("a word", "zz"),
    ("long", LONG),
)
_BYTES: tuple[tuple[str, bytes], ...] = (("empty", b""), ("a NUL", b"a\0b"), ("long", LONG.encode()))
_BITS = {
    FieldDescriptor.TYPE_INT32: 32,
    FieldDescriptor.TYPE_INT64: 64,
    FieldDescriptor.TYPE_UINT32: -32,
    FieldDescriptor.TYPE_UINT64: -64,
}
_WRONG_ENUM = 9999
_MANY = 200  # copies of a repeated member


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field of a request, and what is done to it. `path` is written as the interface names the fields."""

    path: tuple[str, ...]
    what: str
    apply: Callable[[Any], None]  # to the message that has the field

    @property
    def field(self) -> str:
        return ".".join(self.path)

    def to(self, request: Message) -> None:
        """Change the request in place; messages on the way that it lacks are made."""
        holder: Any = request
        for name in self.path[:-1]:
            holder = _inside(holder, name)
        self.apply(holder)


def _inside(holder: Any, name: str) -> Any:
    field = holder.DESCRIPTOR.fields_by_name[name]
    if not field.is_repeated:
        member = getattr(holder, name)
        member.SetInParent()
        return member
    members = getattr(holder, name)
    return members[0] if members else members.add()


def changes(request: Descriptor, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Every change of every field, those of messages inside included; a type inside itself is not entered."""
    for field in request.fields:
        here = (*path, field.name)
        for what, apply in _of_field(field):
            yield Change(path=here, what=what, apply=apply)
        inner = field.message_type
        if inner is not None and not _is_map(field) and inner is not request:
            yield from changes(inner, here)


def _is_map(field: FieldDescriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _of_field(field: FieldDescriptor) -> Iterator[tuple[str, Callable[[Any], None]]]:
    yield "missing", lambda holder: holder.ClearField(field.name)
    if _is_map(field):
        yield from _of_map(field)
    elif field.is_repeated:
        yield from _of_list(field)
    elif field.message_type is not None:

        def empty(holder: Any) -> None:
            getattr(holder, field.name).Clear()
            getattr(holder, field.name).SetInParent()

        yield "empty", empty
    else:
        for what, value in values(field):
            yield what, lambda holder, value=value: setattr(holder, field.name, value)


def values(field: FieldDescriptor) -> Iterator[tuple[str, Any]]:
    """What a field that holds one plain value may be given."""
    if field.type == FieldDescriptor.TYPE_STRING:
        yield from _TEXTS
    elif field.type == FieldDescriptor.TYPE_BYTES:
        yield from _BYTES
    elif field.type == FieldDescriptor.TYPE_BOOL:
        yield from (("true", True), ("false", False))
    elif field.type == FieldDescriptor.TYPE_ENUM:
        yield from ((value.name, value.number) for value in field.enum_type.values)
        yield from (("wrong", _WRONG_ENUM), ("negative", -1))
    elif field.type in _BITS:
        bits = _BITS[field.type]
        signed = bits > 0
        width = abs(bits)
        yield "zero", 0
        yield "one", 1
        yield "maximum", 2 ** (width - signed) - 1
        if signed:
            yield from (("negative", -1), ("minimum", -(2 ** (width - 1))))
    else:  # no request of the interface has another type; one that gets it must be thought of
        raise ValueError(f"{field.full_name}: type {field.type}")


def _of_map(field: FieldDescriptor) -> Iterator[tuple[str, Callable[[Any], None]]]:
    for what, text in _TEXTS:

        def key(holder: Any, text: str = text) -> None:
            getattr(holder, field.name)[text] = "value"

        def value(holder: Any, text: str = text) -> None:
            getattr(holder, field.name)["key"] = text

        yield f"key {what}", key
        yield f"value {what}", value

    def many(holder: Any) -> None:
        for number in range(_MANY):
            getattr(holder, field.name)[f"key{number}"] = "value"

    yield "many", many


def _of_list(field: FieldDescriptor) -> Iterator[tuple[str, Callable[[Any], None]]]:
    def grow(holder: Any, count: int) -> None:
        members = getattr(holder, field.name)
        if field.message_type is not None:
            pattern = field.message_type._concrete_class()
            if members:
                pattern.CopyFrom(members[0])
            for _ in range(count):
                members.add().CopyFrom(pattern)
        else:
            first = members[0] if members else next(values(field))[1]
            members.extend([first] * count)

    yield "repeated", lambda holder: grow(holder, 2)
    yield "many", lambda holder: grow(holder, _MANY)
    if field.message_type is None:
        for what, value in values(field):
            yield f"member {what}", lambda holder, value=value: getattr(holder, field.name).append(value)


def contradictions(request: Descriptor) -> st.SearchStrategy[tuple[Change, ...]]:
    """Several changes at once, of any fields of the request."""
    return st.lists(st.sampled_from(list(changes(request))), min_size=2, max_size=5).map(tuple)
