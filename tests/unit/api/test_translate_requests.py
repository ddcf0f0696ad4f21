"""Whole requests become whole values."""

from __future__ import annotations

from api.proto import cri_pb2
from api.translate.container_request import container_spec
from api.translate.pod_request import pod_spec
from oci.workload import (
    Capabilities,
    ContainerMetadata,
    ContainerSecurity,
    ContainerSpec,
    DeviceRequest,
    DnsConfig,
    HugepageLimit,
    IdMapping,
    ImageSpec,
    MountRequest,
    NamespaceMode,
    NamespaceOptions,
    PodMetadata,
    PodSecurity,
    PodSpec,
    PortMapping,
    ProfileKind,
    Propagation,
    Resources,
    SecurityProfile,
    SelinuxOption,
    UserChoice,
    UserNamespace,
)
from tests.unit.api import requests

RESOURCES = Resources(
    cpu_period=100000,
    cpu_quota=20000,
    cpu_shares=1024,
    memory_limit=64 << 20,
    memory_swap_limit=128 << 20,
    oom_score_adj=10,
    cpuset_cpus="0-1",
    cpuset_mems="0",
    hugepage_limits=(HugepageLimit(page_size="2MB", limit=4 << 20),),
    unified={"memory.high": "1000000"},
)
MAPPING = IdMapping(host_id=100000, container_id=0, length=65536)
USERNS = UserNamespace(uids=(MAPPING,), gids=(MAPPING,))
SELINUX = SelinuxOption(user="system_u", role="system_r", type="container_t", level="s0:c1,c2")


def test_a_full_pod_request_becomes_one_value() -> None:
    request = requests.run_pod()
    assert pod_spec(request.config, "config", handler=request.runtime_handler) == PodSpec(
        metadata=PodMetadata(name="web", namespace="shop", uid="u-1", attempt=2),
        hostname="web-0",
        log_directory="/var/log/pods/shop_web_u-1",
        dns=DnsConfig(servers=("10.0.0.10",), searches=("shop.svc",), options=("ndots:5",)),
        port_mappings=(PortMapping(protocol="udp", container_port=53, host_port=5353, host_ip="127.0.0.1"),),
        labels={"app": "web"},
        annotations={"note": "a\nb"},
        cgroup_parent="/kubepods/pod1",
        sysctls={"net.ipv4.ip_forward": "1"},
        security=PodSecurity(
            namespaces=NamespaceOptions(
                network=NamespaceMode.NODE,
                pid=NamespaceMode.CONTAINER,
                ipc=NamespaceMode.NODE,
                user=USERNS,
                user_requested=True,
            ),
            user=UserChoice(uid=1000, gid=1001, supplemental_groups=(7,), strict_groups=True),
            privileged=True,
            readonly_rootfs=True,
            seccomp=SecurityProfile(kind=ProfileKind.LOCALHOST, ref="/seccomp/pod.json"),
            apparmor=SecurityProfile(kind=ProfileKind.LOCALHOST, ref="pod-profile"),
            selinux=SELINUX,
        ),
        overhead=Resources(cpu_shares=2, hugepage_limits=(HugepageLimit(page_size="1GB", limit=0),)),
        resources=RESOURCES,
        handler="crun",
    )


