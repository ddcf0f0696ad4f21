"""`crisp pull`: an image from a registry."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli import pulling
from cli.arguments import Image, Output, session
from cli.form import Form, say_json
from cli.session import READ_TIMEOUT
from oci.errors import BadInput

_LONGEST_PASSWORD = 64 * 1024


def register(app: typer.Typer) -> None:
    app.command()(pull)


def pull(
    context: typer.Context,
    image: Image,
    username: Annotated[
        str, typer.Option("--username", "-u", metavar="USER", help="Log in; asks for the password.")
    ] = "",
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say who would be asked, and why; pull nothing.")
    ] = False,
    namespace: Annotated[
        str,
        typer.Option("--namespace", "-n", metavar="NS", help="As for a pod of it: with its credentials."),
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the image's id.")] = False,
    output: Output = Form.TABLE,
) -> None:
    """Pull an image, and say which mirror answered, named by which line, with whose credentials."""
    from api.proto import admin_pb2

    here = session(context)
    if explain:
        request = admin_pb2.ExplainPullRequest(reference=image, namespace=namespace)
        lines = list(here.admin.ExplainPull(request, timeout=READ_TIMEOUT).lines)
        if output is Form.JSON:
            say_json({"reference": image, "lines": lines})
        else:
            print("\n".join(lines))
        return
    if password_stdin and not username:
        raise BadInput("--password-stdin: needs --username too")
    password = _password(username, from_stdin=password_stdin) if username else ""
    done = pulling.pull(here, image, username=username, password=password, namespace=namespace, quiet=quiet)
    if output is Form.JSON:
        say_json({"reference": image, "id": done.image_id})
    else:
        print(done.image_id)


def _password(username: str, *, from_stdin: bool) -> str:
    if from_stdin:
        text = sys.stdin.read(_LONGEST_PASSWORD + 1)
        if len(text) > _LONGEST_PASSWORD:
            raise BadInput("--password-stdin: that is no password, it is too long")
        return text.removesuffix("\n").removesuffix("\r")
    if not sys.stdin.isatty():
        raise BadInput("--username: standard input is no terminal to ask at, use --password-stdin")
    import getpass

    return getpass.getpass(f"Password of {username}: ", stream=sys.stderr)
