"""Every setting of Crisp: its key, type, default and meaning.

Owns what can be configured; `docs/configuration.md` is made from the descriptions here. Knows no file and no
machine: `loading.py` reads files, `shim/` finds out what the machine has. Every key is optional.
A pydantic model is a value here: frozen, compared by its members, no unknown keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from config.containers import ContainerSettings
from config.table import Table, between_keys
from config.trust import TrustSettings
from config.units import Bytes, Seconds
from config.values import (
    UNIX_PATH_MAX,
    AbsolutePath,
    CgroupPlaceText,
    CgroupPrefix,
    HandlerKind,
    HandlerName,
    InterfaceName,
    IpAddress,
    Paths,
    PositiveDuration,
    RuntimeType,
    Size,
    SocketPath,
    SocketPaths,
    Subnets,
    Texts,
)


class LogSettings(Table):
    """The daemon's own log, written to standard error (the journal, under systemd)."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe messages that are written."
    )
    format: Literal["text", "json"] = Field(
        default="text", description="`text` for people, `json` (one object a line) for collectors."
    )


class HandlerSettings(Table):
    """A runtime that a RuntimeClass can name as its handler.

    `runc` and `crun` need no table when they are on PATH; a table of that name changes how they are run.
    A mistake in a table here disables that handler alone. A changed file, or SIGHUP, adds, changes and
    removes handlers while the daemon runs; pods keep the handler that they were started with.
    """

    kind: HandlerKind = Field(
        default="oci",
        description="How it is driven: `oci` is an OCI command line under conmon, `shim` a containerd shim"
        " (version 2); installed packages may add other kinds (docs/handlers/plugins.md).",
    )
    binary: AbsolutePath | None = Field(
        default=None,
        description="The runtime's or the shim's program. Unset: the handler's name is looked up on PATH, or"
        " the program that `runtime_type` names.",
    )
    runtime_type: RuntimeType | None = Field(
        default=None,
        description="Of kind `shim`: the runtime's type, such as `io.containerd.runc.v2`, which names the"
        " program unless `binary` does.",
    )
    runtime_binary: AbsolutePath | None = Field(
        default=None,
        description="Of kind `shim`: the OCI runtime that the shim runs. Unset: the shim's own default.",
    )
    config_path: AbsolutePath | None = Field(
        default=None,
        description="Of kind `shim`: the runtime's own configuration file, for shims that take one (runsc,"
        " Kata).",
    )
    root: AbsolutePath | None = Field(
        default=None,
        description="Where the runtime keeps its state (`--root`). Unset: `handlers/NAME` below `run_dir`.",
    )
    options: Texts = Field(
        default=(), description="Arguments put before the verb at every call, such as `--debug`."
    )
    create_options: Texts = Field(
        default=(), description="Arguments put after `create`, such as `--no-pivot`."
    )
    monitor: AbsolutePath | None = Field(
        default=None, description="The monitor's program (conmon). Unset: `conmon` is looked up on PATH."
    )
    annotations: Texts = Field(
        default=(),
        description="Pod annotations that are handed to the runtime, as names or shell patterns"
        " (`io.katacontainers.*`). All others are kept from it.",
    )
    privileged_without_host_devices: bool = Field(
        default=False,
        description="Privileged containers get only the devices that they ask for, not all of the host's.",
    )
    plugin: dict[str, Any] = Field(
        default={}, description="Settings of a kind that a package added; that package says which there are."
    )
    base_spec: AbsolutePath | None = Field(
        default=None,
        description="A JSON file, a part of an OCI runtime specification, that every container of this"
        " handler is based on: environment, rlimits, mounts, hooks, annotations, sysctls and devices may be"
        " in it; what Crisp writes itself wins.",
    )

    @field_validator("options", "create_options")
    @classmethod
    def _refuse_owned_options(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        owned = ("--root", "--log", "--log-format", "--systemd-cgroup", "--bundle", "--pid-file")
        for option in value:
            if option.split("=", 1)[0] in owned:
                raise ValueError(f"{option!r} is given by the daemon itself and cannot be set here")
        return value


class HandlerPolicySettings(Table):
    """Which handler a pod gets whose RuntimeClass names none, before `default_handler`.

    For nodes whose default is a sandbox or a virtual machine. A pod's status and the log say what was decided
    and why.
    """

    host: HandlerName | None = Field(
        default=None,
        description="Of pods that are privileged, use a namespace of the host, or carry the annotation"
        ' `runtime.frakti.alpha.kubernetes.io/OSContainer: "true"`. Unset: the default one.',
    )
    untrusted: HandlerName | None = Field(
        default=None,
        description='Of pods with the annotation `io.kubernetes.cri.untrusted-workload: "true"`, which then'
        " cannot have the host. Unset: the annotation means nothing.",
    )


class CgroupSettings(Table):
    """Control groups."""

    driver: Literal["auto", "systemd", "cgroupfs"] = Field(
        default="auto",
        description="Who makes cgroups; kubelet takes it over. `auto`: systemd where it runs the machine.",
    )
    prefix: CgroupPrefix = Field(
        default="crisp", description="The first word of the names of cgroups and scopes that are made."
    )
    monitors: CgroupPlaceText = Field(
        default="",
        description="The cgroup of the containers' monitors: a slice with systemd, else a path. Empty:"
        " `PREFIX-monitors.slice`, or `/PREFIX-monitors`.",
    )


class NetworkSettings(Table):
    """Pod networks, by CNI plugins."""

    conf_dir: AbsolutePath = Field(
        default=Path("/etc/cni/net.d"), description="Where CNI configurations are read; watched for changes."
    )
    bin_dirs: Paths = Field(
        default=(Path("/opt/cni/bin"), Path("/usr/lib/cni")),
        description="Where CNI plugins are looked up, in this order.",
    )
    cache_dir: AbsolutePath | None = Field(
        default=None,
        description="Where results of plugins are kept for CHECK and DEL. Unset: `cni` below `state_dir`.",
    )
    max_confs: int = Field(
        default=1,
        ge=1,
        le=16,
        description="How many configurations of `conf_dir`, in name order, a pod is attached to.",
    )
    builtin: bool = Field(
        default=False,
        description="Offer a network of our own (bridge, host-local, portmap) while `conf_dir` holds no"
        " configuration. Nothing is written into `conf_dir`.",
    )
    builtin_bridge: InterfaceName = Field(default="crisp0", description="The bridge of the built-in network.")
    builtin_subnets: Subnets = Field(
        default=("10.84.0.0/16",),
        description="Subnets of the built-in network: one, or one of IPv4 and one of IPv6.",
    )
    ip_preference: Literal["ipv4", "ipv6", "cni"] = Field(
        default="ipv4",
        description="Which of a pod's addresses is its first; `cni` keeps the order of the plugin's result.",
    )
    add_timeout: PositiveDuration = Field(
        default=Seconds(90), description="The longest that attaching one pod may take."
    )
    del_timeout: PositiveDuration = Field(
        default=Seconds(60), description="The longest that detaching one pod may take before it is owed."
    )
    status_timeout: PositiveDuration = Field(
        default=Seconds(5), description="The longest that a plugin's STATUS or VERSION may take."
    )


class ImageSettings(Table):
    """Image store, registries and pulls."""

    layer_form: Literal["auto", "erofs", "directory"] = Field(
        default="auto",
        description="How layers are kept: `erofs` one mounted file each (kernel 6.12 or later),"
        " `directory` unpacked. `auto`: erofs where the kernel mounts it.",
    )
    registry_dirs: Paths = Field(
        default=(
            Path("/etc/crisp/certs.d"),
            Path("/etc/containerd/certs.d"),
            Path("/etc/containers/certs.d"),
            Path("/etc/docker/certs.d"),
        ),
        description="Directories with `HOST/hosts.toml`, CA and client certificates. The first that knows a"
        " host decides. Read, as are the files below, at each pull (docs/registries.md).",
    )
    registries_conf: AbsolutePath = Field(
        default=Path("/etc/containers/registries.conf"),
        description="A `registries.conf` of CRI-O or Podman, version 2; drop-ins are read from the directory"
        " of that name with `.d`. It need not be there.",
    )
    docker_daemon_json: AbsolutePath = Field(
        default=Path("/etc/docker/daemon.json"),
        description="Docker's `daemon.json`: `registry-mirrors` and `insecure-registries` are read. It need"
        " not be there.",
    )
    auth_files: Paths = Field(
        default=(Path("/etc/crisp/auth.json"),),
        description="Credentials of the node, as `auth.json` of containers or Docker's `config.json`, used"
        " where kubelet sends none for a registry. Those that are not there are passed over.",
    )
    namespaced_auth_dir: AbsolutePath | None = Field(
        default=None,
        description="Where CRI-O's credential provider writes credentials for one namespace and image,"
        " which come before `auth_files`. Unset: none.",
    )
    max_parallel_downloads: int = Field(
        default=6, ge=1, le=64, description="Downloads at the same time, over all pulls."
    )
    retries: int = Field(
        default=3, ge=0, le=20, description="How often a failed request to a registry is repeated."
    )
    connect_timeout: PositiveDuration = Field(
        default=Seconds(30), description="The longest wait for a registry's connection and first answer."
    )
    stall_timeout: PositiveDuration = Field(
        default=Seconds(60), description="A download slower than `minimum_rate` for this long is given up."
    )
    minimum_rate: Size = Field(
        default=Bytes(1024), description="Bytes a second that a download must reach over `stall_timeout`."
    )
    pull_timeout: PositiveDuration = Field(
        default=Seconds(4 * 3600), description="The longest that one pull may take, however it goes on."
    )
    max_manifest_size: Size = Field(
        default=Bytes(4 * 2**20), description="The largest manifest, index or image configuration."
    )
    max_layers: int = Field(default=500, ge=1, le=500, description="The most layers of one image.")
    max_layer_ratio: int = Field(
        default=1100,
        ge=2,
        description="The most uncompressed bytes for one compressed byte of a layer; gzip reaches 1032.",
    )
    max_image_size: Size = Field(
        default=Bytes(100 * 2**30), description="The most uncompressed bytes of one image's layers together."
    )
    pinned: Texts = Field(
        default=(),
        description="Shell patterns of image names that are never garbage collected by kubelet, such as"
        " `registry.example/base/*`.",
    )
    directory: AbsolutePath | None = Field(
        default=None,
        json_schema_extra={"shown": '"/var/lib/crisp/images"'},
        description="Where images lie, such as a disk of their own; must exist. Unset: in `state_dir`. When"
        " it is changed, images are pulled again; the old directory is left as it is.",
    )
    additional_stores: Paths = Field(
        default=(),
        description="State directories of other Crisp daemons, or copies of them, whose images and layers are"
        " used where they lie and never written: on a network or read-only file system, say"
        " (docs/images.md).",
    )
    keep_compressed: bool = Field(
        default=False,
        description="Keep each pulled layer also as it came, for `crisp export` with the registry's digests"
        " and for repairs without a registry.",
    )
    isolate_unpack: bool = Field(
        default=True,
        description="Unpack layers of the `directory` form behind walls: namespaces and a root directory of"
        " their own, few capabilities, and a system call filter. `false` where those cannot be had.",
    )
    preload_dirs: Paths = Field(
        default=(),
        description="Directories whose image archives are imported and whose lists (`*.txt`) are pulled at"
        " the start, and when they change; K3s has such in `/var/lib/rancher/k3s/agent/images`.",
    )
    trust: TrustSettings = Field(default_factory=TrustSettings)


class StreamingTlsSettings(Table):
    """TLS of the streaming server: off unless a key pair is given or asked for.

    The files are looked at for each connection, so they can be replaced while the daemon runs.
    """

    certificate: AbsolutePath | None = Field(
        default=None, description="The certificate, followed by those that lead to its authority; PEM."
    )
    key: AbsolutePath | None = Field(default=None, description="Its private key, not encrypted; PEM.")
    self_signed: bool = Field(
        default=False,
        description="Make a key pair at start, for `address` and the node's name, in memory alone.",
    )
    client_ca: AbsolutePath | None = Field(
        default=None,
        description="Authorities, PEM: only clients that show a certificate of theirs are let in.",
    )
    minimum_version: Literal["1.2", "1.3"] = Field(
        default="1.2", description="The oldest version of TLS that is spoken."
    )

    @property
    def enabled(self) -> bool:
        """Whether the server speaks TLS at all."""
        return self.self_signed or self.certificate is not None

    @model_validator(mode="after")
    def _one_key_pair(self) -> StreamingTlsSettings:
        if (self.certificate is None) != (self.key is None):
            missing = "key" if self.key is None else "certificate"
            raise between_keys(missing, "certificate and key belong together: set both or none")
        if self.self_signed and self.certificate is not None:
            raise between_keys("self_signed", "a key pair is given, so none is made: remove one of the two")
        if self.client_ca is not None and not self.enabled:
            raise between_keys("client_ca", "needs a key pair: set certificate and key, or self_signed")
        return self


class StreamingSettings(Table):
    """The server that exec, attach and port-forward connect to.

    Whoever knows a URL may use it, once and within a minute, so an address that others reach needs TLS, or a
    network that nobody listens on.
    """

    address: IpAddress = Field(
        default="127.0.0.1", description="The address to listen at, which is also the URLs' host."
    )
    port: int = Field(default=0, ge=0, le=65535, description="The port to listen at; 0 takes a free one.")
    idle_timeout: PositiveDuration = Field(
        default=Seconds(4 * 3600), description="How long nothing may move on a connection before it is cut."
    )
    creation_timeout: PositiveDuration = Field(
        default=Seconds(30), description="How long a client has for its request and to open its streams."
    )
    tls: StreamingTlsSettings = Field(default_factory=StreamingTlsSettings)


class MetricsSettings(Table):
    """The daemon's own numbers for Prometheus, by HTTP at `/metrics` (docs/metrics.md).

    Whoever reaches the address may read them.
    """

    address: IpAddress | None = Field(
        default=None,
        description="The address to listen at, such as `127.0.0.1`. Unset: off.",
    )
    port: int = Field(default=9713, ge=0, le=65535, description="The port there; 0 takes a free one.")


class KubeletSettings(Table):
    """What kubelet asks beside CRI."""

    cadvisor_socket: SocketPath | None = Field(
        default=None,
        description="Answer kubelet's built-in cAdvisor here as CRI-O does; it asks at"
        " `/var/run/crio/crio.sock`. Then `/metrics/cadvisor` names pods and containers and has the pods'"
        " network, and their cgroups are called `crio-ID`. Refused where CRI-O itself answers. Unset: off.",
    )


class Settings(Table):
    """Where the daemon keeps its things and is spoken to. These keys stand before the first table.

    A node needs none of them; a second daemon on a machine needs its own `state_dir`, `run_dir` and, in
    `[cgroup]`, `prefix`.
    """

    state_dir: AbsolutePath = Field(
        default=Path("/var/lib/crisp"), description="State and images; survives a reboot. Mode 0700."
    )
    run_dir: AbsolutePath = Field(
        default=Path("/run/crisp"), description="Sockets and pinned namespaces; a tmpfs. Mode 0700."
    )
    listen: SocketPaths = Field(
        default_factory=lambda data: (data["run_dir"] / "crisp.sock",),
        description="Sockets on which CRI is served to kubelet and other clients. Those of other runtimes may"
        " be among them, such as `/run/cri-dockerd.sock`: the start is refused while another process answers"
        " there.",
        json_schema_extra={"shown": '["RUN_DIR/crisp.sock"]'},
    )
    run_socket: SocketPath = Field(
        default_factory=lambda data: data["run_dir"] / "run.sock",
        description="The socket of the realm of `crisp run`, which kubelet does not see.",
        json_schema_extra={"shown": '"RUN_DIR/run.sock"'},
    )
    admin_socket: SocketPath = Field(
        default_factory=lambda data: data["run_dir"] / "admin.sock",
        description="The socket of the admin service; only root may use it.",
        json_schema_extra={"shown": '"RUN_DIR/admin.sock"'},
    )
    default_handler: HandlerName | None = Field(
        default=None,
        description="The handler of pods that name none. Unset: the first usable of runc, crun and those"
        " configured, in this order.",
    )
    shutdown_timeout: PositiveDuration = Field(
        default=Seconds(10), description="How long running requests may take to finish at SIGTERM."
    )
    log: LogSettings = Field(default_factory=LogSettings)
    handlers: dict[HandlerName, HandlerSettings] = Field(
        default={}, description="Runtimes by the name that a RuntimeClass calls them."
    )
    handler_policy: HandlerPolicySettings = Field(default_factory=HandlerPolicySettings)
    kubelet: KubeletSettings = Field(default_factory=KubeletSettings)
    cgroup: CgroupSettings = Field(default_factory=CgroupSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    images: ImageSettings = Field(default_factory=ImageSettings)
    containers: ContainerSettings = Field(default_factory=ContainerSettings)
    streaming: StreamingSettings = Field(default_factory=StreamingSettings)
    metrics: MetricsSettings = Field(default_factory=MetricsSettings)

    @model_validator(mode="after")
    def _sockets_fit_and_differ(self) -> Settings:
        seen: dict[Path, str] = {}
        sockets = [("listen", path) for path in self.listen]
        sockets += [("run_socket", self.run_socket), ("admin_socket", self.admin_socket)]
        if self.kubelet.cadvisor_socket is not None:
            sockets.append(("kubelet.cadvisor_socket", self.kubelet.cadvisor_socket))
        for key, path in sockets:
            if len(str(path).encode()) > UNIX_PATH_MAX:
                raise between_keys(
                    "run_dir", f"the default of {key} is {str(path)!r}, longer than {UNIX_PATH_MAX} bytes"
                )
            place = Path("/run", path.relative_to("/var/run")) if path.is_relative_to("/var/run") else path
            if place in seen:
                raise between_keys(key, f"{str(path)!r} is given twice, here and in {seen[place]}")
            seen[place] = key
        return self

    @property
    def cni_cache_dir(self) -> Path:
        """Where CNI results are kept: `network.cache_dir`, else below the state directory."""
        return self.network.cache_dir or self.state_dir / "cni"

    def handler_root(self, name: str) -> Path:
        """The runtime's `--root`: configured, else below the run directory."""
        configured = self.handlers.get(name)
        return (configured and configured.root) or self.run_dir / "handlers" / name
