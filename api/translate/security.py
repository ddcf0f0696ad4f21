"""The parts of a security context that pods and containers share: namespaces, user, profiles, labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from api.proto import cri_pb2
from api.translate import checks
from oci.errors import BadInput
from oci.workload import (
    IdMapping,
    NamespaceMode,
    NamespaceOptions,
    ProfileKind,
    SecurityProfile,
    SelinuxOption,
    UserChoice,
    UserNamespace,
)

MODES = {
    cri_pb2.POD: NamespaceMode.POD,
    cri_pb2.CONTAINER: NamespaceMode.CONTAINER,
    cri_pb2.NODE: NamespaceMode.NODE,
    cri_pb2.TARGET: NamespaceMode.TARGET,
}
_SHARED = {number: MODES[number] for number in (cri_pb2.POD, cri_pb2.NODE)}
_POD_PID = {number: MODES[number] for number in (cri_pb2.POD, cri_pb2.CONTAINER, cri_pb2.NODE)}
_KINDS = {
    cri_pb2.SecurityProfile.RuntimeDefault: ProfileKind.RUNTIME_DEFAULT,
    cri_pb2.SecurityProfile.Unconfined: ProfileKind.UNCONFINED,
    cri_pb2.SecurityProfile.Localhost: ProfileKind.LOCALHOST,
}
_POLICIES = {cri_pb2.Merge: False, cri_pb2.Strict: True}
_LOCALHOST = "localhost/"


def namespaces(message: cri_pb2.NamespaceOption, path: str, *, of_container: bool) -> NamespaceOptions:
    """Network and IPC are the pod's or the node's; a container may also have its own or another's PID one."""
    pid = checks.choice(message.pid, MODES if of_container else _POD_PID, f"{path}.pid")
    if pid is NamespaceMode.TARGET and not message.target_id:
        raise BadInput(f"{path}.target_id: empty, but pid is TARGET")
    return NamespaceOptions(
        network=checks.choice(message.network, _SHARED, f"{path}.network"),
        pid=pid,
        ipc=checks.choice(message.ipc, _SHARED, f"{path}.ipc"),
        target_id=checks.word(message.target_id, f"{path}.target_id"),
        user=(
            _user_namespace(message.userns_options, f"{path}.userns_options")
            if message.HasField("userns_options")
            else None
        ),
        user_requested=message.HasField("userns_options"),
    )


def _user_namespace(message: cri_pb2.UserNamespace, path: str) -> UserNamespace | None:
    """POD with one mapping of each kind, or NODE (None) with none."""
    if message.mode == cri_pb2.NODE:
        if message.uids or message.gids:
            raise BadInput(f"{path}: mode NODE has mappings, which only mode POD can have")
        return None
    if message.mode != cri_pb2.POD:
        raise BadInput(f"{path}.mode: {message.mode} is neither POD nor NODE")
    uids = id_mappings(message.uids, f"{path}.uids")
    gids = id_mappings(message.gids, f"{path}.gids")
    for kind, mappings in (("uids", uids), ("gids", gids)):
        if len(mappings) != 1:
            raise BadInput(f"{path}.{kind}: {len(mappings)} mappings, exactly one is supported")
        if mappings[0].container_id != 0:
            raise BadInput(
                f"{path}.{kind}[0].container_id: {mappings[0].container_id}, but id 0 must be mapped"
            )
    return UserNamespace(uids=uids, gids=gids)


def id_mappings(messages: Iterable[cri_pb2.IDMapping], path: str) -> tuple[IdMapping, ...]:
    return checks.id_mappings(
        (
            IdMapping(host_id=entry.host_id, container_id=entry.container_id, length=entry.length)
            for entry in messages
        ),
        path,
    )


