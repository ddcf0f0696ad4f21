"""A shim's program: `-v`, `start`, `delete`, and the process that `start` leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from shim.runtimes.shimv2.proto import bootstrap_pb2, task_pb2
from tests.doubles.shims import events, sandbox
from tests.doubles.shims.install import Plan
from tests.doubles.shims.ways import WAYS, Answer, Need, Ways

SOCKETS = Path("/run/containerd/s")
_VALUES = frozenset({"namespace", "address", "publish-binary", "id", "bundle", "socket"})


@dataclass
class Flags:
    """The command line, as Go's flag package reads it."""

    values: dict[str, str] = field(default_factory=dict)
    verb: str = ""

    def of(self, name: str) -> str:
        return self.values.get(name, "")


def main(setup: str) -> None:
    """`setup` is what `install` wrote, as JSON."""
    told: dict[str, Any] = json.loads(setup)
    ways = WAYS[told["ways"]]
    plans = {name: Plan(**plan) for name, plan in told["plans"].items()}
    flags = parse(sys.argv[1:])
    with Path(told["calls"]).open("a") as calls:
        calls.write(f"{flags.verb or '-v'} {flags.of('id')}".rstrip() + "\n")
    plan = plans.get(flags.verb or "-v")
    if plan is not None and not plan.after:
        misbehave(plan)
    if "v" in flags.values:
        print(ways.version)
    elif flags.verb == "start":
        start(ways, flags, told, plans)
    elif flags.verb == "delete":
        delete(ways, flags, told)
    else:
        die(f"unknown command {flags.verb!r}")


def parse(words: list[str]) -> Flags:
    flags = Flags()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            flags.verb = word
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name in _VALUES and not equals:
            value = rest.pop(0) if rest else die(f"flag needs an argument: -{name}")
        flags.values[name] = value
    return flags


def die(words: str) -> NoReturn:
    print(words, file=sys.stderr)
    sys.exit(1)


def misbehave(plan: Plan) -> NoReturn:
    """What a verb of the program does wrong."""
    match plan.act:
        case "fail":
            die(plan.words)
        case "hang":
            time.sleep(600)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "garbage":
            sys.stdout.buffer.write(bytes(range(256)))
    sys.stdout.flush()
    sys.exit(0)


def start(ways: Ways, flags: Flags, told: dict[str, Any], plans: dict[str, Plan]) -> None:
    id_, events_at = flags.of("id"), os.environ.get("TTRPC_ADDRESS", "")
    if ways.params:
        events_at = read_params(id_)
    if not id_:
        die("shim id cannot be empty")
    if ways.publisher and not flags.of("publish-binary"):
        die("Argument is not defined: publish-binary")
    if not Path("log").is_fifo():
        die("opening log: no such file or directory")
    wanted = ways.events is Need.ALWAYS or (ways.events is Need.START and events_at != "")
    if wanted and not events.reachable(events_at):
        die(f"failed to connect to the events service at {events_at!r}: connection refused")
    config = json.loads(Path("config.json").read_bytes())
    kind, of = sandbox.kind_of(config)
    group = of if ways.grouped and kind == "container" else id_
    named = f"{flags.of('address')}/{flags.of('namespace')}/{group}"
    address = SOCKETS / hashlib.sha256(named.encode()).hexdigest()
    if not (address.exists() and events.reachable(str(address))):
        serve_in_a_child(ways, flags, told, plans, address, events_at)
    for name in ways.files:
        if name == "address":
            Path(name).write_text(f"unix://{address}")
    plan = plans.get("start")
    if plan is not None:
        misbehave(plan)
    sys.stdout.buffer.write(answer(ways, f"unix://{address}"))
    sys.stdout.flush()


def read_params(id_: str) -> str:
    """BootstrapParams from standard input; where events are taken."""
    given = sys.stdin.buffer.read()
    params = bootstrap_pb2.BootstrapParams()
    if given:
        params.ParseFromString(given)
    if not params.instance_id:
        die("shim requires bootstrap params on stdin: flags are a deprecated API")
    if params.instance_id != id_:
        die(f"instance id {params.instance_id} is not {id_}")
    return params.containerd_ttrpc_address


def answer(ways: Ways, address: str) -> bytes:
    match ways.answer:
        case Answer.RAW:
            return address.encode()
        case Answer.JSON:
            document = {"version": ways.task, "address": address, "protocol": "ttrpc"}
            return json.dumps(document).encode()
        case Answer.RESULT:
            result = bootstrap_pb2.BootstrapResult(version=ways.task, address=address, protocol="ttrpc")
            return result.SerializeToString()


def serve_in_a_child(
    ways: Ways, flags: Flags, told: dict[str, Any], plans: dict[str, Plan], address: Path, events_at: str
) -> None:
    SOCKETS.mkdir(parents=True, exist_ok=True)
    address.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(address))
    listener.listen()
    child = os.fork()
    if child:
        listener.close()
        if "shim.pid" in ways.files:
            Path("shim.pid").write_text(str(child))
        return
    try:
        os.setsid()
        null, log = os.open(os.devnull, os.O_RDWR), os.open("log", os.O_WRONLY)
        for number, descriptor in ((0, null), (1, null), (2, log)):
            os.dup2(descriptor, number)
        asyncio.run(serve(ways, flags, told, plans, listener, events_at))
        address.unlink(missing_ok=True)
    except BaseException as error:  # noqa: BLE001 - the child must not go on as its parent
        with contextlib.suppress(OSError):
            print(f"level=fatal msg={error!r}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


async def serve(
    ways: Ways,
    flags: Flags,
    told: dict[str, Any],
    plans: dict[str, Plan],
    listener: socket.socket,
    events_at: str,
) -> None:
    from tests.doubles.shims.below import Children
    from tests.doubles.shims.serving import Server
    from tests.doubles.shims.tasks import Tasks

    stopped = asyncio.Event()
    tasks = Tasks(
        ways,
        id_=flags.of("id"),
        state=Path(told["state"]),
        runtime=told["runtime"],
        children=Children(),
        publisher=events.Publisher(events_at, ways.events, flags.of("namespace")),
        stop=stopped.set,
        oom_delay=plans["oom"].seconds if "oom" in plans else 0.0,
    )
    server = Server(tasks.methods(), plans, calls=Path(told["calls"]))
    serving = await asyncio.start_unix_server(server.serve, sock=listener)
    await stopped.wait()
    serving.close()


def delete(ways: Ways, flags: Flags, told: dict[str, Any]) -> None:
    """What a dead shim left of a container: its processes, its sandbox, the runtime's memory of it."""
    if ways.publisher and not (flags.of("publish-binary") and flags.of("bundle")):
        die("Argument is not defined: publish-binary or bundle")
    id_, state = flags.of("id"), Path(told["state"])
    if ways.state and not Path(ways.state).exists():  # in the bundle, where it is run
        die(f"open {Path.cwd() / ways.state}: no such file or directory")
    place = state / id_
    if (place / "root").exists():
        command = [told["runtime"], "--root", (place / "root").read_text(), "delete", "--force", id_]
        subprocess.run(command, capture_output=True, check=False)
    rootfs = place / "bundle/rootfs"
    if rootfs.is_mount():
        subprocess.run(["umount", "--lazy", rootfs], check=False)
    sandbox.end(state, id_)
    subprocess.run(["rm", "-rf", place], check=False)
    result = task_pb2.DeleteResponse(exit_status=128 + signal.SIGKILL)
    result.exited_at.FromNanoseconds(time.time_ns())
    sys.stdout.buffer.write(result.SerializeToString())
    sys.stdout.flush()
