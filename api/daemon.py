"""`crispd`: options, start, signals, stop. What it is made of is decided in `api/composition.py`."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from api import sockets
from api.composition import assemble
from api.logs import configure
from api.notify import Notifier
from api.server import Server
from config.loading import MAIN_FILE, ConfigError, LoadedSettings, load
from oci.errors import CrispError
from shim.priority import prefer
from shim.threads import fill

log = logging.getLogger(__name__)

_THREADS = 16
"""For short blocking work. Where processors are scarce a thread that starts a child waits with it for one."""

_SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that computes lets the event loop have the interpreter; Python's is ten times
that, and a loop that makes ten system calls would wait ten times."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon until a signal; returns the exit status: 0, 1 (cannot run), 2 (configuration)."""
    options = _parser().parse_args(arguments)
    try:
        loaded = load(options.config or MAIN_FILE, required=options.config is not None, spare_handlers=True)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - the log is not set up yet
        return 2
    configure(loaded.settings.log.level, loaded.settings.log.format)
    os.umask(0o022)
    try:
        asyncio.run(run(loaded))
    except CrispError as error:
        log.critical("crispd cannot run", extra={"error": str(error)})
        return 1
    return 0


async def run(loaded: LoadedSettings, *, on_commit: Callable[[int], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises what keeps the daemon from starting."""
    started = time.time_ns()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="crispd")
    fill(pool, _THREADS)
    loop.set_default_executor(pool)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Until there is something to reload it means nothing; by default it would end the daemon.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    notifier = Notifier()
    settings = loaded.settings
    paths = [*settings.listen, settings.run_socket, settings.admin_socket]
    await asyncio.to_thread(_claim, paths)
    assembly = await assemble(loaded, load=_again(loaded), on_commit=on_commit)
    try:
        server = Server(assembly, started_at=started)
        await server.start()
        try:
            await assembly.recover()
            loop.add_signal_handler(signal.SIGHUP, assembly.reloads.soon)
            # What was loaded so far lives as long as the daemon: the collector need not walk it again.
            gc.collect()
            gc.freeze()
            prefer()
            server.ready()
            notifier.ready()
            log.info("serving", extra={"sockets": ", ".join(map(str, settings.listen)), "pid": os.getpid()})
            await stop.wait()
            log.info("stopping")
            notifier.stopping()
        finally:
            await server.stop(grace=float(settings.shutdown_timeout))
            await notifier.close()
    finally:
        await assembly.close()


def _again(loaded: LoadedSettings) -> Callable[[], LoadedSettings] | None:
    """Reads the same files once more; None for settings that came from no file."""
    if not loaded.looked_for:
        return None
    main = loaded.looked_for[0]
    return lambda: load(main, required=main in loaded.files, spare_handlers=True)


def _claim(paths: Sequence[Path]) -> None:
    for path in paths:
        sockets.claim(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="crispd",
        description="Crisp, a Kubernetes container runtime: serves CRI to kubelet.",
        epilog="Settings are explained in docs/configuration.md; `crisp config check` checks a file.",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"read this file and the *.toml of conf.d beside it (default: {MAIN_FILE})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
