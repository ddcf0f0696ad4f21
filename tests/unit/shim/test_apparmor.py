from __future__ import annotations

from pathlib import Path

import pytest

from oci.errors import BadInput
from oci.workload import ProfileKind, SecurityProfile
from shim.apparmor import check_loaded, loaded
from tests import bundles


@pytest.fixture
def profiles(tmp_path: Path) -> Path:
    file = tmp_path / "profiles"
    file.write_text(
        "crisp-default (enforce)\n/usr/bin/man (complain)\nwith blank (unconfined)\nbroken line\n"
    )
    return file


def named(ref: str) -> SecurityProfile:
    return SecurityProfile(kind=ProfileKind.LOCALHOST, ref=ref)


def test_the_kernels_list_is_read_with_whatever_mode(profiles: Path) -> None:
    assert loaded(profiles) == {"crisp-default", "/usr/bin/man", "with blank"}


def test_a_profile_that_is_not_loaded_is_refused_and_told_how_to_load(profiles: Path, tmp_path: Path) -> None:
    host = bundles.host(apparmor=True)
    check_loaded(host, named("localhost/crisp-default"), profiles)
    check_loaded(host, named("/usr/bin/man"), profiles)
    with pytest.raises(
        BadInput, match=r"apparmor.localhost_ref: profile 'other' is not loaded \(apparmor_parser"
    ):
        check_loaded(host, named("localhost/other"), profiles)
    with pytest.raises(BadInput, match=r"whether 'other' is loaded is not known: .*No such file"):
        check_loaded(host, named("other"), tmp_path / "gone")


def test_nothing_is_looked_at_where_there_is_nothing_to_check(tmp_path: Path) -> None:
    for profile in (
        None,
        SecurityProfile(kind=ProfileKind.RUNTIME_DEFAULT),
        SecurityProfile(kind=ProfileKind.UNCONFINED),
    ):
        check_loaded(bundles.host(apparmor=True), profile, tmp_path / "gone")
    check_loaded(bundles.host(apparmor=False), named("other"), tmp_path / "gone")
