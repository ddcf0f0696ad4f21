"""A list as bytes is the list as a message, and no record is shown as it was."""

from __future__ import annotations

from dataclasses import replace

from api.batches import batches
from api.listing import Listing
from api.proto import cri_pb2
from api.translate import pods
from oci.workload import PodId
from shim.records import PodRecord, PodState
from tests.unit.api import doubles, records

ONE, TWO = (records.pod(id=PodId(digit * 64)) for digit in "ab")


class Shown:
    """What was made a message, in order."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, pod: PodRecord) -> cri_pb2.ListPodSandboxResponse:
        self.ids.append(pod.id)
        return cri_pb2.ListPodSandboxResponse(items=[pods.listed(pod)])


def as_message(*listed: PodRecord) -> cri_pb2.ListPodSandboxResponse:
    return cri_pb2.ListPodSandboxResponse(items=[pods.listed(pod) for pod in listed])


def test_joined_pieces_are_the_list_of_their_records() -> None:
    listing = Listing(doubles.Records(), PodRecord, Shown())
    assert listing.message([]) == b""
    assert listing.message([ONE, TWO]) == as_message(ONE, TWO).SerializeToString(deterministic=True)


def test_the_answers_to_both_ways_of_asking_have_one_wire_form() -> None:
    for listed, streamed in (
        (cri_pb2.ListPodSandboxResponse, cri_pb2.StreamPodSandboxesResponse),
        (cri_pb2.ListContainersResponse, cri_pb2.StreamContainersResponse),
    ):
        forms = [
            [(field.number, field.message_type.full_name) for field in kind.DESCRIPTOR.fields]
            for kind in (listed, streamed)
        ]
        assert forms[0] == forms[1]
        assert len(forms[0]) == 1


def test_a_record_is_made_bytes_once_until_it_changes_or_goes() -> None:
    feed, shown = doubles.Records(), Shown()
    listing = Listing(feed, PodRecord, shown)
    feed.put(ONE)
    feed.put(TWO)
    listing.message([ONE, TWO])
    listing.message([TWO])
    assert shown.ids == [ONE.id, TWO.id]
    later = replace(ONE, state=PodState.NOTREADY)
    feed.put(later)
    assert listing.message([later, TWO]) == as_message(later, TWO).SerializeToString(deterministic=True)
    assert shown.ids == [ONE.id, TWO.id, ONE.id]
    feed.delete(TWO)
    listing.message([TWO])
    assert shown.ids == [ONE.id, TWO.id, ONE.id, TWO.id]


def test_a_change_of_another_kind_of_record_is_none() -> None:
    feed, shown = doubles.Records(), Shown()
    listing = Listing(feed, PodRecord, shown)
    feed.put(ONE)
    listing.message([ONE])
    feed.put(records.container())
    listing.message([ONE])
    assert shown.ids == [ONE.id]


def test_pieces_are_cut_into_messages() -> None:
    pieces = Listing(doubles.Records(), PodRecord, Shown()).pieces([ONE, TWO])
    assert list(batches(pieces, b"".join, limit=len(pieces[0]))) == pieces
    assert list(batches(pieces, b"".join)) == [b"".join(pieces)]
