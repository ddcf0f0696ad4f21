"""Debian's registry with every image of the catalogue, pulled by the names that kubelet would use."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.component.images.rig import content, opened, run
from tests.images.catalogue import images
from tests.images.registry import Registry, write_hosts


def test_every_image_of_the_catalogue_is_pulled_and_removed(
    image_registry: Registry, home: Path, tmp_path: Path, form: str
) -> None:
    certs = tmp_path / "certs"
    write_hosts(certs, image_registry)
    names = [name for image in images() for name in image.names]

    async def story() -> None:
        async with opened(home, form=form, registry_dirs=(certs,)) as store:
            records = await asyncio.gather(*(store.pull(name) for name in names))
            assert [store.find(name) for name in names] == [store.find(record.id) for record in records]
            assert sorted(tag for record in store.all() for tag in record.tags) == sorted(names)
            assert [await store.pull(name) for name in names] == [store.find(name) for name in names]
            for name in names:
                await store.remove(name)
            assert (content(home), store.all()) == ([], ())

    run(story)
