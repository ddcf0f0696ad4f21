"""`crisp`: its commands, the options that all of them have, and the way from an error to an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from cli import exits, quick
from cli.commands import (
    attach,
    config,
    containers,
    doctor,
    events,
    execute,
    forward,
    images,
    inspect,
    logs,
    pull,
    remove,
    run,
    status,
    upkeep,
)
from cli.form import note
from cli.places import Options
from cli.session import Connector, Session
from oci.errors import CrispError

app = typer.Typer(
    name="crisp",
    help="Look at and work with the pods, containers and images of this node.",
    epilog="Names: NAMESPACE/POD[/CONTAINER], POD[/CONTAINER] where it is unique, or the beginning of an id."
    " Exit status: 0 done, 1 failed, 2 wrong use, 3 no such object, 4 daemon not there or busy;"
    " `run` and `exec` end with the status of the command.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            number = metadata.version("crisp-cri")
        except metadata.PackageNotFoundError:
            number = "not installed"
        print(f"crisp {number}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config_file: Annotated[
        str,
        typer.Option("--config", envvar="CRISP_CONFIG", metavar="FILE", help="The daemon's configuration."),
    ] = "",
    run_dir: Annotated[
        str,
        typer.Option("--run-dir", envvar="CRISP_RUN_DIR", metavar="DIR", help="Where its sockets are."),
    ] = "",
    socket: Annotated[
        str,
        typer.Option("--socket", envvar="CRISP_SOCKET", metavar="PATH", help="Its admin socket."),
    ] = "",
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version and stop.")
    ] = False,
) -> None:
    options = Options(config=config_file, run_dir=run_dir, socket=socket)
    context.obj = Session(options, connector=context.obj)


_ROOMS = (
    containers, run, logs, execute, attach, forward, inspect, images, pull, upkeep, remove, status, doctor,
    config, events,
)  # fmt: skip

for _room in _ROOMS:
    _room.register(app)


def main(arguments: Sequence[str] | None = None, *, connector: Connector | None = None) -> int:
    """Run the command; returns the exit status."""
    try:
        command = typer.main.get_command(app)
        quick.spare(command)
        command.main(arguments, prog_name="crisp", obj=connector)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else exits.FAILED
    except CrispError as error:
        note(str(error))
        return exits.status_of(error)
    except UnicodeEncodeError as error:
        # An argument that was typed in another encoding; texts of the wire are UTF-8.
        note(f"{error.object[:80]!r} is not UTF-8, and the daemon understands nothing else")
        return exits.USAGE
    except KeyboardInterrupt:
        return exits.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has enough. What is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    return exits.OK


if __name__ == "__main__":
    sys.exit(main())
