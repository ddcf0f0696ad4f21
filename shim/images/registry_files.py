"""Reading what registries' configuration and credentials there are, anew for each pull. Blocking.

What the files mean is decided in `oci/registries/`. A file that cannot be read is part of the answer, with
the reason: whether it matters is not known here.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from config.models import ImageSettings
from oci.errors import BadInput
from oci.reference import parse
from oci.registries import containers
from oci.registries.document import ConfigFile
from oci.registries.hosts_toml import HostDirectory
from oci.registries.resolver import RegistryFiles
from shim.images.settings import RegistryPlaces

_MAXIMUM_FILE = 1 << 20
_MAXIMUM_DIRECTORIES = 4096
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def places_of(images: ImageSettings) -> RegistryPlaces:
    """Where the configuration says that these files are."""
    return RegistryPlaces(
        directories=tuple(images.registry_dirs),
        registries_conf=images.registries_conf,
        daemon_json=images.docker_daemon_json,
        auth_files=tuple(images.auth_files),
        namespaced_auth_dir=images.namespaced_auth_dir,
    )


def read_files(places: RegistryPlaces, name: str, namespace: str = "") -> RegistryFiles:
    """Everything that has a say in a pull of `name` for a pod of `namespace` ("" is none)."""
    own = _own_auth(places, name, namespace)
    found = (_read(path) for path in ((own,) if own is not None else ()) + places.auth_files)
    return RegistryFiles(
        directories=tuple(entry for root in places.directories for entry in _directories(root)),
        registries_conf=_with_drop_ins(places.registries_conf),
        daemon_json=None if places.daemon_json is None else _read(places.daemon_json),
        auth=tuple(file for file in found if file is not None),
    )


def read_names(places: RegistryPlaces) -> containers.Registries:
    """What registries.conf says of short names, among other things. Raises BadInput."""
    return containers.read(_with_drop_ins(places.registries_conf))


def _own_auth(places: RegistryPlaces, name: str, namespace: str) -> Path | None:
    """The namespace's file for this image, named as CRI-O's credential provider writes it."""
    if places.namespaced_auth_dir is None or not _NAMESPACE.fullmatch(namespace):
        return None
    try:
        image = parse(name).name
    except BadInput:
        return None  # refused with better words where the name is decided upon
    digest = hashlib.sha256(image.encode()).hexdigest()
    return places.namespaced_auth_dir / f"{namespace}-{digest}.json"


def _directories(root: Path) -> list[HostDirectory]:
    try:
        names = sorted(entry.name for entry in root.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as failure:
        return [HostDirectory(path=str(root), problem=_why(failure), whole=True)]
    found = (_directory(root / name) for name in names[:_MAXIMUM_DIRECTORIES])
    return [directory for directory in found if directory is not None]


def _directory(path: Path) -> HostDirectory | None:
    try:
        names = tuple(sorted(entry.name for entry in path.iterdir()))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        return HostDirectory(path=str(path), problem=_why(failure))
    text = _read(path / "hosts.toml") if "hosts.toml" in names else None
    return HostDirectory(path=str(path), names=names, hosts_toml=text)


def _with_drop_ins(main: Path | None) -> tuple[ConfigFile, ...]:
    if main is None:
        return ()
    directory = main.with_name(f"{main.name}.d")
    try:
        names = sorted(entry.name for entry in directory.iterdir() if entry.name.endswith(".conf"))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as failure:
        return (ConfigFile(path=str(directory), problem=_why(failure)),)
    files = (_read(path) for path in (main, *(directory / name for name in names)))
    return tuple(file for file in files if file is not None)


def _read(path: Path) -> ConfigFile | None:
    """The file's text, None where there is no such file."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAXIMUM_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        return ConfigFile(path=str(path), problem=_why(failure))
    if len(content) > _MAXIMUM_FILE:
        return ConfigFile(path=str(path), problem=f"longer than {_MAXIMUM_FILE} bytes")
    try:
        return ConfigFile(path=str(path), text=content.decode("utf-8"))
    except UnicodeDecodeError as failure:
        return ConfigFile(path=str(path), problem=f"not UTF-8 at byte {failure.start}")


def _why(failure: OSError) -> str:
    return (failure.strerror or str(failure)).lower()
