"""deploy/runtimeclasses/ holds what Kubernetes takes: node.k8s.io/v1 RuntimeClass.

Fields and their types are those of the published API (Go module k8s.io/api), read from its source. What the
types do not say is checked by the API's rules: names are DNS subdomains, the handler a DNS label, overhead is
quantities of resources, the selector's keys and values are labels.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.parts.build import module_source

TREE = Path(__file__).resolve().parents[2]
FILES = sorted((TREE / "deploy" / "runtimeclasses").glob("*.yaml"))
LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
QUANTITY = r"[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|k|M|G)?"
METADATA = {"name": "string", "labels": "map[string]string", "annotations": "map[string]string"}
"""What a manifest may say of itself; ObjectMeta is another module's, and the rest of it the server's."""


@cache
def types() -> dict[str, dict[str, str] | str]:
    """Go types of the API's two packages: for a struct its JSON names with their types, else what it is."""
    source = module_source("kube-api")
    found: dict[str, dict[str, str] | str] = {}
    for file in ("core/v1/types.go", "node/v1/types.go"):
        text = (source / file).read_text()
        for name, body in re.findall(r"^type (\w+) struct \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
            members = re.findall(r"^\t(?:\w+ +)?(\S+)\s+`json:\"(\w*)", body, re.MULTILINE)
            found[name] = {json: kind.replace("corev1.", "") for kind, json in members if json}
        found |= dict(re.findall(r"^type (\w+) (string|map\S+)$", text, re.MULTILINE))
    found["metav1.ObjectMeta"] = METADATA
    return found


def mistyped(value: Any, kind: str, path: str) -> list[str]:
    """The paths of the values that have no place in this type, or another type."""
    kind = kind.lstrip("*")
    known = types().get(kind)
    if isinstance(known, dict):
        if not isinstance(value, dict):
            return [path]
        below = [(f"{path}.{key}".lstrip("."), item, known.get(key)) for key, item in value.items()]
        return [bad for place, item, of in below for bad in (mistyped(item, of, place) if of else [place])]
    if isinstance(known, str):
        return mistyped(value, known, path)
    if kind.startswith("[]"):
        if not isinstance(value, list):
            return [path]
        return [bad for n, item in enumerate(value) for bad in mistyped(item, kind[2:], f"{path}[{n}]")]
    if kind.startswith("map["):
        if not isinstance(value, dict):
            return [path]
        of = kind.partition("]")[2]
        return [bad for key, item in value.items() for bad in mistyped(item, of, f"{path}.{key}")]
    wanted: dict[str, Any] = {
        "string": str,
        "resource.Quantity": (str, int),
        "int64": int,
        "int32": int,
        "bool": bool,
    }
    return [] if isinstance(value, wanted[kind]) else [path]


def wrong(document: dict[str, Any]) -> list[str]:
    """The paths of the fields that the API server would refuse."""
    of = {key: value for key, value in document.items() if key not in ("apiVersion", "kind")}
    bad = mistyped(of, "RuntimeClass", "")

    def check(path: str, value: Any, pattern: str) -> None:
        if not (isinstance(value, str) and re.fullmatch(pattern, value)):
            bad.append(path)

    check("apiVersion", document.get("apiVersion"), r"node\.k8s\.io/v1")
    check("kind", document.get("kind"), "RuntimeClass")
    check("metadata.name", document.get("metadata", {}).get("name"), SUBDOMAIN)
    check("handler", document.get("handler"), LABEL)
    for resource, quantity in document.get("overhead", {}).get("podFixed", {}).items():
        check(f"overhead.podFixed.{resource}", str(quantity), QUANTITY)
        check(f"overhead.podFixed.{resource} (name)", resource, "cpu|memory")
    for key, value in document.get("scheduling", {}).get("nodeSelector", {}).items():
        check(f"scheduling.nodeSelector.{key}", value, NAME)
        check(f"scheduling.nodeSelector.{key} (key)", key, rf"({SUBDOMAIN}/)?{NAME}")
    return bad


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_manifest_is_a_runtime_class_of_the_name_of_its_file(file: Path) -> None:
    document = yaml.safe_load(file.read_text())
    assert wrong(document) == []
    assert (document["metadata"]["name"], document["handler"]) == (file.stem, file.stem)


def test_the_published_types_are_understood() -> None:
    assert types()["RuntimeClass"] == {
        "metadata": "metav1.ObjectMeta",
        "handler": "string",
        "overhead": "*Overhead",
        "scheduling": "*Scheduling",
    }
    assert types()["Overhead"] == {"podFixed": "ResourceList"}
    assert types()["Scheduling"] == {"nodeSelector": "map[string]string", "tolerations": "[]Toleration"}
    assert types()["ResourceList"] == "map[ResourceName]resource.Quantity"
    assert "tolerationSeconds" in types()["Toleration"]


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
            "overhead": {"podFixed": {"memory": "20 Mi", "gpu": "1", "cpu": 1}, "pods": {}},
            "scheduling": {
                "nodeSelector": {"a b": "c", "d": True},
                "nodes": {},
                "tolerations": [{"key": "k", "tolerationSeconds": "5", "operators": "Exists"}, "all"],
            },
            "spec": {},
        }
    ) == [
        "overhead.pods",
        "scheduling.nodeSelector.d",
        "scheduling.nodes",
        "scheduling.tolerations[0].tolerationSeconds",
        "scheduling.tolerations[0].operators",
        "scheduling.tolerations[1]",
        "spec",
        "metadata.name",
        "handler",
        "overhead.podFixed.memory",
        "overhead.podFixed.gpu (name)",
        "scheduling.nodeSelector.a b (key)",
        "scheduling.nodeSelector.d",
    ]
