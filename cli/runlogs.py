"""Where logs of pods of `crisp run` are. The command that made such a directory also removes it.

The layout is kubelet's: NAMESPACE_POD_UID/CONTAINER/ATTEMPT.log.
"""

from __future__ import annotations

import shutil
from pathlib import Path


def directory(top: Path, *, namespace: str, name: str, uid: str) -> Path:
    """The log_directory of one pod."""
    return top / f"{namespace}_{name}_{uid}"


def log_path(container: str, attempt: int = 0) -> str:
    """The log_path of one container, relative to its pod's directory."""
    return f"{container}/{attempt}.log"


def remove_logs(top: Path, *, namespace: str, name: str, uid: str) -> None:
    """Remove a pod's logs; nothing there is success. Names cannot lead out: the daemon refuses '/'."""
    path = directory(top, namespace=namespace, name=name, uid=uid)
    if path.parent == top and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)


def clear(path: Path) -> None:
    """Empty a pod's log directory, which stays; no such directory is success."""
    if path.is_symlink() or not path.is_dir():
        return
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
