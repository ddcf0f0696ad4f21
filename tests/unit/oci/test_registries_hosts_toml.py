"""hosts.toml: what each key becomes. Who is asked in what order is in `tests/golden/registries/`."""

from __future__ import annotations

from oci.registries.document import ConfigFile
from oci.registries.endpoint import Endpoint, Resolution
from oci.registries.hosts_toml import Certificates, HostDirectory, certificates, directory_names, resolve

BASE = "/etc/c/r.io"
ITSELF = (Endpoint(scheme="https", host="r.io"),)


def from_toml(text: str) -> Resolution:
    file = ConfigFile(path=f"{BASE}/hosts.toml", text=text)
    return resolve("r.io", HostDirectory(path=BASE, names=("hosts.toml",), hosts_toml=file), ITSELF)


def test_the_names_of_a_registrys_directory() -> None:
    assert directory_names("r.io") == ("r.io",)
    assert directory_names("r.io:5000") == ("r.io_5000_", "r.io:5000")
    assert directory_names("[::1]:5000") == ("[::1]_5000_", "[::1]:5000")


def test_every_key_of_a_host_has_its_effect() -> None:
    found = from_toml(
        '[host."https://m.io/v2/proxy"]\n'
        'capabilities = ["pull", "resolve", "push"]\n'
        'ca = "ca.pem"\n'
        'client = [["c.pem", "/abs/k.pem"], "both.pem"]\n'
        "skip_verify = true\n"
        "override_path = true\n"
        'dial_timeout = "5s"\n'
        '[host."https://m.io/v2/proxy".header]\n'
        'x-one = "1"\n'
        'x-two = ["2", "3"]\n'
    )
    assert found.endpoints[0] == Endpoint(
        scheme="https",
        host="m.io",
        prefix="/v2/proxy",
        capabilities=frozenset({"pull", "resolve", "push"}),
        ca=(f"{BASE}/ca.pem",),
        client=((f"{BASE}/c.pem", "/abs/k.pem"), (f"{BASE}/both.pem", "")),
        skip_verify=True,
        headers=(("x-one", "1"), ("x-two", "2"), ("x-two", "3")),
        namespace="r.io",
        mirror=True,
        dial_timeout=5.0,
        origin=f"{BASE}/hosts.toml:1",
    )


def test_keys_beside_server_are_the_servers() -> None:
    found = from_toml('server = "https://up.io"\nskip_verify = true\nca = ["/a", "b"]\n')
    assert found.endpoints == (
        Endpoint(scheme="https", host="up.io", skip_verify=True, ca=("/a", f"{BASE}/b"), namespace="r.io",
                 origin=f"{BASE}/hosts.toml:1"),
    )  # fmt: skip


def test_headers_are_not_shown() -> None:
    found = from_toml('[host."https://m.io".header]\nauthorization = "Basic SECRET"\n')
    assert found.endpoints[0].headers == (("authorization", "Basic SECRET"),)
    assert "SECRET" not in repr(found)


def test_certificates_beside_each_other_are_dockers_way() -> None:
    names = ("ca.crt", "client.cert", "client.key", "lone.cert", "notes.txt")
    assert certificates([HostDirectory(path=BASE, names=names)], "r.io") == Certificates(
        ca=(f"{BASE}/ca.crt",), client=((f"{BASE}/client.cert", f"{BASE}/client.key"),), origin=BASE
    )
    assert certificates([HostDirectory(path=BASE, names=("lone.cert",))], "r.io") == Certificates()
    assert certificates([HostDirectory(path=BASE, names=names)], "s.io") == Certificates()
