"""What the daemon serves by HTTP: to Prometheus a pull under way, to cAdvisor what CRI-O would say."""

from __future__ import annotations

import json
import random
import re
import select
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.proto import cri_pb2
from tests.daemon import CALL_LIMIT, Daemon, running
from tests.doubles import registry
from tests.doubles.registry import Registry, tar_of

BODY = random.Random(8).randbytes(6_000_000)


@pytest.fixture
def double() -> Iterator[Registry]:
    with registry.serving() as serving:
        yield serving


def scraped(daemon: Daemon) -> dict[str, float]:
    (port,) = set(re.findall(r" metrics .*port=(\d+)", daemon.log))
    url = f"http://127.0.0.1:{port}"
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        page = answer.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/", timeout=10)
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def test_a_pull_is_seen_with_bytes_total_rate_and_phase(prepared_machine: None, double: Registry) -> None:
    pushed = double.push("app", "1", [tar_of({"body": BODY})])
    name = double.reference("app:1")
    more = threading.Event()
    size = len(double.blobs[pushed.layers[0]])

    def halting(_request: registry.Request, right: registry.Answer) -> registry.Answer:
        right.hold = more
        return right

    double.on(f"blobs/{pushed.layers[0]}", halting, times=1)
    overrides = {"metrics": {"address": "127.0.0.1", "port": 0}}
    with running(overrides=overrides, environment={}) as daemon:
        image = cri_pb2.ImageSpec(image=name)
        call = daemon.images().PullImage.future(cri_pb2.PullImageRequest(image=image), timeout=CALL_LIMIT)
        of_layer = f'{{image="{name}",pull="1",layer="{pushed.layers[0]}",phase="downloading"}}'
        deadline = time.monotonic() + 60
        while True:
            found = scraped(daemon)
            received = found.get(f"crisp_image_pull_layer_received_bytes{of_layer}", 0)
            if received or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        of_pull = f'{{image="{name}",pull="1",stage="layers"}}'
        assert 0 < received <= size // 2
        assert found[f"crisp_image_pull_total_bytes{of_pull}"] == size
        assert found[f"crisp_image_pull_rate_bytes_per_second{of_pull}"] > 0
        more.set()
        assert call.result().image_ref == pushed.config
        found = scraped(daemon)
        assert [name for name in found if 'pull="1"' in name] == []
        assert found['crisp_image_pulls_total{result="ok"}'] == 1
        assert found["crisp_image_pull_received_bytes_total"] == size
        assert found['crisp_calls_total{service="ImageService",method="PullImage",code="OK"}'] == 1


def asked(client: socket.socket, request: bytes) -> tuple[bytes, bytes]:
    """Status line and body of the answer."""
    client.sendall(request)
    answer = client.recv(65536)  # it comes as one piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.partition(b"\r\n")[0], body


def test_a_connection_has_many_questions_and_nonsense_ends_only_itself(prepared_machine: None) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/crio.sock"
        with running(overrides={"kubelet": {"cadvisor_socket": path}}, environment={}) as daemon:
            with socket.socket(socket.AF_UNIX) as client, socket.socket(socket.AF_UNIX) as other:
                client.connect(path)
                other.connect(path)
                status, body = asked(client, b"GET /info HTTP/1.1\r\nHost: x\r\n\r\n")
                assert status == b"HTTP/1.1 200 "
                assert json.loads(body)["storage_root"] == str(daemon.state_dir)
                other.sendall(b"nonsense\r\n\r\n")
                assert other.recv(100) == b""
                assert asked(client, b"HEAD /info HTTP/1.1\r\nHost: x\r\n\r\n") == (b"HTTP/1.1 404 ", b"")
                status, body = asked(client, b"GET /containers/x HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (status, json.loads(body).keys()) == (b"HTTP/1.1 404 ", {"error"})
            idle = [socket.socket(socket.AF_UNIX) for _ in range(40)]
            for client in idle:
                client.connect(path)
            closed = [client for client in idle if select.select([client], [], [], 0.1)[0]]
            assert len(closed) == 8, "32 at the same time"
            for client in idle:
                client.close()
        assert list(Path(directory).iterdir()) == []
