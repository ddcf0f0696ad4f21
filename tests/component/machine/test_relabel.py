"""Labels are set by descriptor: on what was opened, and on nothing that a link or a rename leads to.

The attribute is one that every kernel takes from root; SELinux's own differs in its name alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oci.errors import BadInput
from shim.relabel import relabel

ATTRIBUTE = "trusted.crisp-test"


def labels(*paths: Path) -> list[bytes | None]:
    found: list[bytes | None] = []
    for path in paths:
        try:
            found.append(os.getxattr(path, ATTRIBUTE, follow_symlinks=False))
        except OSError:
            found.append(None)
    return found


def test_a_whole_tree_is_labelled_and_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    (outside / "secret").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/file").touch()
    (tree / "link").symlink_to(outside)
    (tree / "a/up").symlink_to("../../outside/secret")
    os.mkfifo(tree / "pipe")

    assert relabel("config.mounts[0]", tree, "the label", attribute=ATTRIBUTE)
    inside = [tree, tree / "a", tree / "a/b", tree / "a/file", tree / "link", tree / "a/up", tree / "pipe"]
    assert labels(*inside) == [b"the label"] * len(inside)
    assert labels(outside, outside / "secret", outside / "inner") == [None, None, None]


def test_a_source_that_became_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "parent").symlink_to("outside")
    (tmp_path / "outside/file").touch()
    with pytest.raises(BadInput, match=r"^config.mounts\[0\]: .* became another file"):
        relabel("config.mounts[0]", tmp_path / "parent/file", "x", attribute=ATTRIBUTE)
    assert labels(tmp_path / "outside/file") == [None]


def test_what_has_no_labels_is_left_and_what_is_not_there_refused(tmp_path: Path) -> None:
    assert not relabel("config.mounts[0]", "/proc/version", "x", attribute=ATTRIBUTE)
    with pytest.raises(BadInput, match="No such file"):
        relabel("config.mounts[0]", tmp_path / "gone", "x", attribute=ATTRIBUTE)
