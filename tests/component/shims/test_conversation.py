"""The doubles of shims say what real shims say: one conversation with each, transcripts side by side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from oci.errors import Absent
from shim import cgroups, process
from shim.runtimes.shimv2.proto import events_pb2, runc_options_pb2, runtime_options_pb2
from tests.component.shims.conversation import Place, Said, converse, start
from tests.doubles.shims.events import SERVICE
from tests.doubles.shims.install import Setup, install
from tests.doubles.shims.serving import Server
from tests.doubles.shims.ways import WAYS
from tests.images.catalogue import unpacked
from tests.machine import PATIENCE
from tests.parts.build import program

ALIEN = runtime_options_pb2.Options(type_url="io.containerd.nobody.v1.options")
GROUPS = "/crisp-test-shims"


def spoken(
    shim: Path, base: Path, rootfs: Path, *, options: Message | None, params: bool, alien: Message = ALIEN
) -> tuple[list[Said], list[str]]:
    """The transcript, and the topics of the events that came meanwhile."""
    place, topics = Place(base=base, rootfs=rootfs), []

    async def forward(payload: bytes) -> Message:
        topics.append(events_pb2.ForwardRequest.FromString(payload).envelope.topic)
        return empty_pb2.Empty()

    async def whole() -> None:
        groups = cgroups.Cgroups(cgroups.find_hierarchies())
        place.make()
        taker = Server({(SERVICE, "Forward"): forward})
        serving = await asyncio.start_unix_server(taker.serve, path=base / "e")
        try:
            reply = await asyncio.to_thread(start, shim, place, params=params, events=str(base / "e"))
            await converse(reply, place, options=options, alien=alien)
            with contextlib.suppress(Absent):  # it has ended
                assert await process.wait_gone(process.reference(place.shim), 10 * PATIENCE)
        except BaseException:
            if place.shim:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(place.shim, signal.SIGKILL)
            raise
        finally:
            serving.close()
            place.close()
            await groups.kill_everything(GROUPS, timeout=10)
            groups.remove(GROUPS)

    asyncio.run(whole(), debug=True)
    return place.said, topics


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> tuple[list[Said], list[str]]:
    """What containerd-shim-runc-v2 of containerd 2.4 says."""
    base = tmp_path_factory.mktemp("r")
    shim = program("containerd", "containerd-shim-runc-v2")
    return spoken(shim, base, rootfs, options=runc_options_pb2.Options(root=str(base / "root")), params=True)


def double(ways: str, base: Path) -> Path:
    return install(base / "program", Setup(ways=ways, state=base / "state", runtime="/usr/sbin/runc"))


def shape(transcript: list[Said]) -> list[tuple[str, str, dict[str, object]]]:
    """What shims have in common: which step is refused, what is absent, states and exit codes."""
    return [
        (
            said.step,
            said.refusal if said.refusal in ("", "absent") else "refused",
            {name: said.answer[name] for name in ("status", "exit_status") if name in said.answer},
        )
        for said in transcript
    ]


@pytest.mark.parametrize("ways", ["runc-2.4", "runc-2.0"])
def test_the_double_of_runcs_shim_says_word_for_word_what_the_real_one_says(
    tmp_path: Path, rootfs: Path, real: tuple[list[Said], list[str]], ways: str
) -> None:
    options = runc_options_pb2.Options(root=str(tmp_path / "root"))
    shim = double(ways, tmp_path)
    said, topics = spoken(shim, tmp_path, rootfs, options=options, params=WAYS[ways].params)
    assert said == real[0]
    assert sorted(topics) == sorted(real[1])  # an exit and a delete of two processes come as they come


def test_debians_shim_speaks_version_2_and_says_the_same(
    tmp_path: Path, rootfs: Path, real: tuple[list[Said], list[str]]
) -> None:
    shim = unpacked("containerd") / "usr/bin/containerd-shim-runc-v2"
    options = runc_options_pb2.Options(root=str(tmp_path / "root"))
    said, _ = spoken(shim, tmp_path, rootfs, options=options, params=False)
    assert shape(said) == shape(real[0])


@pytest.mark.parametrize("ways", ["kata-go", "kata-rust", "runwasi", "runsc-old"])
def test_the_other_doubles_keep_to_what_all_shims_do(
    tmp_path: Path, rootfs: Path, real: tuple[list[Said], list[str]], ways: str
) -> None:
    theirs = WAYS[ways]
    options = None
    if theirs.options:
        options = runtime_options_pb2.Options(type_url=theirs.options_type)
    shim = double(ways, tmp_path)
    alien = runc_options_pb2.Options()
    said, topics = spoken(shim, tmp_path, rootfs, options=options, params=False, alien=alien)
    assert shape(said) == shape(real[0])
    assert sorted(topics) == sorted(real[1])  # an exit and a delete of two processes come as they come