def test_a_full_container_request_becomes_one_value() -> None:
    assert container_spec(requests.container_config(), "config") == ContainerSpec(
        metadata=ContainerMetadata(name="nginx", attempt=3),
        image=ImageSpec(
            image="sha256:" + "ef" * 32,
            user_specified_image="nginx:1",
            runtime_handler="runc",
            annotations={"a": "b"},
        ),
        command=("nginx",),
        args=("-g", "daemon off;"),
        working_dir="/srv",
        envs=(("TOKEN", "\udcff"),),
        mounts=(
            MountRequest(
                container_path="/data",
                host_path="/var/data",
                readonly=True,
                recursive_read_only=True,
                selinux_relabel=True,
                uid_mappings=(IdMapping(host_id=1, container_id=2, length=3),),
                gid_mappings=(IdMapping(host_id=4, container_id=5, length=6),),
                options=("noexec",),
            ),
            MountRequest(container_path="/shared", host_path="/mnt", propagation=Propagation.BIDIRECTIONAL),
            MountRequest(
                container_path="/model",
                readonly=True,
                image=ImageSpec(image="models/llm:1"),
                image_sub_path="weights",
            ),
        ),
        devices=(DeviceRequest(container_path="/dev/x", host_path="/dev/null", permissions="rw"),),
        cdi_devices=("vendor.com/gpu=0",),
        labels={"tier": "front"},
        annotations={"hash": "1"},
        log_path="nginx/3.log",
        stdin=True,
        stdin_once=True,
        tty=True,
        resources=RESOURCES,
        security=ContainerSecurity(
            capabilities=Capabilities(add=("NET_ADMIN",), drop=("ALL",), add_ambient=("CHOWN",)),
            privileged=True,
            namespaces=NamespaceOptions(
                network=NamespaceMode.NODE,
                pid=NamespaceMode.TARGET,
                ipc=NamespaceMode.NODE,
                target_id=requests.CONTAINER_ID,
                user=USERNS,
                user_requested=True,
            ),
            selinux=SELINUX,
            user=UserChoice(username="www-data", gid=33, supplemental_groups=(5,), strict_groups=True),
            readonly_rootfs=True,
            no_new_privs=True,
            masked_paths=("/proc/kcore",),
            readonly_paths=("/proc/sys",),
            seccomp=SecurityProfile(kind=ProfileKind.LOCALHOST, ref="/seccomp/web.json"),
            apparmor=SecurityProfile(kind=ProfileKind.LOCALHOST, ref="web-profile"),
        ),
        stop_signal="SIGQUIT",
    )


def test_the_least_requests_ask_for_nothing_else() -> None:
    pod = cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="u-1")
    )
    container = cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="c"), image=cri_pb2.ImageSpec(image="busybox")
    )
    assert pod_spec(pod, "config") == PodSpec(metadata=PodMetadata(name="web", namespace="shop", uid="u-1"))
    assert container_spec(container, "config") == ContainerSpec(
        metadata=ContainerMetadata(name="c"), image=ImageSpec(image="busybox")
    )


def test_an_empty_dns_message_is_not_an_absent_one() -> None:
    message = requests.pod_config()
    message.dns_config.Clear()
    message.dns_config.SetInParent()
    assert pod_spec(message, "config").dns == DnsConfig()
    message.ClearField("dns_config")
    assert pod_spec(message, "config").dns is None


def test_a_port_without_a_port_of_the_node_maps_nothing() -> None:
    message = requests.pod_config()
    message.port_mappings.add(container_port=80)
    message.port_mappings.add(container_port=80, host_port=-1)
    assert [port.container_port for port in pod_spec(message, "config").port_mappings] == [53]


def test_the_structured_profile_wins_over_the_text_and_the_text_counts_alone() -> None:
    message = requests.container_config()
    context = message.linux.security_context
    context.seccomp_profile_path = "unconfined"
    context.apparmor_profile = "unconfined"
    with_both = container_spec(message, "config").security
    context.ClearField("seccomp")
    context.ClearField("apparmor")
    alone = container_spec(message, "config").security
    context.seccomp_profile_path = "localhost//p.json"
    context.apparmor_profile = "runtime/default"
    others = container_spec(message, "config").security
    assert (with_both.seccomp, with_both.apparmor) == (
        SecurityProfile(kind=ProfileKind.LOCALHOST, ref="/seccomp/web.json"),
        SecurityProfile(kind=ProfileKind.LOCALHOST, ref="web-profile"),
    )
    assert alone.seccomp == alone.apparmor == SecurityProfile(kind=ProfileKind.UNCONFINED)
    assert (others.seccomp, others.apparmor) == (
        SecurityProfile(kind=ProfileKind.LOCALHOST, ref="/p.json"),
        SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT),
    )


def test_no_seccomp_message_is_unconfined_and_an_empty_one_is_the_default_profile() -> None:
    message = requests.container_config()
    message.linux.security_context.ClearField("seccomp")
    assert container_spec(message, "config").security.seccomp is None
    message.linux.security_context.seccomp.SetInParent()
    assert container_spec(message, "config").security.seccomp == SecurityProfile(
        kind=ProfileKind.RUNTIME_DEFAULT
    )


def test_a_user_namespace_of_the_node_is_remembered_as_asked_for() -> None:
    message = requests.pod_config()
    message.linux.security_context.namespace_options.userns_options.Clear()
    message.linux.security_context.namespace_options.userns_options.mode = cri_pb2.NODE
    found = pod_spec(message, "config").security.namespaces
    assert (found.user, found.user_requested) == (None, True)
