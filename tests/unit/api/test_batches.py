from __future__ import annotations

import pytest

from api.batches import batches
from api.proto import cri_pb2


def images(*sizes: int) -> list[cri_pb2.Image]:
    return [cri_pb2.Image(id=str(n), username="x" * size) for n, size in enumerate(sizes)]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((), []),
        ((10,), [["0"]]),
        ((300, 300, 300), [["0", "1"], ["2"]]),
        ((10, 5000, 10), [["0"], ["1"], ["2"]]),
    ],
)
def test_every_item_comes_once_in_messages_below_the_limit(
    sizes: tuple[int, ...], expected: list[list[str]]
) -> None:
    made = list(batches(images(*sizes), lambda items: cri_pb2.StreamImagesResponse(images=items), limit=700))
    assert [[image.id for image in message.images] for message in made] == expected
    assert all(message.ByteSize() <= 700 for message in made if len(message.images) > 1)
