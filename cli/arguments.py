"""Arguments and options that several commands have, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import completion
from cli.form import Form
from cli.inventory import Realms
from cli.names import FORMS
from cli.session import Session
from oci.errors import BadInput

if TYPE_CHECKING:
    from cli.streams import Trust

Name = Annotated[
    str,
    typer.Argument(metavar="NAME", help=f"{FORMS}.", autocompletion=completion.objects, show_default=False),
]
Names = Annotated[
    list[str],
    typer.Argument(
        metavar="NAME...", help=f"{FORMS}.", autocompletion=completion.objects, show_default=False
    ),
]
ContainerName = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help=f"{FORMS}; a pod stands for its only container.",
        autocompletion=completion.containers,
        show_default=False,
    ),
]
Image = Annotated[
    str,
    typer.Argument(
        metavar="IMAGE", help="A name or an id.", autocompletion=completion.images, show_default=False
    ),
]
Namespace = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", metavar="NS", help="Only this one.", autocompletion=completion.namespaces
    ),
]
Realm = Annotated[
    Realms | None, typer.Option("--realm", help="Only kubelet's pods, or those of `crisp run`.")
]
Output = Annotated[Form, typer.Option("--output", "-o", help="For people, or for programs.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it again at every change, until Ctrl-C.")]
Grace = Annotated[
    int,
    typer.Option("--timeout", "-t", min=0, metavar="SECONDS", help="Between SIGTERM and SIGKILL."),
]

ClientCertificate = Annotated[
    Path | None,
    typer.Option(
        "--client-certificate",
        envvar="CRISP_CLIENT_CERTIFICATE",
        metavar="FILE",
        help="Shown to a streaming server that lets in none without (streaming.tls.client_ca), PEM.",
    ),
]
ClientKey = Annotated[
    Path | None,
    typer.Option(
        "--client-key",
        envvar="CRISP_CLIENT_KEY",
        metavar="FILE",
        help="The certificate's key, PEM, if it is not in the same file.",
    ),
]


def session(context: typer.Context) -> Session:
    """What the application's options made."""
    assert isinstance(context.obj, Session)
    return context.obj


def trust(here: Session, certificate: Path | None, key: Path | None) -> Trust:
    """What is taken from the daemon's streaming server, and shown to it. Raises BadInput for a key alone."""
    from cli.streams import Trust

    if certificate is None:
        if key is not None:
            raise BadInput("--client-key: it needs --client-certificate")
        return Trust(server=here.daemon.streaming_certificate)
    return Trust(server=here.daemon.streaming_certificate, pair=(certificate, key or certificate))
