"""What a credential helper's answer means, and what no file can make the resolver do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import BadInput, Internal
from oci.registries.document import ConfigFile
from oci.registries.logins import Helper, parse_helper
from oci.registries.resolver import Decision, RegistryFiles, decide, explain
from oci.registry_auth import Credentials, Login

HELPER = Helper(name="double", server="r.io", origin="/auth.json:3")
TOLD = "docker-credential-double (/auth.json:3)"


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        (b'{"ServerURL": "r.io", "Username": "ann", "Secret": "SECRET"}', 0,
         Login(username="ann", password="SECRET", source=TOLD)),
        (b'{"Username": "<token>", "Secret": "SECRET"}', 0, Login(refresh_token="SECRET", source=TOLD)),
        (b'{"Username": "", "Secret": ""}', 0, None),
        (b"credentials not found in native keychain\n", 1, None),
    ],
)  # fmt: skip
def test_a_helpers_answer(output: bytes, status: int, expected: Login | None) -> None:
    assert parse_helper(output, HELPER, status=status) == expected


@pytest.mark.parametrize(
    ("output", "status"),
    [
        (b"SECRET", 0),
        (b'{"Username": 5, "Secret": "SECRET"}', 0),
        (b"[" * 99_999, 0),
        (b"SECRET", 1),
        (b"", -9),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused_without_being_told(output: bytes, status: int) -> None:
    with pytest.raises(Internal) as refused:
        parse_helper(output, HELPER, status=status)
    assert str(refused.value).startswith(TOLD)
    assert "SECRET" not in str(refused.value)


KEYS = st.sampled_from(
    [
        "auths",
        "credsStore",
        "credHelpers",
        "r.io",
        "auth",
        "username",
        "registry-mirrors",
        "insecure-registries",
    ]
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 9)
    | st.sampled_from(["r.io", "SECRET", "*.io", "https://m.io"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(auth=st.dictionaries(KEYS, ANYTHING, max_size=4), daemon=st.dictionaries(KEYS, ANYTHING, max_size=4))
def test_whatever_a_file_says_gives_a_decision_or_a_place(
    auth: dict[str, object], daemon: dict[str, object]
) -> None:
    """And a request's secret is for one host alone."""
    files = RegistryFiles(
        daemon_json=ConfigFile(path="/daemon.json", text=json.dumps(daemon)),
        auth=(ConfigFile(path="/auth.json", text=json.dumps(auth)),),
    )
    request = Credentials(username="ann", password="WORD", server_address="r.io")
    for name in ("busybox", "r.io/app"):
        try:
            decision = decide(name, files, request)
        except BadInput as failure:
            assert str(failure).startswith(("/daemon.json:", "/auth.json:"))
            continue
        assert explain(decision)
        assert _shown_to(decision, "WORD") <= {"r.io"}


def _shown_to(decision: Decision, password: str) -> set[str]:
    return {
        ask.endpoint.host
        for plan in decision.plans
        for ask in plan.asks
        for source in ask.sources
        if isinstance(source, Login) and source.password == password
    }
