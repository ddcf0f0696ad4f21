"""Probing runtimes: those of the machine, and ones that misbehave."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from config.loading import LoadedSettings, load
from oci.features import HandlerFeatures
from shim.runtimes.kinds import Machine
from shim.runtimes.ocikind import OciKind
from shim.runtimes.probe import FOUND_ON_PATH, probe_handlers
from shim.runtimes.table import HandlerTable
from tests.machine import PATIENCE

KERNEL = (6, 1, 0)


def probe(loaded: LoadedSettings, *, path: str | None = None, limit: float = 10.0) -> HandlerTable:
    path = os.environ["PATH"] if path is None else path
    machine = Machine(kernel=KERNEL, path=path, limit=limit)
    return asyncio.run(probe_handlers(loaded, kinds={"oci": OciKind()}, machine=machine), debug=True)


def program(directory: Path, name: str, script: str) -> Path:
    file = directory / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def configured(directory: Path, **handlers: Path) -> LoadedSettings:
    """Settings in which each handler has a binary, one a line of the file, and conmon is a double."""
    conmon = program(directory, "conmon", "echo conmon version 2.1.6")
    file = directory / "config.toml"
    file.write_text(
        "".join(
            f'handlers.{name} = {{ binary = "{binary}", monitor = "{conmon}" }}\n'
            for name, binary in handlers.items()
        )
    )
    return load(file)


def reasons(table: HandlerTable, directory: Path) -> dict[str, str]:
    return {name: entry.reason.replace(f"{directory}/", "") for name, entry in table.invalid.items()}


def test_without_configuration_the_machines_runtimes_are_handlers_and_runc_is_the_default() -> None:
    table = probe(LoadedSettings())
    assert (list(table.handlers), table.invalid) == (["runc", "crun"], {})
    assert (table.default, table.default_source) == ("runc", "the first usable one")
    runc, crun = table.resolve("runc"), table.resolve("crun")
    assert (runc.version.name, crun.version.name) == ("runc", "crun")
    assert runc.root == Path("/run/crisp/handlers/runc")
    assert {runc.source, crun.source} == {FOUND_ON_PATH}
    assert runc.features.recursive_read_only_mounts
    if crun.version.version == "1.8.1":  # Debian 12's, which has no `features`
        assert crun.features == HandlerFeatures(recursive_read_only_mounts=False, user_namespaces=False)


def test_a_broken_runtime_is_told_with_its_reason_and_disables_only_itself(tmp_path: Path) -> None:
    directory = tmp_path / "bin"
    directory.mkdir()
    not_executable = program(directory, "plain", "echo plain version 1")
    not_executable.chmod(0o644)
    no_program = directory / "elf"
    no_program.write_bytes(b"\x7fELF of nowhere")
    no_program.chmod(0o755)
    loaded = configured(
        directory,
        good=program(directory, "good", 'test "$1" = --version && echo good version 1.0'),
        absent=directory / "absent",
        plain=not_executable,
        folder=directory,
        failing=program(directory, "failing", "echo cannot do that >&2; exit 3"),
        other=program(directory, "other", "echo other thing"),
        silent=program(directory, "silent", ""),
        killed=program(directory, "killed", "kill -9 $$"),
        elf=no_program,
    )
    table = probe(loaded, path="/nowhere")
    assert list(table.handlers) == ["good"]
    assert table.default == "good"
    assert table.resolve("good").source == f"{directory}/config.toml:1"
    told = reasons(table, directory)
    assert told.pop("elf").startswith("elf cannot be executed")
    # `features` may be refused before or after the version was: what is told is only that it failed
    assert told.pop("failing") == "failing failed with status 3: cannot do that"
    assert told.pop("killed").startswith("killed was killed by signal 9")
    assert told == {
        "absent": "handlers.absent.binary: absent does not exist",
        "plain": "handlers.plain.binary: plain is not executable",
        "folder": f"handlers.folder.binary: {directory} is not a regular file",
        "other": "other: --version printed 'other thing', which names no version",
        "silent": "silent: --version printed '', which names no version",
    }


@pytest.mark.parametrize("verb", ["--version", "features"])
def test_a_runtime_that_hangs_is_given_up_and_ended(tmp_path: Path, verb: str) -> None:
    hanging = program(tmp_path, "hanging", f'test "$1" = {verb} && exec sleep 1000\necho hanging version 1')
    good = program(tmp_path, "good", "echo good version 1")
    before = time.monotonic()
    table = probe(configured(tmp_path, hanging=hanging, good=good), path="/nowhere", limit=1.0)
    assert time.monotonic() - before < 6 * PATIENCE
    assert list(table.handlers) == ["good"]
    assert reasons(table, tmp_path) == {"hanging": "hanging did not end within 1 s"}


def test_runtimes_are_asked_at_the_same_time(tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    os.mkfifo(meeting)
    one = program(tmp_path, "one", f'test "$1" = --version && echo > {meeting} && echo one version 1')
    two = program(tmp_path, "two", f'test "$1" = --version && read x < {meeting}; echo two version 2')
    table = probe(configured(tmp_path, one=one, two=two), path="/nowhere", limit=5.0)
    assert {name: entry.version.version for name, entry in table.handlers.items()} == {"one": "1", "two": "2"}


def test_features_are_read_from_the_runtime_and_nonsense_promises_nothing(tmp_path: Path) -> None:
    document = (
        '{"ociVersionMin": "1.0.0", "ociVersionMax": "1.2.0", "mountOptions": ["rro"], "linux": '
        '{"namespaces": ["user"], "mountExtensions": {"idmap": {"enabled": true}}}}'
    )
    able = program(tmp_path, "able", f"test $1 = --version && echo able version 9 && exit\necho '{document}'")
    odd = program(tmp_path, "odd", "test $1 = --version && echo odd version 9 && exit\necho 'no such verb'")
    table = probe(configured(tmp_path, able=able, odd=odd), path="/nowhere")
    assert {name: entry.features for name, entry in table.handlers.items()} == {
        "able": HandlerFeatures(recursive_read_only_mounts=True, user_namespaces=True, idmapped_mounts=True),
        "odd": HandlerFeatures(),
    }


def test_without_a_monitor_no_handler_is_usable_and_the_reason_says_what_to_do(tmp_path: Path) -> None:
    program(tmp_path, "runc", "echo runc version 1.1")
    table = probe(LoadedSettings(), path=str(tmp_path))
    assert table.handlers == {}
    assert reasons(table, tmp_path) == {
        "runc": f"conmon is not on PATH ({tmp_path}): install it or set handlers.runc.monitor"
    }


def test_a_table_without_a_binary_is_looked_up_by_its_name(tmp_path: Path) -> None:
    program(tmp_path, "conmon", "echo conmon version 2.2")
    youki = program(tmp_path, "youki", "echo youki version 0.5")
    crun = program(tmp_path, "crun", "echo crun version 1.20")
    (tmp_path / "config.toml").write_text('[handlers.youki]\noptions = ["--debug"]\n[handlers.none]\n')
    table = probe(load(tmp_path / "config.toml"), path=str(tmp_path))
    assert {name: (entry.binary, entry.options) for name, entry in table.handlers.items()} == {
        "crun": (crun, ()),
        "youki": (youki, ("--debug",)),
    }
    assert (table.default, table.resolve("youki").monitor_version) == ("crun", "2.2")
    assert reasons(table, tmp_path) == {
        "none": f"none is not on PATH ({tmp_path}): install it or set handlers.none.binary"
    }
