"""ImageService of CRI: each method translates, calls the image store, and responds."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable

from api.batches import batches
from api.ports import Images
from api.proto import cri_pb2
from api.translate import checks, images


class ImageService:
    """`check_handler` raises BadInput for a handler name that is not known."""

    def __init__(self, *, images: Images, check_handler: Callable[[str], object]) -> None:
        self._images = images
        self._check_handler = check_handler

    async def list_images(self, request: cri_pb2.ListImagesRequest) -> cri_pb2.ListImagesResponse:
        return cri_pb2.ListImagesResponse(images=self._listed(request.filter))

    async def stream_images(
        self, request: cri_pb2.StreamImagesRequest
    ) -> AsyncGenerator[cri_pb2.StreamImagesResponse, None]:
        for batch in batches(
            self._listed(request.filter), lambda items: cri_pb2.StreamImagesResponse(images=items)
        ):
            yield batch

    def _listed(self, wanted: cri_pb2.ImageFilter) -> list[cri_pb2.Image]:
        if not wanted.image.image:
            return [images.image(record) for record in self._images.all()]
        found = self._images.find(images.reference(wanted.image, "filter.image"))
        return [images.image(found)] if found else []

    async def image_status(self, request: cri_pb2.ImageStatusRequest) -> cri_pb2.ImageStatusResponse:
        found = self._images.find(images.reference(request.image, "image"))
        if found is None:
            return cri_pb2.ImageStatusResponse()
        info = {"info": images.details(found)} if request.verbose else {}
        return cri_pb2.ImageStatusResponse(image=images.image(found), info=info)

    async def pull_image(self, request: cri_pb2.PullImageRequest) -> cri_pb2.PullImageResponse:
        reference = images.reference(request.image, "image")
        annotations = checks.mapping(request.image.annotations, "image.annotations")
        self._check_handler(request.image.runtime_handler)
        who = images.credentials(request.auth, "auth") if request.HasField("auth") else None
        pod = request.sandbox_config.metadata
        namespace = checks.word(pod.namespace, "sandbox_config.metadata.namespace")
        record = await self._images.pull(reference, who, annotations=annotations, namespace=namespace)
        return cri_pb2.PullImageResponse(image_ref=record.id)

    async def remove_image(self, request: cri_pb2.RemoveImageRequest) -> cri_pb2.RemoveImageResponse:
        await self._images.remove(images.reference(request.image, "image"))
        return cri_pb2.RemoveImageResponse()

    async def image_fs_info(self, _request: cri_pb2.ImageFsInfoRequest) -> cri_pb2.ImageFsInfoResponse:
        return cri_pb2.ImageFsInfoResponse(
            image_filesystems=[images.filesystem(await self._images.filesystem_usage())],
            container_filesystems=[images.filesystem(await self._images.writable_usage())],
        )
