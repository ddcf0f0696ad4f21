"""Opening GPG signatures with gpg(1), in a home of its own that holds the policy's keys and goes with it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from oci.errors import BadInput, CrispError
from shim import process

_TIMEOUT = 20.0
_BAD = frozenset(
    {
        "BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NO_PUBKEY", "NODATA", "FAILURE",
        "DECRYPTION_INFO", "DECRYPTION_OKAY", "ENC_TO", "BEGIN_DECRYPTION", "UNEXPECTED",
    }
)  # fmt: skip


class Gpg:
    """`program` is looked up on PATH; `directory` is where homes are made."""

    def __init__(self, program: str, directory: Path) -> None:
        self._program = program
        self._directory = directory

    async def open(self, keys: Sequence[bytes], signatures: Sequence[bytes]) -> list[bytes | BadInput]:
        """For each signature the text that one of `keys` signed, or why there is none.

        Raises BadInput when gpg is missing or takes none of the keys.
        """
        program = shutil.which(self._program, path=process.PATH)
        if program is None:
            raise BadInput(f"signedBy needs {self._program}, which is not installed on this node")
        home = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="gpg-", dir=self._directory))
        try:
            opened = _Home(program, home)
            known = await opened.take(keys)
            return [await opened.text(signature, known) for signature in signatures]
        finally:
            await asyncio.to_thread(shutil.rmtree, home, ignore_errors=True)


class _Home:
    def __init__(self, program: str, home: Path) -> None:
        self._base = [
            program, "--homedir", str(home), "--no-options", "--batch", "--no-tty", "--no-autostart",
            "--no-auto-key-retrieve", "--trust-model", "always",
        ]  # fmt: skip

    async def take(self, keys: Sequence[bytes]) -> frozenset[str]:
        """Import the keys; their fingerprints."""
        known: set[str] = set()
        for key in keys:
            _, status = await self._run("--import", stdin=key)
            known.update(words[2] for words in status if words[0] == "IMPORT_OK")
        if not known:
            raise BadInput("gpg finds no public key in what the policy gives as keys")
        return frozenset(known)

    async def text(self, signature: bytes, known: frozenset[str]) -> bytes | BadInput:
        """What is signed, if exactly one signature is in it and that is good."""
        try:
            result, status = await self._run(
                "--max-output", "65536", "--output", "-", "--decrypt", stdin=signature
            )
        except CrispError as failure:
            return BadInput(failure.message)
        names = [words[0] for words in status]
        valid = [words for words in status if words[0] == "VALIDSIG"]
        if bad := [name for name in names if name in _BAD]:
            return BadInput(f"gpg calls it {bad[0]}")
        if result.returncode != 0 or names.count("GOODSIG") != 1 or len(valid) != 1:
            return BadInput("gpg does not find exactly one good signature in it")
        if names.count("PLAINTEXT") != 1:
            return BadInput("gpg does not find exactly one signed text in it")
        # the last word is the primary key's fingerprint where a subkey signed
        if not known & {valid[0][1], valid[0][-1]}:
            return BadInput("it is not by a key of the policy")
        return result.stdout

    async def _run(self, *arguments: str, stdin: bytes) -> tuple[process.Result, list[list[str]]]:
        """The result, and the words of each status line: those have a file of their own, which nothing

        that a signature or a key brings can write into.
        """
        status = os.memfd_create("gpg-status", 0)
        try:
            result = await process.run(
                [*self._base, "--status-fd", str(status), *arguments],
                env={"LC_ALL": "C"},
                timeout=_TIMEOUT,
                ok=range(256),
                stdin=stdin,
                pass_fds=(status,),
                output_limit=1 << 17,
            )
            written = os.pread(status, 1 << 17, 0)
        finally:
            os.close(status)
        return result, _words(written)


def _words(status: bytes) -> list[list[str]]:
    """DETAILS of GnuPG, "Format of the --status-fd output"."""
    lines = status.decode("ascii", "replace").splitlines()
    parted = [line.removeprefix("[GNUPG:]").split() for line in lines if line.startswith("[GNUPG:] ")]
    return [words for words in parted if words]
