"""The keys that end an attached session and leave the container running, found in what is typed."""

from __future__ import annotations

from oci.errors import BadInput

DEFAULT = "ctrl-p,ctrl-q"


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes that the keys send; "" is no keys at all. Raises BadInput."""
    keys = bytearray()
    for word in text.split(",") if text else ():
        name = word.strip().lower()
        control = name.removeprefix("ctrl-")
        if len(name) == 1 and name.isascii() and name.isprintable():
            keys += name.encode("ascii")
        elif control != name and len(control) == 1 and control in "abcdefghijklmnopqrstuvwxyz@[\\]^_":
            keys.append(ord(control.upper()) & 0x1F)
        else:
            raise BadInput(f"--detach-keys: {word!r} is neither one character nor ctrl- and a letter")
    return bytes(keys)


class DetachKeys:
    """Looks for the keys in a stream of input, which may cut them anywhere."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def receive(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be sent on, and whether the keys were typed. Their beginning is kept back until then."""
        if not self._keys:
            return data, False
        sent = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched = 0
                    return bytes(sent), True
                continue
            sent += self._keys[: self._matched]
            self._matched = 1 if byte == self._keys[0] else 0
            if not self._matched:
                sent.append(byte)
        return bytes(sent), False
