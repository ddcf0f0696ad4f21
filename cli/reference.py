"""Makes docs/crisp.md from the command itself: `python -m cli.reference docs/crisp.md`.

Owns the page's words that are not in the help of a command. A test holds the page equal to what this makes.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cli.main import app

_INTRODUCTION = """\
# The `crisp` command

<!-- Made by `python -m cli.reference docs/crisp.md`: edit the commands in cli/, not this. -->

`crisp` is for the people of a node: it looks at and works with what `crispd` runs. It speaks to the daemon's
sockets, so it needs root. Every command explains itself with `-h`.

## Names

Wherever a pod or container is named, these are understood; `crisp --install-completion` makes the shell
complete them.

| written | means |
|---|---|
| `NAMESPACE/POD`, `NAMESPACE/POD/CONTAINER` | the newest pod of that name; its container's newest attempt |
| `POD`, `POD/CONTAINER` | the same, where no other namespace has a pod of that name |
| the beginning of an id | exactly that pod or container; older attempts are reached like this |

A pod stands for its container where a container is wanted and it has only one. Pods of `crisp run` are in the
namespace `run`, in a realm of their own: kubelet neither sees them nor kills them.

## Where the daemon is

`crisp` reads the same configuration as `crispd` and finds the sockets there. Another daemon is reached with
`--config FILE` (`CRISP_CONFIG`), `--run-dir DIR` (`CRISP_RUN_DIR`) or `--socket PATH` (`CRISP_SOCKET`), which
stand before the command: `crisp --run-dir /run/other ps`. Without a daemon `logs`, `config` and `doctor` do
what can be done from files.

## Exit status

| status | meaning |
|---|---|
| 0 | done |
| 1 | failed; for `status` and `doctor`: something is not well; for `config check`: there are mistakes |
| 2 | wrong use: an unknown option, a value that cannot be, a name that means several objects |
| 3 | what was named does not exist |
| 4 | the daemon is not there or not ready yet, or the object is busy: try again |
| 130 | interrupted |

`run` and `exec` end with the status of the process in the container, 128 and the signal's number if one ended
it. Their own failures use the numbers above and are told on standard error with the word `crisp:` before.

## Output for programs

`-o json` prints one JSON document whose members stay: later releases may add some, and remove or change none.
Times are RFC 3339 in UTC with nine digits, `null` where there is none; sizes are bytes; ids are complete.
Notes for people go to standard error.

"""

_SHAPES = {
    "ps": "a list of containers: `id`, `realm`, `namespace`, `pod`, `pod_id`, `name`, `attempt` (how often"
    " it was restarted), `state` (`creating`, `created`, `starting`, `running`, `exited`, `unknown`,"
    " `removing`), `created_at`, `started_at`, `finished_at`, `exit_code` (`null` before the end), `reason`,"
    " `message`, `image`, `image_id`, `handler`, `pid`, `log_path`, `labels`, `annotations`, `fault`"
    " (what could not be undone yet). With `--watch` one such list a line.",
    "pods": "a list of pods: `id`, `realm`, `namespace`, `name`, `uid`, `attempt`, `state` (`creating`,"
    " `ready`, `stopping`, `notready`, `removing`), `created_at`, `handler`, `addresses` (the primary one"
    " first), `labels`, `annotations`, `fault`. With `--watch` one such list a line.",
    "images": "a list of images: `id`, `tags`, `digests`, `size`, `pinned`, `additional_store`.",
    "import": "a list of the imported images: `id`, `names`.",
    "pull": "`reference`, `id`; with `--explain` `reference`, `lines`.",
    "fsck": "`layers` and `read` (bytes) that were checked, `findings`: `problem`, `layer`, `images`, `pods`,"
    " `repaired` (how), `failure` (why not).",
    "prune": "a list of what went, or would go: `what`, `bytes`.",
    "status": "`version`, `pid`, `started_at`, `ready_at`, `resident_bytes`, `state_directory`,"
    " `run_directory`, `conditions` (`type`, `status`, `reason`, `message`), `realms` (`name`, `sockets`,"
    " `pods`, `pods_ready`, `containers`, `containers_running`), `images` (how many),"
    " `pulls` (`reference`, `started_at`, `stage`, `received`, `total`, `rate`, `layers`: `digest`, `phase`,"
    " `received`, `total`).",
    "doctor": "a list of checks: `area`, `name`, `verdict` (`ok`, `warning`, `problem`), `found`, `advice`.",
    "handlers": "`default_origin` and `handlers`: `name`, `kind`, `binary`, `version`, `default`, `problem`,"
    " `origin`, `features`, `pods` (that were started with it), `notes`, `root`, `former` (no longer"
    " configured so, and kept for its pods).",
    "events": "one object a line: `sequence`, `time`, `kind` (`pod`, `container`, `image`), `realm`, `id`,"
    " `name`, `state` (the one entered; `removed` at the end).",
    "config show": "a list of settings: `key`, `value` (in TOML's notation, or `unset`), `origin`.",
}

_EXAMPLES = {
    "run": """\
