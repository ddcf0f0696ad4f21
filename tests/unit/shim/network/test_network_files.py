"""The configuration directory and the kept attachments, as files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from oci.cni.configuration import from_document
from oci.workload import PodId
from shim.network.attachments import Attachment, Attachments
from shim.network.configurations import Loaded, load

POD = PodId("ab" * 32)


def conflist(name: str, plugin: str = "bridge") -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [{"type": plugin, "x": name}]}


def write(directory: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (directory / name).write_text(text)


def found(loaded: Loaded) -> list[tuple[str, str]]:
    return [(network.name, Path(network.source).name) for network in loaded.networks]


def test_the_first_files_by_name_win_and_other_files_do_not_count(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "30-c.conf": json.dumps({"cniVersion": "0.3.1", "name": "c", "type": "ptp"}),
            "10-a.conflist": json.dumps(conflist("a")),
            "20-b.json": json.dumps(conflist("b")),
            "00-first.txt": json.dumps(conflist("text")),
            ".05-hidden.conflist": json.dumps(conflist("hidden")),
        },
    )
    assert found(load(tmp_path, limit=1)) == [("a", "10-a.conflist")]
    assert found(load(tmp_path, limit=9)) == [("a", "10-a.conflist"), ("b", "20-b.json"), ("c", "30-c.conf")]


def test_a_broken_file_is_passed_over_and_named(tmp_path: Path) -> None:
    write(tmp_path, {"10-a.conf": "{", "20-b.conflist": json.dumps(conflist("b"))})
    (tmp_path / "15-gone.conf").symlink_to("nowhere")
    (tmp_path / "16-dir.conf").mkdir()
    loaded = load(tmp_path, limit=1)
    assert found(loaded) == [("b", "20-b.conflist")]
    assert [problem.partition(": ")[0] for problem in loaded.problems] == [
        f"CNI configuration {tmp_path}/10-a.conf",
        f"CNI configuration {tmp_path}/16-dir.conf",
    ]


def test_two_networks_of_one_name_are_one(tmp_path: Path) -> None:
    write(tmp_path, {"1.conflist": json.dumps(conflist("a")), "2.conflist": json.dumps(conflist("a", "ptp"))})
    loaded = load(tmp_path, limit=5)
    assert found(loaded) == [("a", "1.conflist")]
    assert loaded.problems == (f"CNI configuration {tmp_path}/2.conflist: network a is there already",)


def test_a_missing_directory_holds_nothing_and_a_file_in_its_place_is_a_problem(tmp_path: Path) -> None:
    assert load(tmp_path / "absent", limit=1) == Loaded()
    (tmp_path / "file").touch()
    assert load(tmp_path / "file", limit=1).problems == (f"{tmp_path}/file: Not a directory",)


def attachment(result: dict[str, Any] | None) -> Attachment:
    return Attachment(
        network=from_document(conflist("pods"), source=""),
        interface="eth0",
        args="IgnoreUnknown=1",
        capabilities={"portMappings": [{"hostPort": 1}]},
        result=result,
    )


def test_an_attachment_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    kept = Attachments(tmp_path / "cni")
    kept.prepare()
    assert (kept.get(POD), kept.pods()) == (None, frozenset())
    for result in (None, {"ips": [{"address": "10.0.0.2/24"}]}):
        kept.put(POD, (attachment(result),))
        (read,) = kept.get(POD) or ()
        assert (read.network.document(), read.interface, read.args, read.capabilities, read.result) == (
            attachment(None).network.document(),
            "eth0",
            "IgnoreUnknown=1",
            {"portMappings": [{"hostPort": 1}]},
            result,
        )
    assert kept.pods() == {POD}
    kept.remove(POD)
    kept.remove(POD)
    assert (kept.get(POD), kept.pods()) == (None, frozenset())


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"attachments": [{}]}', '{"attachments": [3]}', '{"attachments": [{"network": {}}]}'],
)
def test_a_damaged_attachment_counts_as_unknown_and_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    (tmp_path / f"{POD}.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert Attachments(tmp_path).get(POD) is None
    assert [record.message for record in caplog.records] == ["kept network results are damaged"]
