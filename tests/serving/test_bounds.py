"""What bounds the service: key, sizes, queue and time; and a decoding process that dies or hangs."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn

from clip_har.config import ServeConfig
from clip_har.errors import ConfigError, MachineError
from clip_har.images.limits import MAX_PIXELS
from clip_har.serving import logs, server
from clip_har.serving.server import read_key
from clip_har.serving.server import serve as serve_runs
from serving.conftest import FLOAT32, Running, Serve
from serving.test_api import encoded, problem

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals exist on POSIX systems")
KEY = "correct horse battery".replace(" ", "-")


def wait_until(condition: object, seconds: float = 30.0) -> None:
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_a_key_is_asked_for_where_there_is_one(serve: Serve, pictures: list[Path]) -> None:
    with serve(key=KEY, runs=("lora",)) as running:
        for headers in ({}, {"Authorization": f"Bearer {KEY}x"}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": ""}):
            running.client.headers.update({"Authorization": "", "X-API-Key": "", **headers})
            response = running.predict(pictures[0])
            assert problem(response, 401).startswith("The API key is missing or wrong.")
            assert response.headers["www-authenticate"] == "Bearer"
            assert running.client.get("/metrics").status_code == 401
            assert running.client.get("/v1/models").status_code == 401
            for path in ("/", "/page.css", "/page.js", "/answer.js", "/photos.js", "/healthz", "/readyz"):
                assert running.client.get(path).status_code == 200
        for headers in ({"Authorization": f"Bearer {KEY}"}, {"X-API-Key": KEY}, {"Authorization": f"bearer {KEY}"}):
            running.client.headers.update({"Authorization": "", "X-API-Key": "", **headers})
            assert running.predict(pictures[0]).status_code == 200
            assert running.client.get("/metrics").status_code == 200


def test_where_the_key_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLIP_HAR_API_KEY", raising=False)
    assert read_key(None) is None
    monkeypatch.setenv("CLIP_HAR_API_KEY", KEY)
    assert read_key(None) == KEY
    file = tmp_path / "key"
    file.write_text("of-the-file\n")
    assert read_key(file) == "of-the-file"
    for content in ("", "short", "two words of it", "two\nlines-of-it"):
        file.write_text(content)
        with pytest.raises(ConfigError, match="does not contain a key of at least 8 characters"):
            read_key(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key(tmp_path / "nix")


def test_requests_that_are_too_large_are_refused(serve: Serve, pictures: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(pictures[0].read_bytes() + bytes(50_000))
    with serve(runs=("lora",), max_bytes=40_000, max_images=2, max_pixels=1000) as running:
        said = "The request has more than 40,000 bytes. Send smaller or fewer images."
        assert problem(running.predict(large), 413) == said
        part = b'--a\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        chunks = (part if index == 0 else bytes(10_000) for index in range(11))  # no length: counted as it comes
        headers = {"content-type": "multipart/form-data; boundary=a"}
        assert problem(running.client.post("/v1/predict", content=chunks, headers=headers), 413) == said
        too_many = "images, more than 2. Send several requests."
        for count in (3, 4):
            assert too_many in problem(running.predict(*[pictures[0]] * count), 413)
        images = [encoded(pictures[0])] * 3
        assert too_many in problem(running.client.post("/v1/predict", json={"images": images}), 413)
        assert problem(running.predict(pictures[0]), 422) == (
            "The image cannot be read: 40 x 40 pixels, more than 1,000 in all."
        )


def test_a_refused_upload_of_many_megabytes_gets_its_answer(serve: Serve, pictures: list[Path], tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    large.write_bytes(bytes(8_000_000))
    with serve(runs=("lora",), max_bytes=1_000_000) as running:
        for _ in range(3):
            assert running.predict(large).status_code == 413
        assert running.predict(pictures[0]).status_code == 200


@pytest.mark.parametrize("expects", [False, True])
def test_a_refusal_is_not_lost_when_the_body_comes_after_it(serve: Serve, expects: bool) -> None:
    """A connection closed with bytes unread is reset, which can destroy the answer before the client has read it."""
    body = bytes(300_000)
    head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: multipart/form-data; boundary=a\r\n" + "Expect: 100-continue\r\n" * expects + "\r\n"
    with serve(key=KEY, runs=("lora",)) as running:
        url = httpx.URL(running.url)
        with socket.create_connection((url.host, url.port or 0), timeout=10) as connection:
            connection.sendall(head.encode())
            begun = time.monotonic()
            if not expects:  # who expects a 100 Continue, and gets a refusal, sends nothing more
                for start in range(0, len(body), 100_000):
                    time.sleep(0.1)
                    connection.sendall(body[start : start + 100_000])
                time.sleep(0.1)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer.lower()
    assert b"The API key is missing or wrong." in answer
    assert time.monotonic() - begun < 1.5


def test_what_does_not_fit_the_queue_is_told_when_to_come_back(
    serve: Serve, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(runs=("lora",), queue=3) as running, ThreadPoolExecutor(3) as pool:
        model, free = running.service.models["lora"].predictor.model, threading.Event()
        scores = model.scores

        def held(*args: object, **options: object) -> object:
            free.wait(60)
            return scores(*args, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(model, "scores", held)
        answers = [pool.submit(running.predict, path) for path in pictures]
        wait_until(lambda: running.service.admission.in_flight == 3)
        assert running.metric("clip_har_images_in_flight") == 3
        for number in range(4):
            refused = running.predict(*pictures[: 1 + number % 2])
            assert problem(refused, 429).startswith("The service is busy: 3 images are waiting.")
            assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert running.client.get("/readyz").status_code == 200
        free.set()
        assert [answer.result().status_code for answer in answers] == [200, 200, 200]
        assert running.predict(*pictures).status_code == 200
        assert running.service.admission.in_flight == 0
        assert problem(running.predict(*pictures, pictures[0]), 429)


def test_an_answer_that_takes_too_long_is_given_up(
    serve: Serve, pictures: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(runs=("lora",), timeout=0.5) as running:
        model, free = running.service.models["lora"].predictor.model, threading.Event()
        scores = model.scores
        monkeypatch.setattr(model, "scores", lambda *a, **o: (free.wait(60), scores(*a, **o))[1])
        assert problem(running.predict(pictures[0]), 504).startswith("The answer took more than")
        free.set()
        assert running.service.admission.in_flight == 0
        wait_until(lambda: running.predict(pictures[0]).status_code == 200)


def test_an_upload_that_takes_too_long_is_given_up(serve: Serve) -> None:
    def slowly() -> object:
        yield b"--a\r\n"
        time.sleep(1.5)
        yield b"--a--\r\n"

    with serve(runs=("lora",), timeout=0.5) as running:
        headers = {"content-type": "multipart/form-data; boundary=a"}
        response = running.client.post("/v1/predict", content=slowly(), headers=headers)  # type: ignore[arg-type]
        assert problem(response, 408) == "The upload took more than 0.5 s. Send a smaller one."


@POSIX
def test_a_decoder_that_is_killed_costs_its_own_request_alone(serve: Serve, pictures: list[Path]) -> None:
    with serve(runs=("lora",), workers=1) as running, ThreadPoolExecutor(1) as pool:
        decoders = running.service.decoders
        (pid,) = decoders.pids
        os.kill(pid, signal.SIGSTOP)  # so that it certainly is at work
        answer = pool.submit(running.predict, pictures[0])
        wait_until(lambda: running.service.admission.in_flight == 1)
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        assert problem(answer.result(), 503).startswith("The process that decoded an image has died.")
        assert running.predict(pictures[0]).status_code == 200
        (other,) = decoders.pids
        assert other != pid and running.metric("clip_har_decoders_replaced_total") == 1
        os.kill(other, signal.SIGKILL)  # while idle
        wait_until(lambda: not decoders.pids)
        assert running.client.get("/readyz").status_code == 503
        assert running.predict(pictures[0]).status_code == 200, "nobody's request was lost"


@POSIX
def test_a_decoder_that_hangs_is_replaced(serve: Serve, pictures: list[Path]) -> None:
    with serve(runs=("lora",), workers=1, timeout=1.0) as running:
        (pid,) = running.service.decoders.pids
        os.kill(pid, signal.SIGSTOP)
        assert problem(running.predict(pictures[0]), 504)
        wait_until(lambda: running.service.decoders.pids not in ([], [pid]))
        wait_until(lambda: running.predict(pictures[0]).status_code == 200)


def test_no_larger_image_is_decoded_than_elsewhere() -> None:
    assert ServeConfig().max_pixels == MAX_PIXELS


def test_settings_that_cannot_be_used_are_refused(running: Running, served_runs: dict[str, Path]) -> None:
    port = int(running.url.rpartition(":")[2])
    for config, message in (
        (ServeConfig(port=port), f"Cannot listen on --host 127.0.0.1 --port {port}: Address already in use"),
        (ServeConfig(host="nix.invalid"), "Cannot listen on --host nix.invalid"),
        (ServeConfig(port=70_000), "--port must be from 0 to 65535, not 70000"),
        (ServeConfig(coverage=2.0), "--coverage 2.0 is not between 0 and 1"),
        (ServeConfig(api_key_file=Path("nix")), "--api-key-file nix cannot be read"),
    ):
        with pytest.raises(ConfigError) as error:
            serve_runs([served_runs["lora"]], config, say=lambda _line: None)
        assert str(error.value).startswith(message)


@pytest.mark.parametrize(("host", "key", "warned"), [("127.0.0.1", "", 0), ("0.0.0.0", "", 1), ("0.0.0.0", KEY, 0)])
def test_other_machines_without_a_key_are_warned_of(
    host: str, key: str, warned: int, served_runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def served(_server: uvicorn.Server, sockets: object = None) -> None:
        del sockets

    monkeypatch.setattr(uvicorn.Server, "serve", served)
    monkeypatch.setattr(logs, "start_logging", lambda: logging.getLogger("a test"))
    monkeypatch.setenv("CLIP_HAR_API_KEY", key) if key else monkeypatch.delenv("CLIP_HAR_API_KEY", raising=False)
    lines: list[str] = []
    serve_runs([served_runs["lora"]], ServeConfig(host=host, port=0, model=FLOAT32), say=lines.append)
    assert lines[0].startswith(f"Serving lora on http://{host}:")
    assert len(lines) == 1 + warned
    assert all("without an API key; pass --api-key-file FILE" in line for line in lines[1:])


def test_missing_packages_are_named(served_runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(MachineError, match=r'requires uvicorn\. Install it: pip install "clip-har\[serve\]"'):
        serve_runs([served_runs["lora"]], ServeConfig(), say=print)


def test_runs_of_the_same_name_are_refused(served_runs: dict[str, Path]) -> None:
    from clip_har.serving.models import load_models

    with pytest.raises(ConfigError, match="Two runs are called 'lora'"):
        load_models([served_runs["lora"]] * 2, ServeConfig(model=FLOAT32))