crisp run --rm -m 64MiB busybox sh -c 'echo hello; exit 3'; echo $?
crisp run -d --name web -p 8080:80 -v ./site:/www:ro busybox httpd -f -h /www
crisp logs -f web
crisp stop web && crisp rm web
""",
    "export": """\
crisp export busybox busybox.tar
crisp export busybox - | ssh other 'cat > busybox.tar && crisp import busybox.tar'
""",
    "logs": """\
crisp logs --tail 20 -f kube-system/coredns-7c9d/coredns
crisp logs --previous --since 1h web
""",
    "exec": "crisp exec --timeout 5 default/web/nginx cat /etc/resolv.conf\ncrisp exec -it web sh\n",
    "attach": "crisp attach --detach-keys ctrl-x mine\n",
    "port-forward": "crisp port-forward default/web 8080:80\n",
    "pull": """\
crisp pull registry.example/team/app:1.2
crisp pull -u robot --password-stdin registry.example/team/app:1.2 < token
crisp pull --explain busybox
""",
    "ps": "crisp ps -a -n kube-system\ncrisp ps -o json | jq -r '.[] | select(.attempt > 5) | .pod'\n",
}


def render() -> str:
    """The whole page."""
    root = typer.main.get_command(app)
    parts = [_INTRODUCTION, "## Commands\n"]
    parts += [_section(name, command) for name, command in _commands(root, "")]
    return "\n".join(parts)


def main() -> None:
    Path(sys.argv[1]).write_text(render(), encoding="utf-8")


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _section(name: str, command: Any) -> str:
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option"]
    usage = " ".join(["crisp", name, "[OPTION...]", *(_argument(one) for one in arguments)])
    parts = [f"### `{usage}`\n", f"{inspect.cleandoc(command.help or '')}\n"]
    rows = [(_argument(one), one.help or "") for one in arguments]
    rows += [(_option(one), f"{one.help or ''}{_default(one)}") for one in options]
    if rows:
        parts.append("| | |\n|---|---|")
        parts += [f"| `{left}` | {right} |".replace("[K=V]", "K=V") for left, right in rows]
        parts.append("")
    if name in _SHAPES:
        parts.append(f"JSON: {_SHAPES[name]}\n")
    if name in _EXAMPLES:
        parts.append(f"```sh\n{_EXAMPLES[name]}```\n")
    return "\n".join(parts)


def _argument(one: Any) -> str:
    name = one.metavar or one.name.upper()
    if one.nargs == -1 and "..." not in name:
        name = f"{name}..."
    return str(name if one.required or name.startswith("[") else f"[{name}]")


def _option(one: Any) -> str:
    names = ", ".join(sorted(one.opts, key=lambda name: not name.startswith("--")))
    if one.is_flag:
        return names
    choices = one.type_descriptor.choices
    value = (
        "\\|".join(str(choice.value) for choice in choices) if choices else one.metavar or one.name.upper()
    )
    return f"{names} {value}"


def _default(one: Any) -> str:
    shown = getattr(one.default, "value", one.default)
    return f" Default: {shown}." if shown not in (None, "", False, 0, 0.0) and not one.is_flag else ""


if __name__ == "__main__":
    main()
