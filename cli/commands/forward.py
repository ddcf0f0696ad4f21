"""`crisp port-forward`: local ports that lead into a pod."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli import names
from cli.arguments import ClientCertificate, ClientKey, Name, session, trust
from cli.form import note
from cli.session import READ_TIMEOUT
from oci.errors import BadInput


def register(app: typer.Typer) -> None:
    app.command("port-forward")(port_forward)


def port_forward(
    context: typer.Context,
    name: Name,
    ports: Annotated[
        list[str], typer.Argument(metavar="[LOCAL:]PORT...", help="A pod's port; LOCAL 0 is a free one.")
    ],
    address: Annotated[
        str, typer.Option("--address", metavar="ADDRESS", help="Where to listen.")
    ] = "127.0.0.1",
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
) -> None:
    """Forward connections from this machine to ports of a pod, until Ctrl-C.

    In the pod they come from its own loopback, so a server that listens there alone is reached too.
    """
    from api.proto import cri_pb2
    from cli.streams import forward

    pairs = dict(parse_ports(text) for text in ports)
    here = session(context)
    trusted = trust(here, client_certificate, client_key)
    target = names.find(name, here.inventory())
    assert target.pod is not None or target.container is not None
    pod = target.pod.id if target.pod is not None else target.container.pod_id  # type: ignore[union-attr]
    request = cri_pb2.PortForwardRequest(pod_sandbox_id=pod, port=sorted(set(pairs.values())))
    url = here.realm(target.realm).runtime.PortForward(request, timeout=READ_TIMEOUT).url
    asyncio.run(forward(url, pairs, trust=trusted, address=address, say=note))


def parse_ports(text: str) -> tuple[int, int]:
    """`8080:80` or `80` as (local, the pod's). Raises BadInput."""
    local, _, remote = text.rpartition(":")
    remote_port = _port(remote, text, least=1)
    return (_port(local, text, least=0) if local else remote_port), remote_port


def _port(word: str, text: str, *, least: int) -> int:
    if not (word.isascii() and word.isdecimal() and least <= int(word) <= 65535):
        raise BadInput(f"PORT: {text!r} is neither a port nor LOCAL:PORT")
    return int(word)
