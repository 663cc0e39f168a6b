"""`--engine ray`: the files of one process, written by workers of a Ray cluster of which some are killed."""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
import socket
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clip_har import commands
from clip_har.cluster.pool import WorkerPool, item_names
from clip_har.cluster.session import connected
from clip_har.config import (
    BackboneConfig,
    DataConfig,
    EmbedConfig,
    PredictConfig,
    RayConfig,
    RunModelConfig,
    TrainConfig,
)
from clip_har.embedding.command import embed
from clip_har.errors import ConfigError, DataError, MachineError, ModelError
from clip_har.experiment.predict_files import predict, predict_into_file
from clip_har.progress import SILENT, Bar
from samples import HUES, write_image

pytestmark = [
    pytest.mark.slow,  # Ray takes ten seconds to start, and each of its workers imports torch
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds Ray's processes in /proc"),
]

IMAGES = 240
MARK = f"clip-har-test-{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two processors, and a GPU that exists only for Ray: its worker finds none and takes the processor."""
    ray = pytest.importorskip("ray")
    os.environ["CLIP_HAR_TEST"] = MARK
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()
    del os.environ["CLIP_HAR_TEST"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small images, the eleventh of which is none."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        write_image(folder / f"{number:03d}.jpg", HUES["running"], seed=number)
    (folder / "010.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def expected(folder: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one process."""
    out = tmp_path_factory.mktemp("expected")
    embed([folder], config_of(out, tiny_model, engine="local"))
    return contents(out)


def config_of(out: Path, model: str, *, engine: Any = "ray", workers: int = 2, **changes: Any) -> EmbedConfig:
    ray = RayConfig(engine=engine, ray_workers=workers) if engine == "ray" else RayConfig()
    given = EmbedConfig(
        out=out, model=model, shard_size=50, workers=0, precision="float32", encode_batch_size=8, device="cpu", ray=ray
    )
    return dataclasses.replace(given, **changes)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def working() -> int:
    """A process that works on a batch in this test's cluster."""
    while True:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                busy = (process / "cmdline").read_bytes().startswith(b"ray::Hosted.work")
                if busy and MARK.encode() in (process / "environ").read_bytes():
                    return int(process.name)


class Watched:
    """A progress that calls something when so many images are done, and keeps what is told."""

    def __init__(self, after: int = -1, call: Any = None) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._after, self._call = after, call

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def bar(self, description: str, *, total: int | None, unit: str) -> Iterator[Bar]:
        yield _Counting(
            self._after if description == "Embedding images" or description == "Predicting" else -1, self._call
        )


class _Counting:
    def __init__(self, after: int, call: Any) -> None:
        self._done, self._after, self._call = 0, after, call

    def advance(self, count: int = 1, **fields: str) -> None:
        before, self._done = self._done, self._done + count
        if before < self._after <= self._done:
            self._call()


def test_a_killed_worker_costs_nothing(
    cluster: Any, folder: Path, tiny_model: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    killed = []

    def kill() -> None:
        killed.append(working())
        os.kill(killed[0], signal.SIGKILL)

    watched = Watched(IMAGES // 3, kill)
    counts = embed([folder], config_of(tmp_path / "out", tiny_model), progress=watched)
    assert len(killed) == 1
    assert (counts.embedded, counts.unreadable, counts.present) == (IMAGES - 1, 1, 5)
    assert contents(tmp_path / "out") == expected
    assert watched.notes[-1] == "Ray: 2 workers on 1 machine"
    assert watched.warnings == ["A Ray worker died and was started again; its images are read again"]
    rows = [row for path in sorted((tmp_path / "out").glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    assert [row["path"] for row in rows] == sorted(map(str, folder.iterdir()))


def test_a_worker_on_a_gpu_gets_images_that_others_read(
    cluster: Any, folder: Path, tiny_model: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    config = config_of(tmp_path / "out", tiny_model, workers=-1, device="auto")
    config = dataclasses.replace(config, workers=2)
    watched = Watched()
    embed([folder], config, progress=watched)
    assert watched.notes[-1] == "Ray: 1 worker on 1 machine"
    assert contents(tmp_path / "out") == expected


def test_parts_and_engines_continue_each_other(
    cluster: Any, folder: Path, tiny_model: str, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    counts = embed([folder], config_of(out, tiny_model, workers=1, part="1/2"))
    assert sorted(path.name for path in out.glob("*.parquet")) == [
        "embeddings-00001.parquet",
        "embeddings-00003.parquet",
    ]
    assert (counts.part, counts.shards, counts.present) == ("1/2", 5, 2)
    embed([folder], config_of(out, tiny_model, engine="local", part="0/2"))
    assert contents(out) == expected
    (out / "embeddings-00002.parquet").write_bytes(b"damaged")
    counts = embed([folder], config_of(out, tiny_model, workers=1))
    assert counts.earlier == IMAGES - 50
    assert contents(out) == expected


def test_predictions_are_those_of_one_process(
    cluster: Any, folder: Path, tiny_model: str, photos: Path, tmp_path: Path
) -> None:
    run = train_zero_shot(photos, tiny_model, tmp_path)
    asked = PredictConfig(
        model=RunModelConfig(device="cpu", precision="float32"), batch_size=8, workers=0, out=tmp_path / "local.csv"
    )
    counts = predict_into_file(run, [folder], asked)
    assert (counts.answered, counts.unreadable) == (IMAGES - 1, 1)
    shared = dataclasses.replace(asked, out=tmp_path / "ray.csv", ray=RayConfig(engine="ray", ray_workers=2))
    assert shared.out is not None

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_into_file(run, [folder], shared, progress=Watched(IMAGES // 3, stop))
    before = shared.out.read_bytes()
    assert 0 < len(before) < len((tmp_path / "local.csv").read_bytes())
    on_gpu = dataclasses.replace(
        shared,
        ray=RayConfig(engine="ray"),
        model=dataclasses.replace(shared.model, device="auto"),
        workers=1,
    )
    counts = predict_into_file(run, [folder], on_gpu)
    assert counts.before == len(before.splitlines()) - 1
    assert shared.out.read_bytes() == (tmp_path / "local.csv").read_bytes()
    with pytest.raises(ConfigError, match="--engine ray requires --out"):
        predict(run, [folder], dataclasses.replace(shared, out=None))


def train_zero_shot(photos: Path, model: str, folder: Path) -> Path:
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=model, workers=0, precision="float32", cache=folder / "cache"),
        method="zero-shot",
        out=folder / "run",
    )
    return commands.train(config).folder


# --- what goes wrong ------------------------------------------------------------------------------------


class Dies:
    """A worker that dies of an item."""

    @property
    def common(self) -> str:
        return "ready"

    def work(self, item: int) -> int:
        if item == 3:
            os._exit(1)
        return item * item


class NeverStarts(Dies):
    @property
    def common(self) -> str:
        raise DataError("No such thing", remedy="Make one.")


class Fails(Dies):
    def work(self, item: int) -> int:
        raise ZeroDivisionError(item)


class ComesBackOther(Dies):
    """A worker that dies once, and has something else in common with the others afterwards."""

    def __init__(self, died: Path) -> None:
        self._died = died

    @property
    def common(self) -> str:
        return "other" if self._died.exists() else "ready"

    def work(self, item: int) -> int:
        if not self._died.exists():
            self._died.touch()
            os._exit(1)
        return item


def pool(ray: Any, kind: Any, *arguments: Any) -> WorkerPool:
    return WorkerPool(ray, RayConfig(ray_workers=1), kind, arguments, gpu=False, named=str, progress=SILENT)


def test_items_come_in_order_and_few_are_asked_for_ahead(cluster: Any) -> None:
    asked = []

    def items() -> Iterator[int]:
        for number in range(4, 60):
            asked.append(number)
            yield number

    workers = pool(cluster, Dies)
    assert workers.start() == "ready"
    found = []
    for result in workers.in_order(items()):
        found.append(result)
        assert len(asked) - len(found) <= 4
    assert found == [number**2 for number in range(4, 60)]
    assert list(workers.in_order([])) == []


def test_an_item_that_workers_die_of_ends_with_an_error(cluster: Any) -> None:
    workers = pool(cluster, Dies)
    workers.start()
    with pytest.raises(MachineError, match=r"Ray workers died 4 times over the images \d"):
        list(workers.in_order([1, 2, 3]))


def test_a_worker_that_comes_back_with_other_weights_is_refused(cluster: Any, tmp_path: Path) -> None:
    workers = pool(cluster, ComesBackOther, tmp_path / "died")
    assert workers.start() == "ready"
    with pytest.raises(ConfigError, match="started again with another precision or other weights"):
        list(workers.in_order([1]))


def test_what_a_worker_refuses_is_the_commands_error(cluster: Any, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such thing. Make one"):
        pool(cluster, NeverStarts).start()
    workers = pool(cluster, Fails)
    workers.start()
    with pytest.raises(ZeroDivisionError):
        list(workers.in_order([1]))
    with pytest.raises(ModelError, match="no-such-model"):
        embed([folder], config_of(tmp_path / "out", "no-such-model", workers=1, offline=True))
    assert not (tmp_path / "out").exists()


def test_nothing_is_started_for_no_images(tmp_path: Path, tiny_model: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="No image is named"):
        embed([tmp_path / "empty"], config_of(tmp_path / "out", tiny_model))


def test_flags_that_cannot_be_combined(
    folder: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "out", tiny_model)
    alone = dataclasses.replace(config, ray=RayConfig(ray_workers=2))
    with pytest.raises(ConfigError, match="--ray-workers requires --engine ray"):
        embed([folder], alone)
    with pytest.raises(ConfigError, match="--ray-workers must be -1 or at least 1, not 0"):
        embed([folder], dataclasses.replace(config, ray=RayConfig(engine="ray", ray_workers=0)))
    with pytest.raises(ConfigError, match="--device cuda:1 cannot be combined with --engine ray"):
        embed([folder], dataclasses.replace(config, device="cuda:1"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--engine ray cannot be combined with torchrun"):
        embed([folder], config)
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(importlib, "import_module", _without_ray)
    with pytest.raises(MachineError, match=r"not installed. Run: pip install 'clip-har\[ray\]'"):
        embed([folder], config)


def _without_ray(name: str, real: Any = importlib.import_module) -> Any:
    if name == "ray":
        raise ImportError(name)
    return real(name)


def test_no_cluster_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    for given, said in ((address, f"No Ray cluster at {address}: "), ("here", "--ray-address here is not local, auto")):
        with (
            pytest.raises((ConfigError, MachineError), match=said),
            connected(RayConfig(engine="ray", ray_address=given)),
        ):
            pass


def test_images_are_named_by_the_first_and_the_last() -> None:
    assert item_names(["a"]) == "a"
    assert item_names(iter("abc")) == "a to c"
