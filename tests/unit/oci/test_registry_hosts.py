"""hosts.toml: who is asked, in what order, and the line that says so."""

from __future__ import annotations

import pytest

from oci.errors import BadInput
from oci.registry_hosts import Endpoint, HostDirectory, Resolution, directory_names, resolve

BASE = "/etc/c/r.io"


def from_toml(text: str, registry: str = "r.io") -> Resolution:
    return resolve(registry, HostDirectory(path=BASE, names=("hosts.toml",), hosts_toml=text))


def urls(found: Resolution) -> list[str]:
    return [endpoint.url for endpoint in found.endpoints]


def test_without_configuration_the_registry_itself_is_asked_over_tls() -> None:
    assert resolve("r.io") == Resolution(endpoints=(Endpoint(scheme="https", host="r.io"),))
    assert urls(resolve("docker.io")) == ["https://registry-1.docker.io/v2"]


@pytest.mark.parametrize("registry", ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "localhost"])
def test_a_loopback_registry_is_asked_plainly_and_over_tls_if_that_gives_nothing(registry: str) -> None:
    assert resolve(registry) == Resolution(
        endpoints=(
            Endpoint(scheme="http", host=registry),
            Endpoint(scheme="https", host=registry, fallback=True),
        )
    )


def test_the_names_of_a_registrys_directory() -> None:
    assert directory_names("r.io") == ("r.io",)
    assert directory_names("r.io:5000") == ("r.io_5000_", "r.io:5000")
    assert directory_names("[::1]:5000") == ("[::1]_5000_", "[::1]:5000")


def test_hosts_come_in_the_order_of_the_file_and_then_the_server() -> None:
    found = from_toml(
        'server = "https://r.io"\n'
        "\n"
        '[host."https://b.io"]\n'
        '  capabilities = ["pull"]\n'
        '[host."http://a.io:5000/cache"]\n'
    )
    assert found == Resolution(
        endpoints=(
            Endpoint(scheme="https", host="b.io", capabilities=frozenset({"pull"}), namespace="r.io",
                     origin=f"{BASE}/hosts.toml:3"),
            Endpoint(scheme="http", host="a.io:5000", prefix="/cache/v2", namespace="r.io",
                     origin=f"{BASE}/hosts.toml:5"),
            Endpoint(scheme="https", host="r.io", origin=f"{BASE}/hosts.toml:1"),
        )
    )  # fmt: skip


def test_without_a_server_the_registry_itself_comes_last() -> None:
    assert urls(from_toml('[host."https://m.io"]\n')) == ["https://m.io/v2", "https://r.io/v2"]
    assert urls(from_toml('[host."https://m.io"]\n', "docker.io")) == [
        "https://m.io/v2",
        "https://registry-1.docker.io/v2",
    ]


def test_a_server_that_is_a_host_already_is_asked_once() -> None:
    found = from_toml('server = "https://m.io"\n[host."https://m.io"]\n')
    assert urls(found) == ["https://m.io/v2"]
    assert found.notes == (f"{BASE}/hosts.toml:1: server is a host above already",)


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


def test_what_has_no_effect_is_noted_with_its_line() -> None:
    found = from_toml('\nskip_verify = true\n[host."https://m.io"]\ncapabilites = ["pull"]\n')
    assert found.notes == (
        f"{BASE}/hosts.toml:3: key capabilites is not known and has no effect",
        f"{BASE}/hosts.toml:2: key skip_verify has no effect without server",
    )


def test_certificates_beside_each_other_are_dockers_way() -> None:
    names = ("ca.crt", "client.cert", "client.key", "lone.cert", "notes.txt")
    assert resolve("r.io", HostDirectory(path=BASE, names=names)) == Resolution(
        endpoints=(
            Endpoint(
                scheme="https",
                host="r.io",
                ca=(f"{BASE}/ca.crt",),
                client=((f"{BASE}/client.cert", f"{BASE}/client.key"),),
                origin=BASE,
            ),
        )
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("\nserver = =", "hosts.toml: .*line 2"),
        ("server = 5", "hosts.toml:1: server is not a text"),
        ("host = 5", "hosts.toml:1: host is not a table"),
        ('\n[host."ftp://m.io"]', "hosts.toml:2: 'ftp://m.io' is not the URL of a registry"),
        ('[host."https://u:SECRET@m.io"]', "hosts.toml:1: 'm.io' is not the URL"),
        ('[host."https://m.io?x=1"]', "is not the URL"),
        ('[host."https://m.io:99999"]', "is not the URL"),
        ('[host."https://m.io"]\ncapabilities = "fly"', "hosts.toml:1: capabilities: 'fly' is not one of"),
        ('[host."https://m.io"]\nskip_verify = "yes"', "skip_verify is not true or false"),
        ('[host."https://m.io"]\nca = 1', "ca is not a text or a list of texts"),
        ('[host."https://m.io"]\nclient = [["a"]]', "client is not made of files or pairs"),
        ('[host."https://m.io".header]\n"a b" = "x"', "header: 'a b' is not a header name"),
        ('[host."https://m.io".header]\na = "x\\r\\nb: c"', "header.a: line break or NUL"),
    ],
)
def test_a_mistake_is_named_with_file_and_line(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why) as refused:
        from_toml(text)
    assert str(refused.value).startswith(BASE)
    assert "SECRET" not in str(refused.value)
