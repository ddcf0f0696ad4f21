"""Which handler a request gets, and what it is told when it gets none."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.loading import LoadedSettings, Origin
from config.models import Settings
from config.positions import KeyPath
from oci.bundle.inputs import HandlerTraits
from oci.errors import BadInput, CrispError, Unsupported
from oci.features import HandlerFeatures, RuntimeVersion
from shim.runtimes.table import Handler, HandlerTable, InvalidHandler, assemble

MAIN, DROP_INS = Path("/etc/crisp/config.toml"), Path("/etc/crisp/conf.d")


def handler(name: str, **members: object) -> Handler:
    values: dict[str, object] = {
        "name": name,
        "kind": "oci",
        "binary": Path(f"/usr/bin/{name}"),
        "root": Path(f"/run/crisp/handlers/{name}"),
        "monitor": Path("/usr/bin/conmon"),
        "monitor_version": "2.1.6",
        "version": RuntimeVersion(name=name, version="1.0"),
        "features": HandlerFeatures(),
        "source": "found on PATH",
    }
    return Handler(**{**values, **members})  # type: ignore[arg-type]


def broken(name: str, reason: str = "it is broken") -> InvalidHandler:
    return InvalidHandler(name=name, reason=reason, source=f"{MAIN}:4")


def table_of(
    *entries: Handler | InvalidHandler, default: str | None = None, files: tuple[Path, ...] = ()
) -> HandlerTable:
    origins: dict[KeyPath, Origin] = {("default_handler",): Origin(file=MAIN, line=1)} if default else {}
    loaded = LoadedSettings(
        settings=Settings(default_handler=default), origins=origins, files=files, looked_for=(MAIN, DROP_INS)
    )
    return assemble(loaded, {entry.name: entry for entry in entries})


def refusal(table: HandlerTable, name: str) -> CrispError:
    with pytest.raises(CrispError) as refused:
        table.resolve(name)
    return refused.value


def test_the_default_is_the_first_usable_one() -> None:
    table = table_of(broken("runc"), handler("crun"), handler("kata"))
    assert (table.default, table.default_source) == ("crun", "the first usable one")
    assert table.resolve("") == handler("crun")
    assert table.resolve("crun") == handler("crun")
    assert table.resolve("kata") == handler("kata")


def test_a_configured_default_wins() -> None:
    table = table_of(handler("runc"), handler("crun"), default="crun", files=(MAIN,))
    assert (table.default, table.default_source) == ("crun", f"default_handler in {MAIN}:1")
    assert table.resolve("") == handler("crun")


def test_an_unknown_handler_is_refused_naming_the_known_ones_and_the_files() -> None:
    table = table_of(handler("runc"), broken("kata"), files=(MAIN, DROP_INS / "10.toml"))
    error = refusal(table, "nope")
    assert type(error) is BadInput
    assert error.message == (
        "runtime_handler: handler 'nope' is not known; known are runc, kata (cannot be used); "
        "configuration was "
        "read from /etc/crisp/config.toml, /etc/crisp/conf.d/10.toml"
    )


def test_without_files_the_refusal_says_where_they_were_looked_for() -> None:
    assert refusal(table_of(handler("runc")), "x").message == (
        "runtime_handler: handler 'x' is not known; known are runc; no configuration was found at "
        "/etc/crisp/config.toml or /etc/crisp/conf.d"
    )


def test_a_broken_handler_is_refused_with_its_reason_and_disables_only_itself() -> None:
    table = table_of(handler("runc"), broken("kata", "handlers.kata.binary: /x does not exist"))
    error = refusal(table, "kata")
    assert type(error) is Unsupported
    assert error.message == (
        "runtime_handler: handler 'kata' cannot be used: handlers.kata.binary: /x does not exist "
        "(/etc/crisp/config.toml:4)"
    )
    assert table.resolve("").name == "runc"


def test_a_broken_default_is_not_silently_replaced() -> None:
    table = table_of(handler("runc"), broken("kata"), default="kata", files=(MAIN,))
    assert refusal(table, "").message == (
        "runtime_handler: the default handler 'kata' (default_handler in /etc/crisp/config.toml:1) "
        "cannot be used: "
        "it is broken (/etc/crisp/config.toml:4)"
    )
    unknown = refusal(table_of(handler("runc"), default="nope", files=(MAIN,)), "")
    assert type(unknown) is BadInput
    assert unknown.message.startswith(
        "runtime_handler: the default handler 'nope' (default_handler in /etc/crisp/config.toml:1) "
        "is not known; "
    )


def test_without_any_usable_handler_the_refusal_says_what_to_install() -> None:
    assert refusal(table_of(), "").message == (
        "runtime_handler: no handler is usable: none of runc, crun was found on PATH; no "
        "configuration was found "
        "at /etc/crisp/config.toml or /etc/crisp/conf.d; install runc or crun, and conmon"
    )
    assert refusal(table_of(broken("runc"), broken("crun", "no")), "").message.startswith(
        "runtime_handler: no handler is usable: runc: it is broken; crun: no; "
    )
    assert refusal(table_of(), "x").message.startswith(
        "runtime_handler: handler 'x' is not known; no handler is known; "
    )


def test_two_programs_do_not_share_a_root() -> None:
    shared = Path("/run/shared")
    table = table_of(handler("runc", root=shared), handler("crun", root=shared))
    assert list(table.handlers) == ["runc"]
    assert (
        table.invalid["crun"].reason
        == "its root /run/shared is that of handler runc, which is another program"
    )
    again = handler("debug", root=shared, binary=Path("/usr/bin/runc"), options=("--debug",))
    assert list(table_of(handler("runc", root=shared), again).handlers) == ["runc", "debug"]


def test_the_traits_are_those_of_features_and_table() -> None:
    features = HandlerFeatures(
        recursive_read_only_mounts=True, user_namespaces=True, idmapped_mounts=True, seccomp=False,
        apparmor=False, selinux=False,
    )  # fmt: skip
    entry = handler("kata", features=features, annotations=("io.*",), privileged_without_host_devices=True)
    assert entry.traits == HandlerTraits(
        name="kata",
        recursive_read_only_mounts=True,
        user_namespaces=True,
        idmapped_mounts=True,
        seccomp=False,
        apparmor=False,
        selinux=False,
        annotations=("io.*",),
        privileged_without_host_devices=True,
    )
