"""The CNI configuration directory: which networks it holds now. Blocking; knows no plugins and no pods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from oci.cni.configuration import Network, is_configuration_file, parse
from oci.errors import BadInput

_SIZE_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """The networks in name order, and what was wrong with files that were passed over."""

    networks: tuple[Network, ...] = ()
    problems: tuple[str, ...] = ()


def load(directory: Path, *, limit: int) -> Loaded:
    """The first `limit` valid configurations of the directory, in the order of their file names.

    A file that cannot be read or parsed is passed over and named in `problems`, as is a second network of
    the same name; a directory that is missing holds nothing. Never raises for what others put there.
    """
    try:
        names = sorted(entry.name for entry in directory.iterdir() if is_configuration_file(entry.name))
    except FileNotFoundError:
        return Loaded()
    except OSError as error:
        return Loaded(problems=(f"{directory}: {error.strerror}",))
    networks: list[Network] = []
    problems = []
    for name in names:
        if len(networks) == limit:
            break
        path = directory / name
        try:
            with path.open("rb") as file:
                data = file.read(_SIZE_LIMIT)
            network = parse(data, source=str(path))
        except FileNotFoundError:  # removed while this looked, or a dangling link: the watch tells again
            continue
        except OSError as error:
            problems.append(f"CNI configuration {path}: {error.strerror}")
            continue
        except BadInput as error:
            problems.append(error.message)
            continue
        if any(network.name == other.name for other in networks):
            problems.append(f"CNI configuration {path}: network {network.name} is there already")
            continue
        networks.append(network)
    return Loaded(networks=tuple(networks), problems=tuple(problems))
