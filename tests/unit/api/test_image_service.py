from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from api.image_service import ImageService
from api.proto import cri_pb2
from api.translate import images
from oci.errors import BadInput
from oci.registry_auth import Credentials
from tests.unit.api import doubles, records

Answer = TypeVar("Answer")
TAG = "docker.io/library/nginx:1"


def answer(call: Coroutine[Any, Any, Answer]) -> Answer:
    return asyncio.run(call)


def spec(name: str, **more: Any) -> cri_pb2.ImageSpec:
    return cri_pb2.ImageSpec(image=name, **more)


def check_handler(name: str) -> None:
    if name not in ("", "runc"):
        raise BadInput(f"runtime_handler: {name!r} is not known")


@pytest.fixture
def store() -> doubles.Images:
    return doubles.Images(held=[records.image()])


@pytest.fixture
def service(store: doubles.Images) -> ImageService:
    return ImageService(images=store, check_handler=check_handler)


def test_an_absent_image_is_an_answer_without_one(service: ImageService) -> None:
    response = answer(service.image_status(cri_pb2.ImageStatusRequest(image=spec("no/such"))))
    assert response == cri_pb2.ImageStatusResponse()


def test_an_image_is_found_with_details_only_when_asked(service: ImageService) -> None:
    plain = answer(service.image_status(cri_pb2.ImageStatusRequest(image=spec(TAG))))
    verbose = answer(service.image_status(cri_pb2.ImageStatusRequest(image=spec(TAG), verbose=True)))
    assert plain == cri_pb2.ImageStatusResponse(image=images.image(records.image()))
    assert dict(verbose.info) == {"info": images.details(records.image())}


@pytest.mark.parametrize(
    ("wanted", "count"),
    [(cri_pb2.ImageFilter(), 1), (cri_pb2.ImageFilter(image=spec(TAG)), 1),
     (cri_pb2.ImageFilter(image=spec("no/such")), 0), (cri_pb2.ImageFilter(image=spec("")), 1)],
)  # fmt: skip
def test_a_list_honours_its_filter(service: ImageService, wanted: cri_pb2.ImageFilter, count: int) -> None:
    response = answer(service.list_images(cri_pb2.ListImagesRequest(filter=wanted)))
    assert len(response.images) == count


def test_a_pull_gets_reference_credentials_annotations_and_the_pods_namespace(
    service: ImageService, store: doubles.Images
) -> None:
    request = cri_pb2.PullImageRequest(
        image=spec("nginx", annotations={"a": "b"}, runtime_handler="runc"),
        auth=cri_pb2.AuthConfig(
            username="me",
            password="p",
            auth="YTpi",
            server_address="r.example",
            identity_token="i",
            registry_token="t",
        ),
        sandbox_config=cri_pb2.PodSandboxConfig(metadata=cri_pb2.PodSandboxMetadata(namespace="team")),
    )
    assert answer(service.pull_image(request)) == cri_pb2.PullImageResponse(image_ref=records.IMAGE_ID)
    who = Credentials(
        username="me",
        password="p",
        auth="YTpi",
        server_address="r.example",
        identity_token="i",
        registry_token="t",
    )
    assert store.calls == [("pull", "nginx", who, {"a": "b"}, "team")]


def test_a_pull_without_credentials_says_so(service: ImageService, store: doubles.Images) -> None:
    answer(service.pull_image(cri_pb2.PullImageRequest(image=spec("nginx"))))
    assert store.calls == [("pull", "nginx", None, {}, "")]


def test_a_pull_for_an_unknown_handler_is_refused(service: ImageService, store: doubles.Images) -> None:
    request = cri_pb2.PullImageRequest(image=spec("nginx", runtime_handler="kata"))
    with pytest.raises(BadInput, match=r"^runtime_handler: 'kata' is not known$"):
        answer(service.pull_image(request))
    assert store.calls == []


def test_an_image_is_removed_by_the_name_that_was_given(service: ImageService, store: doubles.Images) -> None:
    answer(service.remove_image(cri_pb2.RemoveImageRequest(image=spec(TAG))))
    assert store.calls == [("remove", TAG)]


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "x" * 1025])
def test_what_cannot_be_a_name_is_refused_everywhere(service: ImageService, name: str) -> None:
    for call in (
        service.image_status(cri_pb2.ImageStatusRequest(image=spec(name))),
        service.pull_image(cri_pb2.PullImageRequest(image=spec(name))),
        service.remove_image(cri_pb2.RemoveImageRequest(image=spec(name))),
    ):
        with pytest.raises(BadInput, match=r"^image\.image: "):
            answer(call)


def test_the_file_system_is_told_for_images_and_for_containers(service: ImageService) -> None:
    use = cri_pb2.FilesystemUsage(
        timestamp=5,
        fs_id=cri_pb2.FilesystemIdentifier(mountpoint="/var/lib/crisp"),
        used_bytes=cri_pb2.UInt64Value(value=6),
        inodes_used=cri_pb2.UInt64Value(value=7),
    )
    assert answer(service.image_fs_info(cri_pb2.ImageFsInfoRequest())) == cri_pb2.ImageFsInfoResponse(
        image_filesystems=[use], container_filesystems=[use]
    )