def user(
    message: cri_pb2.LinuxSandboxSecurityContext | cri_pb2.LinuxContainerSecurityContext, path: str
) -> UserChoice:
    """Who to be. A group alone is refused, as the interface says; so are a number and a name at once."""
    username = ""
    if isinstance(message, cri_pb2.LinuxContainerSecurityContext):
        username = checks.word(message.run_as_username, f"{path}.run_as_username")
    uid = gid = None
    if message.HasField("run_as_user"):
        uid = checks.identity(message.run_as_user.value, f"{path}.run_as_user")
        if username:
            raise BadInput(f"{path}.run_as_username: set together with run_as_user")
    if message.HasField("run_as_group"):
        gid = checks.identity(message.run_as_group.value, f"{path}.run_as_group")
        if uid is None and not username:
            raise BadInput(f"{path}.run_as_group: set without a user")
    return UserChoice(
        uid=uid,
        username=username,
        gid=gid,
        supplemental_groups=_groups(message.supplemental_groups, f"{path}.supplemental_groups"),
        strict_groups=checks.choice(
            message.supplemental_groups_policy, _POLICIES, f"{path}.supplemental_groups_policy"
        ),
    )


def _groups(values: Sequence[int], path: str) -> tuple[int, ...]:
    # NGROUPS_MAX of the kernel
    if len(values) > 65536:
        raise BadInput(f"{path}: {len(values)} groups, more than the kernel's 65536")
    return tuple(checks.identity(value, f"{path}[{index}]") for index, value in enumerate(values))


def seccomp(
    message: cri_pb2.LinuxSandboxSecurityContext | cri_pb2.LinuxContainerSecurityContext, path: str
) -> SecurityProfile | None:
    """None means unconfined. The structured member wins over the older string."""
    if message.HasField("seccomp"):
        return _profile(message.seccomp, f"{path}.seccomp", ref_is_path=True)
    return _profile_text(message.seccomp_profile_path, f"{path}.seccomp_profile_path", ref_is_path=True)


def apparmor(
    message: cri_pb2.LinuxSandboxSecurityContext | cri_pb2.LinuxContainerSecurityContext, path: str
) -> SecurityProfile | None:
    """The structured member wins over the older string, which only containers have."""
    if message.HasField("apparmor"):
        return _profile(message.apparmor, f"{path}.apparmor", ref_is_path=False)
    if isinstance(message, cri_pb2.LinuxContainerSecurityContext):
        return _profile_text(message.apparmor_profile, f"{path}.apparmor_profile", ref_is_path=False)
    return None


def _profile(message: cri_pb2.SecurityProfile, path: str, *, ref_is_path: bool) -> SecurityProfile:
    kind = checks.choice(message.profile_type, _KINDS, f"{path}.profile_type")
    if kind is not ProfileKind.LOCALHOST:
        if message.localhost_ref:
            raise BadInput(f"{path}.localhost_ref: set, but profile_type is not Localhost")
        return SecurityProfile(kind=kind)
    return SecurityProfile(kind=kind, ref=_ref(message.localhost_ref, f"{path}.localhost_ref", ref_is_path))


def _profile_text(value: str, path: str, *, ref_is_path: bool) -> SecurityProfile | None:
    if not value:
        return None
    if value in ("runtime/default", "docker/default"):
        return SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT)
    if value == "unconfined":
        return SecurityProfile(kind=ProfileKind.UNCONFINED)
    if value.startswith(_LOCALHOST):
        return SecurityProfile(kind=ProfileKind.LOCALHOST, ref=_ref(value, path, ref_is_path))
    raise BadInput(f"{path}: {value[:80]!r} is none of runtime/default, unconfined, localhost/PROFILE")


def _ref(value: str, path: str, is_path: bool) -> str:
    bare = value.removeprefix(_LOCALHOST)
    if is_path:
        return checks.absolute(bare, path)
    if not bare:
        raise BadInput(f"{path}: empty, but profile_type is Localhost")
    return checks.line(bare, path)


def selinux(message: cri_pb2.SELinuxOption, path: str) -> SelinuxOption:
    for part in ("user", "role", "type"):
        if ":" in checks.word(getattr(message, part), f"{path}.{part}"):
            raise BadInput(f"{path}.{part}: contains ':', which separates the parts of a label")
    return SelinuxOption(
        user=message.user,
        role=message.role,
        type=message.type,
        level=checks.word(message.level, f"{path}.level"),
    )
