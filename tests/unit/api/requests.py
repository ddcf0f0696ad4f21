"""Requests for tests of `api/`: complete ones, with a value wherever one may stand beside the others."""

from __future__ import annotations

from api.proto import cri_pb2

POD_ID = "ab" * 32
CONTAINER_ID = "cd" * 32


def resources() -> cri_pb2.LinuxContainerResources:
    return cri_pb2.LinuxContainerResources(
        cpu_period=100000,
        cpu_quota=20000,
        cpu_shares=1024,
        memory_limit_in_bytes=64 << 20,
        memory_swap_limit_in_bytes=128 << 20,
        oom_score_adj=10,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        hugepage_limits=[cri_pb2.HugepageLimit(page_size="2MB", limit=4 << 20)],
        unified={"memory.high": "1000000"},
    )


def userns() -> cri_pb2.UserNamespace:
    mapping = cri_pb2.IDMapping(host_id=100000, container_id=0, length=65536)
    return cri_pb2.UserNamespace(mode=cri_pb2.POD, uids=[mapping], gids=[mapping])


def localhost(ref: str) -> cri_pb2.SecurityProfile:
    return cri_pb2.SecurityProfile(profile_type=cri_pb2.SecurityProfile.Localhost, localhost_ref=ref)


def selinux() -> cri_pb2.SELinuxOption:
    return cri_pb2.SELinuxOption(user="system_u", role="system_r", type="container_t", level="s0:c1,c2")


def pod_config() -> cri_pb2.PodSandboxConfig:
    return cri_pb2.PodSandboxConfig(
        metadata=cri_pb2.PodSandboxMetadata(name="web", namespace="shop", uid="u-1", attempt=2),
        hostname="web-0",
        log_directory="/var/log/pods/shop_web_u-1",
        dns_config=cri_pb2.DNSConfig(servers=["10.0.0.10"], searches=["shop.svc"], options=["ndots:5"]),
        port_mappings=[
            cri_pb2.PortMapping(protocol=cri_pb2.UDP, container_port=53, host_port=5353, host_ip="127.0.0.1")
        ],
        labels={"app": "web"},
        annotations={"note": "a\nb"},
        linux=cri_pb2.LinuxPodSandboxConfig(
            cgroup_parent="/kubepods/pod1",
            security_context=cri_pb2.LinuxSandboxSecurityContext(
                namespace_options=cri_pb2.NamespaceOption(
                    network=cri_pb2.NODE,
                    pid=cri_pb2.CONTAINER,
                    ipc=cri_pb2.NODE,
                    userns_options=userns(),
                ),
                selinux_options=selinux(),
                run_as_user=cri_pb2.Int64Value(value=1000),
                run_as_group=cri_pb2.Int64Value(value=1001),
                readonly_rootfs=True,
                supplemental_groups=[7],
                supplemental_groups_policy=cri_pb2.Strict,
                privileged=True,
                seccomp=localhost("/seccomp/pod.json"),
                apparmor=localhost("localhost/pod-profile"),
            ),
            sysctls={"net.ipv4.ip_forward": "1"},
            overhead=cri_pb2.LinuxContainerResources(
                cpu_shares=2, hugepage_limits=[cri_pb2.HugepageLimit(page_size="1GB", limit=0)]
            ),
            resources=resources(),
        ),
    )


def container_config() -> cri_pb2.ContainerConfig:
    return cri_pb2.ContainerConfig(
        metadata=cri_pb2.ContainerMetadata(name="nginx", attempt=3),
        image=cri_pb2.ImageSpec(
            image="sha256:" + "ef" * 32,
            annotations={"a": "b"},
            user_specified_image="nginx:1",
            runtime_handler="runc",
        ),
        command=["nginx"],
        args=["-g", "daemon off;"],
        working_dir="/srv",
        envs=[cri_pb2.KeyValue(key="TOKEN", value=b"\xff\x00"[:1])],
        mounts=[
            cri_pb2.Mount(
                container_path="/data",
                host_path="/var/data",
                readonly=True,
                selinux_relabel=True,
                recursive_read_only=True,
                uidMappings=[cri_pb2.IDMapping(host_id=1, container_id=2, length=3)],
                gidMappings=[cri_pb2.IDMapping(host_id=4, container_id=5, length=6)],
                mount_options=["noexec"],
            ),
            cri_pb2.Mount(container_path="/shared", host_path="/mnt", propagation=2),
            cri_pb2.Mount(
                container_path="/model",
                readonly=True,
                image=cri_pb2.ImageSpec(image="models/llm:1"),
                image_sub_path="weights",
            ),
        ],
        devices=[cri_pb2.Device(container_path="/dev/x", host_path="/dev/null", permissions="rw")],
        labels={"tier": "front"},
        annotations={"hash": "1"},
        log_path="nginx/3.log",
        stdin=True,
        stdin_once=True,
        tty=True,
        linux=cri_pb2.LinuxContainerConfig(
            resources=resources(),
            security_context=cri_pb2.LinuxContainerSecurityContext(
                capabilities=cri_pb2.Capability(
                    add_capabilities=["NET_ADMIN"],
                    drop_capabilities=["ALL"],
                    add_ambient_capabilities=["CHOWN"],
                ),
                privileged=True,
                namespace_options=cri_pb2.NamespaceOption(
                    network=cri_pb2.NODE,
                    pid=cri_pb2.TARGET,
                    ipc=cri_pb2.NODE,
                    target_id=CONTAINER_ID,
                    userns_options=userns(),
                ),
                selinux_options=selinux(),
                run_as_username="www-data",
                run_as_group=cri_pb2.Int64Value(value=33),
                readonly_rootfs=True,
                supplemental_groups=[5],
                supplemental_groups_policy=cri_pb2.Strict,
                no_new_privs=True,
                masked_paths=["/proc/kcore"],
                readonly_paths=["/proc/sys"],
                seccomp=localhost("/seccomp/web.json"),
                apparmor=localhost("web-profile"),
            ),
        ),
        CDI_devices=[cri_pb2.CDIDevice(name="vendor.com/gpu=0")],
        stop_signal=cri_pb2.SIGNAL_SIGQUIT,
    )


def run_pod() -> cri_pb2.RunPodSandboxRequest:
    return cri_pb2.RunPodSandboxRequest(config=pod_config(), runtime_handler="crun")


def create_container() -> cri_pb2.CreateContainerRequest:
    return cri_pb2.CreateContainerRequest(
        pod_sandbox_id=POD_ID, config=container_config(), sandbox_config=pod_config()
    )
