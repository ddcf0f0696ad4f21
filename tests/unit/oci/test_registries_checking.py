"""What `crisp doctor` says of files about registries."""

from __future__ import annotations

from oci.registries.checking import mistakes
from oci.registries.document import ConfigFile
from oci.registries.hosts_toml import HostDirectory
from oci.registries.resolver import RegistryFiles


def test_every_file_with_a_mistake_is_told_once() -> None:
    files = RegistryFiles(
        directories=(
            HostDirectory(path="/c/r.io", hosts_toml=ConfigFile(path="/c/r.io/hosts.toml", text="servr = 1")),
            HostDirectory(path="/c/s.io", hosts_toml=ConfigFile(path="/c/s.io/hosts.toml", text="")),
            HostDirectory(path="/d", problem="permission denied", whole=True),
        ),
        registries_conf=(ConfigFile(path="/registries.conf", text="x = 1"),),
        daemon_json=ConfigFile(path="/daemon.json", text='{"registry-mirrors": 5}'),
        auth=(
            ConfigFile(path="/auth.json", text='{"auths": {"r.io": {"auth": "SECRET"}}}'),
            ConfigFile(path="/good.json", text='{"auths": {"r.io": {}}}'),
            ConfigFile(path="/helper.json", text='{"credHelpers": {"r.io": "a/b"}}'),
        ),
    )
    assert [line.partition(": ")[0] for line in mistakes(files)] == [
        "/c/r.io/hosts.toml:1", "/d", "/registries.conf:1", "/daemon.json:1", "/auth.json:1",
        "/helper.json:1",
    ]  # fmt: skip
    assert "SECRET" not in "".join(mistakes(files))
    assert mistakes(RegistryFiles()) == ()
