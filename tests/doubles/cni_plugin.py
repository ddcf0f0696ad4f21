"""A CNI plugin that does as its script says: started as `python -I cni_plugin.py DIRECTORY NAME`.

`DIRECTORY/script.json` maps "NAME VERB" or "VERB" to what to do; without an entry it succeeds. Every call is
recorded in `DIRECTORY/calls.jsonl` before anything else happens. Standard library only. The entries:

    {"do": "succeed", "addresses": ["10.1.2.3/24"]}   answer; "started" and "until" are named pipes: the first
                                                      is opened to say so, the second is waited for
    {"do": "fail", "code": 7, "msg": "…", "details": "…"}
    {"do": "say", "text": "…", "status": 0}           any output and status
    {"do": "die", "signal": 9}
    {"do": "hang", "ignore_term": true, "child": true}  for ever; the child ignores TERM and holds the output
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def record(directory: Path, name: str, config: str) -> None:
    variables = {key: value for key, value in os.environ.items() if key.startswith("CNI_")}
    call = {
        "plugin": name,
        "verb": os.environ.get("CNI_COMMAND", ""),
        "environment": variables,
        "path": os.environ.get("PATH", ""),
        "config": json.loads(config) if config else None,
        "pid": os.getpid(),
    }
    descriptor = os.open(directory / "calls.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, json.dumps(call).encode() + b"\n")
    os.close(descriptor)


def answer(config: dict[str, Any], addresses: list[str]) -> dict[str, Any]:
    previous: dict[str, Any] | None = config.get("prevResult")
    if previous is not None:
        return previous
    interface = os.environ["CNI_IFNAME"]
    return {
        "cniVersion": config["cniVersion"],
        "interfaces": [{"name": "br0"}, {"name": interface, "sandbox": os.environ["CNI_NETNS"]}],
        "ips": [{"address": address, "interface": 1} for address in addresses],
    }


def hang(directory: Path, entry: dict[str, Any]) -> None:
    if entry.get("child") and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (directory / "child").write_text(str(os.getpid()))
    elif entry.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    meet(entry)
    while True:
        signal.pause()


def meet(entry: dict[str, Any]) -> None:
    if "started" in entry:
        Path(entry["started"]).open("wb").close()
    if "until" in entry:
        Path(entry["until"]).open("rb").close()


def main() -> int:
    directory, name = Path(sys.argv[1]), sys.argv[2]
    text = sys.stdin.read()
    record(directory, name, text)
    script = json.loads((directory / "script.json").read_text())
    verb = os.environ.get("CNI_COMMAND", "")
    entry = script.get(f"{name} {verb}", script.get(verb, {"do": "succeed"}))
    config = json.loads(text) if text else {}
    match entry["do"]:
        case "hang":
            hang(directory, entry)
        case "die":
            os.kill(os.getpid(), entry["signal"])
        case "say":
            sys.stdout.write(entry["text"])
            return int(entry.get("status", 0))
        case "fail":
            error = {key: value for key, value in entry.items() if key in ("code", "msg", "details")}
            sys.stdout.write(json.dumps({"cniVersion": config.get("cniVersion", "1.0.0"), **error}))
            return 1
    meet(entry)
    if verb == "ADD":
        sys.stdout.write(json.dumps(answer(config, entry.get("addresses", ["10.99.0.5/24"]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
