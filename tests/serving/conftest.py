"""A trained run, and services of it: the application behind a real HTTP server on a free port, in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from clip_har import commands
from clip_har.config import BackboneConfig, DataConfig, OptimizerConfig, RunModelConfig, ServeConfig, TrainConfig
from clip_har.serving.app import Service, create_app
from clip_har.serving.build import build_service
from samples import CLASSES, HUES, write_image

FLOAT32 = RunModelConfig(precision="float32", device="cpu")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that answers."""

    url: str
    client: httpx.Client
    service: Service

    def predict(self, *paths: Path, path: str = "/v1/predict", **fields: Any) -> httpx.Response:
        files = [("file", (item.name, item.read_bytes())) for item in paths]
        return self.client.post(path, files=files, data=fields)

    def metric(self, name: str) -> float:
        """The value of a metric, as it stands in the text with its labels."""
        for line in self.client.get("/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise KeyError(name)


Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture(scope="session")
def served_runs(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run that accepts other classes, and one that does not; both of the same backbone."""
    cache, found = tmp_path_factory.mktemp("serving-cache"), {}
    for method in ("lora", "linear-probe"):
        config = TrainConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32", cache=cache),
            optimizer=OptimizerConfig(epochs=2) if method == "lora" else OptimizerConfig(),
            method=method,
            out=tmp_path_factory.mktemp("served") / method,
        )
        found[method] = commands.train(config).folder
    return found


@pytest.fixture(scope="session")
def serve(served_runs: dict[str, Path]) -> Serve:
    """Starts a service of both runs, with settings as keywords."""

    @contextlib.contextmanager
    def start(*, key: str | None = None, runs: tuple[str, ...] = ("lora", "linear-probe"), **settings: Any) -> Any:
        config = ServeConfig(**{"model": FLOAT32, "workers": 1, **settings})
        service = build_service([served_runs[name] for name in runs], config, key)
        listening = socket.create_server(("127.0.0.1", 0))
        options = uvicorn.Config(create_app(service), log_config=None, lifespan="on", ws="none", loop="asyncio")
        server = uvicorn.Server(options)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        try:
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
                yield Running(url=url, client=client, service=service)
        finally:
            server.should_exit = True
            thread.join(timeout=60)
            assert not thread.is_alive(), "the server did not end"

    return start


@pytest.fixture(scope="module")
def running(serve: Serve) -> Iterator[Running]:
    """A service with the default settings, which a file's tests share."""
    with serve() as found:
        yield found


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An image of each class."""
    folder = tmp_path_factory.mktemp("pictures")
    for seed, label in enumerate(CLASSES):
        write_image(folder / f"{label}.png", HUES[label], seed=4000 + seed)
    return [folder / f"{label}.png" for label in CLASSES]
