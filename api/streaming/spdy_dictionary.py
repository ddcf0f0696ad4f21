"""The dictionary with which SPDY/3 header blocks are compressed (draft-mbelshe-httpbis-spdy-00, 2.6.10.1).

Both sides must have the same 1423 bytes; their Adler-32 stands in every first header block.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

_WORDS: Final = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges"
    " age allow authorization cache-control connection content-base content-encoding content-language"
    " content-length content-location content-md5 content-range content-type date etag expect expires from"
    " host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location"
    " max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer"
    " transfer-encoding upgrade user-agent vary via warning www-authenticate method get status 200_OK"
    " version HTTP/1.1 url public set-cookie keep-alive origin"
)
"""Each stands in the dictionary behind its length (32 bits); `_` is a space."""

_TAIL: Final = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)

ADLER32: Final = 0xE3C6A7C2
"""What zlib writes into its header for this dictionary (RFC 1950, DICTID)."""


def _assemble() -> bytes:
    words = [word.replace("_", " ").encode("ascii") for word in _WORDS.split(" ")]
    made = b"".join(struct.pack(">I", len(word)) + word for word in words) + _TAIL.encode("ascii")
    assert zlib.adler32(made) == ADLER32, "the SPDY/3 dictionary is damaged"
    return made


DICTIONARY: Final = _assemble()
