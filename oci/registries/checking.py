"""Every mistake in every file, whether or not a pull would meet it: for `crisp doctor`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from oci.errors import BadInput
from oci.reference import DEFAULT_REGISTRY
from oci.registries import containers, docker, hosts_toml, logins
from oci.registries.endpoint import Endpoint
from oci.registries.resolver import RegistryFiles


def mistakes(files: RegistryFiles) -> tuple[str, ...]:
    """One line a file that is not right, with its first mistake; never a secret."""
    found = []
    for read in _readings(files):
        try:
            read()
        except BadInput as failure:
            found.append(failure.message)
    return tuple(found)


def _readings(files: RegistryFiles) -> Iterator[Callable[[], object]]:
    itself = (Endpoint(scheme="https", host=DEFAULT_REGISTRY),)
    for directory in files.directories:
        if directory.problem or directory.hosts_toml is not None:
            yield partial(_hosts, directory, itself)
    for file in files.registries_conf:
        yield partial(containers.read, (file,))
    if files.daemon_json is not None:
        yield partial(docker.resolve, DEFAULT_REGISTRY, files.daemon_json, itself)
    for file in files.auth:
        yield partial(logins.check, file)


def _hosts(directory: hosts_toml.HostDirectory, itself: tuple[Endpoint, ...]) -> None:
    if directory.problem:
        raise BadInput(f"{directory.path}: {directory.problem}")
    hosts_toml.resolve(directory.name, directory, itself)
