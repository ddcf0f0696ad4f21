"""From what people type to what they mean."""

from __future__ import annotations

import pytest

from cli import names
from cli.inventory import Container, Inventory, Pod
from oci.errors import Absent, BadInput


def pod(id_: str, namespace: str, name: str, **values: object) -> Pod:
    return Pod(id=id_ * 64, realm="kubelet", namespace=namespace, name=name, **values)  # type: ignore[arg-type]


def container(id_: str, of: Pod, name: str, attempt: int = 0) -> Container:
    return Container(id=id_ * 64, pod_id=of.id, realm=of.realm, name=name, attempt=attempt)


WEB = pod("a", "default", "web", created_at=2)
OLD_WEB = pod("b", "default", "web", created_at=1)
DNS = pod("c", "kube-system", "dns")
OTHER_DNS = pod("d", "default", "dns")
CAFE = pod("e", "default", "cafe")
EMPTY = pod("9", "default", "empty")
NGINX_1 = container("1", WEB, "nginx", attempt=1)
NGINX_0 = container("0", WEB, "nginx")
SIDECAR = container("2", WEB, "sidecar")
OLD = container("3", OLD_WEB, "nginx", attempt=7)
SERVER = container("4", DNS, "server")
LOST = Container(id="5" * 64, pod_id="f" * 64, realm="run", name="lost")

ALL = Inventory(
    pods={each.id: each for each in (WEB, OLD_WEB, DNS, OTHER_DNS, CAFE, EMPTY)},
    containers={each.id: each for each in (NGINX_1, NGINX_0, SIDECAR, OLD, SERVER, LOST)},
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("default/web", WEB),
        ("web", WEB),
        ("kube-system/dns", DNS),
        ("cafe", CAFE),
        ("default/web/nginx", NGINX_1),
        ("web/sidecar", SIDECAR),
        ("kube-system/dns/server", SERVER),
        ("dns/server", SERVER),
        ("a" * 64, WEB),
        ("b", OLD_WEB),
        ("000", NGINX_0),
        ("5555", LOST),
    ],
)
def test_a_name_means_the_newest_of_that_name_and_an_id_itself(text: str, expected: Pod | Container) -> None:
    found = names.find(text, ALL)
    assert (found.container or found.pod) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("kube-system/dns", SERVER), ("dns/server", SERVER), ("b", OLD), ("web/nginx", NGINX_1), ("1", NGINX_1)],
)
def test_a_pod_stands_for_its_only_container(text: str, expected: Container) -> None:
    assert names.find_container(text, ALL).container == expected


def test_of_a_name_that_fits_several_all_are_listed() -> None:
    with pytest.raises(BadInput) as refused:
        names.find("dns", ALL)
    assert str(refused.value) == (
        "'dns' is ambiguous: default/dns (kubelet, dddddddddddd), kube-system/dns (kubelet, cccccccccccc);"
        " write more of the name, or an id"
    )


def test_a_pod_of_several_containers_stands_for_none_of_them() -> None:
    with pytest.raises(BadInput) as refused:
        names.find_container("web", ALL)
    assert str(refused.value) == (
        "'web' is ambiguous: default/web/nginx (kubelet, 111111111111),"
        " default/web/sidecar (kubelet, 222222222222); name the container too, or give an id"
    )


def test_a_pod_without_containers_is_said_to_be_one() -> None:
    with pytest.raises(Absent, match="pod default/empty has no container"):
        names.find_container("empty", ALL)


def test_of_what_is_not_there_the_nearest_is_offered() -> None:
    with pytest.raises(
        Absent, match="no pod or container is called 'default/wep'; did you mean 'default/web'"
    ):
        names.find("default/wep", ALL)
    with pytest.raises(Absent, match="`crisp pods -a` lists all"):
        names.find("zzzzzzzz", Inventory(pods={}, containers={}))


@pytest.mark.parametrize("text", ["", "/", "a//b", "a/b/c/d", "web/"])
def test_what_cannot_be_a_name_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not a name"):
        names.find(text, ALL)


def test_many_candidates_are_not_all_listed() -> None:
    pods = {each.id: each for each in (pod(f"{n:x}", f"ns{n}", "same") for n in range(9))}
    with pytest.raises(BadInput, match=r"and 3 more; write more"):
        names.find("same", Inventory(pods=pods, containers={}))


def test_targets_say_how_they_can_be_typed_again() -> None:
    texts = ("web", "web/nginx", "5555")
    assert [names.find(text, ALL).name for text in texts] == ["default/web", "default/web/nginx", LOST.id]
