"""CDI specifications: what is taken, what is refused, what devices change together."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oci.bundle import build
from oci.bundle.inputs import ResolvedDevice
from oci.cdi import Edits, Hook, MountEdit, QualifiedName, Registry, Spec, asked_names, parse
from oci.errors import BadInput, Unsupported
from oci.facts import DeviceNode
from tests import bundles

FULL = """
cdiVersion: "0.7.0"
kind: vendor.com/gpu
annotations: {maker: vendor}
containerEdits:
  env: [VENDOR=1]
  additionalGids: [44]
devices:
  - name: "0"
    containerEdits:
      env: [GPU=0]
      deviceNodes:
        - path: /dev/gpu0
          hostPath: /dev/null
          permissions: rw
          fileMode: 0640
      mounts:
        - {hostPath: /opt/vendor/lib, containerPath: /usr/lib/vendor, options: [ro, nosuid, rbind]}
      hooks:
        - {hookName: createContainer, path: /opt/vendor/hook, args: [hook, run], env: [A=1], timeout: 3}
  - name: all
    containerEdits: {env: [GPU=all]}
"""
GPU0 = QualifiedName("vendor.com/gpu", "0")


def document(**changed: Any) -> dict[str, Any]:
    return {
        "cdiVersion": "0.3.0",
        "kind": "vendor.com/gpu",
        "devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}}],
        **changed,
    }


def read(source: str = "/etc/cdi/a.json", **changed: Any) -> Spec:
    return parse(json.dumps(document(**changed)).encode(), source=source)


def edits_of(**edits: Any) -> Spec:
    return read(devices=[{"name": "0", "containerEdits": edits}])


def test_yaml_and_json_say_the_same() -> None:
    spec = parse(FULL.encode(), source="/etc/cdi/a.yaml")
    again = {
        "cdiVersion": "0.7.0",
        "kind": spec.kind,
        "containerEdits": spec.edits.model_dump(exclude_defaults=True),
        "devices": [
            {"name": name, "containerEdits": edits.model_dump(exclude_defaults=True)}
            for name, edits in spec.devices.items()
        ],
    }
    in_json = parse(json.dumps(again).encode(), source="/etc/cdi/a.json")

    assert (spec.kind, list(spec.devices)) == ("vendor.com/gpu", ["0", "all"])
    assert spec.devices["0"].deviceNodes[0].fileMode == 0o640
    assert (in_json.edits, in_json.devices) == (spec.edits, spec.devices)


@pytest.mark.parametrize(
    "version", ["0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0", "v1.0.0"]
)
def test_every_published_version_is_read(version: str) -> None:
    assert read(cdiVersion=version).kind == "vendor.com/gpu"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cdiVersion": "0.2.0"}, "cdiVersion: '0.2.0' is none of 0.3.0"),
        ({"cdiVersion": "2.0.0"}, "cdiVersion: '2.0.0' is none of"),
        ({"kind": "gpu"}, "kind: 'gpu' is not VENDOR/CLASS"),
        ({"kind": "-a/b"}, "kind: '-a/b' is not VENDOR/CLASS"),
        ({"devices": []}, "devices:"),
        ({"devices": [{"name": "a b", "containerEdits": {}}]}, "devices.0.name: 'a b' cannot name a device"),
        ({"devices": [{"name": "a"}]}, "devices.0.containerEdits: field required"),
        ({"devices": [{"name": "a", "containerEdits": {}}] * 2}, "devices: device 'a' is there twice"),
        ({"containerEdits": {"envs": []}}, "containerEdits.envs: extra inputs are not permitted"),
        ({"containerEdits": {"env": ["A"]}}, "containerEdits.env: 'A' is not an entry NAME=VALUE"),
        ({"containerEdits": {"env": ["=secret"]}}, "containerEdits.env: '' is not an entry"),
        ({"containerEdits": {"deviceNodes": [{"path": "dev/a"}]}}, "path: 'dev/a' is not an absolute"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/../a"}]}}, "'/dev/../a' is not an absolute path"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "permissions": "x"}]}}, "'x' is not made of"),
        ({"containerEdits": {"deviceNodes": [{"path": "/dev/a", "uid": -1}]}}, "deviceNodes.0.uid:"),
        ({"containerEdits": {"hooks": [{"hookName": "later", "path": "/a"}]}}, "hooks.0.hookName:"),
        ({"containerEdits": {"mounts": [{"hostPath": "/a"}]}}, "mounts.0.containerPath: field required"),
        ({"containerEdits": {"additionalGids": [2**32]}}, "additionalGids.0:"),
    ],
)  # fmt: skip
def test_a_wrong_specification_is_refused_with_its_file_and_member(
    changed: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput) as caught:
        read(**changed)
    assert caught.value.message.startswith("CDI specification /etc/cdi/a.json: ")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "source", "words"),
    [
        (b"{", "/etc/cdi/a.json", "not JSON"),
        (b"[]", "/etc/cdi/a.json", "not an object"),
        (b"[" * 100000, "/etc/cdi/a.json", "not JSON"),
        (b"a: [", "/etc/cdi/a.yaml", "not YAML"),
        (b"a: &x [1]\nb: *x\n", "/etc/cdi/a.yaml", "aliases are not taken"),
        (b"!!python/object/apply:os.system ['true']", "/etc/cdi/a.yaml", "not YAML"),
        (b"kind: 2020-01-01\ncdiVersion: '0.3.0'\n", "/etc/cdi/a.yaml", "not JSON serializable"),
        (b"\xff\xfe\x00", "/etc/cdi/a.yaml", "not YAML"),
    ],
)
def test_what_is_no_document_is_refused(text: bytes, source: str, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text, source=source)
    assert words in caught.value.message


def test_names_come_from_the_field_and_from_annotations_each_once() -> None:
    annotations = {
        "cdi.k8s.io/b": "vendor.com/gpu=1, vendor.com/gpu=0",
        "cdi.k8s.io/a": "v/c=x",
        "other": "?",
    }

    assert asked_names(["vendor.com/gpu=0"], annotations) == {
        GPU0: "config.CDI_devices[0].name",
        QualifiedName("v/c", "x"): "config.annotations['cdi.k8s.io/a']",
        QualifiedName("vendor.com/gpu", "1"): "config.annotations['cdi.k8s.io/b']",
    }


@pytest.mark.parametrize(
    "name", ["", "gpu", "vendor.com=0", "vendor.com/gpu=", "/gpu=0", "v/c=a\nb", "v/c=-a", "v/c/d=a"]
)
def test_a_name_that_is_none_is_refused_with_its_field(name: str) -> None:
    with pytest.raises(BadInput, match=r"^config.CDI_devices\[0\].name: .* is not the name of a device"):
        asked_names([name], {})
    with pytest.raises(BadInput, match=r"^config.annotations\['cdi.k8s.io/x'\]"):
        asked_names([], {"cdi.k8s.io/x": name})


def test_a_later_directory_wins_and_two_files_of_one_do_not() -> None:
    low, high = read("/etc/cdi/a.json"), read("/run/cdi/a.json", containerEdits={"env": ["B=2"]})
    won = Registry.of([("/etc/cdi", [low, read("/etc/cdi/b.json")]), ("/run/cdi", [high])])

    assert won.edits({GPU0: "f"}).env == ("B=2", "A=1")
    clash = Registry.of([("/etc/cdi", []), ("/run/cdi", [high, read("/run/cdi/b.json")])])
    with pytest.raises(
        BadInput, match=r"'vendor.com/gpu=0' is in several files: /run/cdi/a.json, /run/cdi/b.json"
    ):
        clash.edits({GPU0: "f"})


def test_an_unknown_device_is_told_with_those_that_are_there() -> None:
    registry = Registry.of(
        [("/etc/cdi", [parse(FULL.encode(), source="/etc/cdi/a.yaml")])], ["/etc/cdi/b.json: bad"]
    )
    with pytest.raises(BadInput) as caught:
        registry.edits({QualifiedName("vendor.com/gpu", "9"): "config.CDI_devices[0].name"})
    assert caught.value.message == (
        "config.CDI_devices[0].name: no device 'vendor.com/gpu=9'; there are vendor.com/gpu=0, "
        "vendor.com/gpu=all (specifications are read from /etc/cdi); passed over: /etc/cdi/b.json: bad"
    )
    with pytest.raises(BadInput, match="there is none"):
        Registry().edits({GPU0: "f"})


def test_a_specifications_own_edits_are_made_once() -> None:
    spec = parse(FULL.encode(), source="/etc/cdi/a.yaml")
    found = Registry.of([("/etc/cdi", [spec])]).edits(
        {GPU0: "f", QualifiedName("vendor.com/gpu", "all"): "f"}
    )

    assert found.env == ("VENDOR=1", "GPU=0", "GPU=all")
    assert found.groups == (44,)


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"intelRdt": {"closID": "a"}}, "resctrl"),
        ({"netDevices": [{"hostInterfaceName": "a"}]}, "netDevices"),
    ],
)
def test_edits_that_cannot_be_made_are_refused_with_the_reason(edits: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsupported, match=words):
        Registry.of([("/etc/cdi", [edits_of(**edits)])]).edits({GPU0: "config.CDI_devices[0].name"})


def test_edits_reach_every_part_of_the_configuration() -> None:
    edits = Edits(
        env=("GPU=0", "PATH=/vendor"),
        mounts=(
            MountEdit(hostPath="/opt/lib", containerPath="/usr/lib/vendor", options=("ro",)),
            MountEdit(hostPath="tmpfs", containerPath="/scratch", type="tmpfs", options=("nosuid",)),
        ),
        hooks=(
            Hook(hookName="createContainer", path="/opt/a", args=("a", "b"), timeout=2),
            Hook(hookName="createContainer", path="/opt/c"),
            Hook(hookName="poststop", path="/opt/d", env=("E=1",)),
        ),
    )
    node = DeviceNode(path="/dev/gpu0", kind="c", major=195, minor=0, mode=0o640, gid=44)
    made = build(
        bundles.inputs(edits=edits, edit_devices=(ResolvedDevice(node=node, permissions="rw"),))
    ).config

    assert {"GPU=0", "PATH=/vendor"} <= set(made["process"]["env"])
    assert [m for m in made["mounts"] if m["destination"] in ("/usr/lib/vendor", "/scratch")] == [
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"]},
        {"destination": "/usr/lib/vendor", "type": "bind", "source": "/opt/lib", "options": ["rbind", "ro"]},
    ]
    assert made["hooks"] == {
        "createContainer": [{"path": "/opt/a", "args": ["a", "b"], "timeout": 2}, {"path": "/opt/c"}],
        "poststop": [{"path": "/opt/d", "env": ["E=1"]}],
    }
    assert made["linux"]["devices"] == [
        {"path": "/dev/gpu0", "type": "c", "major": 195, "minor": 0, "fileMode": 0o640, "uid": 0, "gid": 44}
    ]
    assert made["linux"]["resources"]["devices"][1:] == [
        {"allow": True, "type": "c", "major": 195, "minor": 0, "access": "rw"}
    ]


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/1/attr"])
def test_a_mount_of_a_device_cannot_cover_proc_either(path: str) -> None:
    edits = Edits(mounts=(MountEdit(hostPath="/a", containerPath=path),))
    with pytest.raises(BadInput, match="CDI mount, containerPath"):
        build(bundles.inputs(edits=edits))
