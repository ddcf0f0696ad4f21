"""kubeadm takes Crisp's socket, by the files of deploy/kubeadm and by an alias, and pulls through it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.proto import cri_pb2
from tests import leaks, machine
from tests.daemon import CALL_LIMIT, TREE, Daemon, running
from tests.images import catalogue, layout
from tests.images.registry import serving
from tests.parts.build import directory, program

KNOWN = Path("/run/cri-dockerd.sock")
"""One of the three that kubeadm looks for."""

LIMIT = 240.0 * machine.PATIENCE
OF_THE_MACHINE = (
    "NumCPU", "Mem", "Swap", "SystemVerification", "Hostname", "FileContent--proc-sys-net-ipv4-ip_forward",
    "FileContent--proc-sys-net-bridge-bridge-nf-call-iptables", "KubeletVersion",
    "Service-Kubelet", "Service-Firewalld",
    *(f"Port-{port}" for port in (6443, 10250, 10257, 10259, 2379, 2380)),
    "DirAvailable--etc-kubernetes-manifests", "DirAvailable--var-lib-etcd",
)  # fmt: skip
"""What a machine of tests need not have, and the version of a kubelet built from its module, which has none;
not among them are CRI and ImagePull."""


@pytest.fixture
def leak_scope() -> leaks.Scope:
    return leaks.Scope()


def kubeadm(*words: str | Path) -> str:
    done = subprocess.run(
        [program("kubeadm", "kubeadm"), *words],
        env={"PATH": f"{directory('kubelet')}:{machine.SYSTEM_PATH}", "HOME": "/root"},
        capture_output=True, text=True, check=False, timeout=LIMIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The file of deploy/kubeadm with version and address given, for there may be no network to ask."""
    documents = list(yaml.safe_load_all((TREE / "deploy/kubeadm/init.yaml").read_text()))
    of_cluster = next(one for one in documents if one["kind"] == "ClusterConfiguration")
    of_cluster["kubernetesVersion"] = "v1.37.2"
    of_node = next(one for one in documents if one["kind"] == "InitConfiguration")
    of_node["localAPIEndpoint"] = {"advertiseAddress": "192.0.2.1"}
    path = tmp_path / "init.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


@pytest.fixture
def wanted(config: Path) -> list[str]:
    """The names of the images that a control plane is made of."""
    told = kubeadm("config", "images", "list", "--config", config).splitlines()
    return [line for line in told if line.startswith("registry.k8s.io/")]


@pytest.fixture
def own_daemon(
    prepared_machine: None, tmp_path: Path, wanted: list[str], request: pytest.FixtureRequest
) -> Iterator[Daemon]:
    """A daemon on the sockets of its parameter, and a registry with images of those names."""
    if KNOWN.exists():
        pytest.skip(f"{KNOWN} is somebody else's on this machine")
    with serving(tmp_path / "registry") as registry:
        top = catalogue.written()
        descriptor = layout.read_names(top)[catalogue.PAUSE]
        for name in wanted:
            registry.push(top, name, descriptor)
        with running(registry, environment={}) as daemon:
            daemon.stop()
            usual = str(daemon.cri_socket)
            daemon.overrides = {"": {"listen": [usual, *request.param]}}
            daemon.start()
            yield daemon


def images(daemon: Daemon) -> set[str]:
    listed = daemon.images().ListImages(cri_pb2.ListImagesRequest(), timeout=CALL_LIMIT)
    return {tag for image in listed.images for tag in image.repo_tags}


def preflight(config: Path) -> str:
    ignored = f"--ignore-preflight-errors={','.join(OF_THE_MACHINE)}"
    return kubeadm("init", "phase", "preflight", "--config", config, ignored)


@pytest.mark.parametrize("own_daemon", [()], indirect=True)
def test_the_preflight_of_the_file_in_deploy_pulls_through_crisp(
    own_daemon: Daemon, config: Path, wanted: list[str]
) -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(config.read_text()))
    found = [one for one in documents if one["kind"] == "InitConfiguration"]
    assert found[0]["nodeRegistration"]["criSocket"] == "unix:///run/crisp/crisp.sock"
    found[0]["nodeRegistration"]["criSocket"] = own_daemon.endpoint
    config.write_text(yaml.safe_dump_all(documents))
    told = preflight(config)
    assert "CRI" not in told, told
    assert images(own_daemon) >= set(wanted)


@pytest.mark.parametrize("own_daemon", [(str(KNOWN),)], indirect=True)
def test_an_alias_is_found_without_a_word(own_daemon: Daemon, config: Path, wanted: list[str]) -> None:
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(config.read_text()))
    for one in documents:
        with contextlib.suppress(KeyError):
            del one["nodeRegistration"]
    config.write_text(yaml.safe_dump_all(documents))
    preflight(config)
    assert images(own_daemon) >= set(wanted)


@pytest.mark.parametrize("own_daemon", [()], indirect=True)
def test_the_socket_may_be_named_by_the_option(own_daemon: Daemon, wanted: list[str]) -> None:
    kubeadm("config", "images", "pull", "--kubernetes-version=v1.37.2", f"--cri-socket={own_daemon.endpoint}")
    assert images(own_daemon) >= set(wanted)
