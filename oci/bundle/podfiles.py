"""The texts of the files that a pod's containers share: /etc/hosts, /etc/hostname, /etc/resolv.conf.

Pure. Every value of a request becomes one word or one line, whatever it contains, or is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from oci.errors import BadInput
from oci.workload import DnsConfig

MOST_BYTES = 1024 * 1024
"""The most that is copied of a file of the host."""

_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,62}[A-Za-z0-9])?\Z")
_WORD = re.compile(r"[^\s\x00-\x20\x7f-\x9f]{1,1024}\Z")
_LOCAL = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


def checked_hostname(hostname: str) -> str:
    """A host name that sethostname(2), a file's line and an environment variable can all carry.

    At most 64 characters: letters, digits, dots, dashes and underscores. Raises BadInput.
    """
    if not _HOSTNAME.match(hostname):
        raise BadInput(
            f"config.hostname: {hostname[:80]!r} is not a host name (letters, digits, '.', '_' and '-', "
            "at most 64 characters)"
        )
    return hostname


def hostname_file(hostname: str) -> str:
    """The content of /etc/hostname."""
    return f"{checked_hostname(hostname)}\n"


def hosts_file(host_copy: str, *, hostname: str = "", addresses: Iterable[str] = ()) -> str:
    """The content of /etc/hosts: the host's own, or the names of the loopback, and the pod's where known."""
    text = _copy("/etc/hosts", host_copy) or _LOCAL
    if not text.endswith("\n"):
        text += "\n"
    lines = [f"{_word('pod address', address)}\t{checked_hostname(hostname)}\n" for address in addresses]
    return text + "".join(lines)


def resolv_conf(dns: DnsConfig | None, host_copy: str) -> str:
    """The content of /etc/resolv.conf (resolv.conf(5)).

    Without a configuration it is the host's; a present and empty one gives an empty file. Raises BadInput
    for a server, search domain or option that is not one word.
    """
    if dns is None:
        return _copy("/etc/resolv.conf", host_copy)
    lines = []
    if dns.searches:
        words = [_word(f"config.dns_config.searches[{n}]", word) for n, word in enumerate(dns.searches)]
        lines.append(f"search {' '.join(words)}\n")
    for n, server in enumerate(dns.servers):
        lines.append(f"nameserver {_word(f'config.dns_config.servers[{n}]', server)}\n")
    if dns.options:
        words = [_word(f"config.dns_config.options[{n}]", word) for n, word in enumerate(dns.options)]
        lines.append(f"options {' '.join(words)}\n")
    return "".join(lines)


def _word(field: str, text: str) -> str:
    if not _WORD.match(text):
        raise BadInput(f"{field}: {text[:80]!r} is empty, too long, or has spaces or control characters")
    return text


def _copy(name: str, text: str) -> str:
    if len(text) > MOST_BYTES:
        raise BadInput(f"the host's {name} is over {MOST_BYTES} characters, it cannot be copied into pods")
    return text
