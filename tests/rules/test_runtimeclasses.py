"""deploy/runtimeclasses/ holds what Kubernetes takes: node.k8s.io/v1 RuntimeClass, checked field by field.

The rules are those of the API: names are DNS subdomains, the handler a DNS label, overhead is resource
quantities, the selector's keys and values are labels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

TREE = Path(__file__).resolve().parents[2]
FILES = sorted((TREE / "deploy" / "runtimeclasses").glob("*.yaml"))
LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
QUANTITY = r"[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|k|M|G)?"


def wrong(document: Any) -> list[str]:
    """The paths of the fields that the API server would refuse."""
    bad = []

    def check(path: str, value: Any, pattern: str) -> None:
        if not (isinstance(value, str) and re.fullmatch(pattern, value)):
            bad.append(path)

    check("apiVersion", document.get("apiVersion"), r"node\.k8s\.io/v1")
    check("kind", document.get("kind"), "RuntimeClass")
    check("metadata.name", document.get("metadata", {}).get("name"), SUBDOMAIN)
    check("handler", document.get("handler"), LABEL)
    known = {"apiVersion", "kind", "metadata", "handler", "overhead", "scheduling"}
    bad += sorted(set(document) - known)
    overhead = document.get("overhead", {"podFixed": {}})
    bad += [f"overhead.{key}" for key in overhead if key != "podFixed"]
    for resource, quantity in overhead.get("podFixed", {}).items():
        check(f"overhead.podFixed.{resource}", quantity, QUANTITY)
        check(f"overhead.podFixed.{resource} (name)", resource, "cpu|memory")
    scheduling = document.get("scheduling", {})
    bad += [f"scheduling.{key}" for key in scheduling if key not in ("nodeSelector", "tolerations")]
    for key, value in scheduling.get("nodeSelector", {}).items():
        check(f"scheduling.nodeSelector.{key}", value, NAME)
        check(f"scheduling.nodeSelector.{key} (key)", key, rf"({SUBDOMAIN}/)?{NAME}")
    return bad


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_manifest_is_a_runtime_class_of_the_name_of_its_file(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    assert wrong(document) == []
    assert (document["metadata"]["name"], document["handler"]) == (file.stem, file.stem)


def test_there_is_one_for_each_handler_of_the_documentation() -> None:
    page = (TREE / "docs" / "handlers" / "README.md").read_text()
    named = set(re.findall(r"^\| `([a-z0-9-]+)` \|", page, re.MULTILINE))
    assert named == {file.stem for file in FILES}


def test_what_the_api_refuses_is_found() -> None:
    assert wrong(
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "Not_A_Name"},
            "handler": "a.b",
            "overhead": {"podFixed": {"memory": "20 Mi", "gpu": "1"}},
            "scheduling": {"nodeSelector": {"a b": "c"}, "nodes": {}},
            "spec": {},
        }
    ) == [
        "metadata.name",
        "handler",
        "spec",
        "overhead.podFixed.memory",
        "overhead.podFixed.gpu (name)",
        "scheduling.nodes",
        "scheduling.nodeSelector.a b (key)",
    ]
