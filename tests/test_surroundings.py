"""Unlucky surroundings: limits, full disks, deleted and read-only folders, signals. One line each, or a recovery."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO

import pytest
import torch
from torch.utils.data import DataLoader

from clip_har import Predictor, checkpoint, cli, feature_shards, features, files
from clip_har.backbone import load_backbone
from clip_har.cli import runner
from clip_har.commands import audit as auditing
from clip_har.dataset import ImageRecord
from clip_har.dataset.reading import content_hash
from clip_har.errors import DataError, ModelError
from clip_har.failures import is_out_of_memory, machine_failure
from clip_har.features import FeatureStore
from clip_har.images.workers import iterate, start_worker
from clip_har.interrupts import deferred_interrupts, ended_like_ctrl_c
from forked import Server
from samples import write_dataset

posix_only = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed to standard error, which must be one line of clip-har's."""
    err = capsys.readouterr().err
    assert err.startswith("clip-har: ") and err.count("\n") == 1, err
    return err


def refused(capsys: pytest.CaptureFixture[str], *argv: object) -> str:
    assert cli.main([str(part) for part in argv]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("clip-har:")]
    assert len(lines) == 1
    return lines[0]


# --- failures of the machine ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("EACCES", "permissions"),
        ("EROFS", "--cache"),
        ("ENOSPC", "Free some space"),
        ("EDQUOT", "Free some space"),
        ("EFBIG", "ulimit -f"),
        ("ENOTDIR", "a file with that name"),
        ("EISDIR", "a folder with that name"),
        ("ENAMETOOLONG", "shorter path"),
        ("ELOOP", "symbolic link"),
        ("ENOENT", "restore it"),
        ("ENXIO", "regular file"),
        ("ENODEV", "regular file"),
        ("EIO", "Check the disk"),
        ("ESTALE", "Check the disk"),
        ("ETXTBSY", "Wait"),
        ("EMFILE", "ulimit -n"),
    ],
)
def test_what_the_system_refuses_is_one_line_with_a_remedy(
    name: str, remedy: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    number = getattr(errno, name)

    def fail(*_arguments: object, **_keywords: object) -> int:
        raise OSError(number, os.strerror(number), "/data/some file")

    monkeypatch.setattr(runner, "run_command", fail)
    assert cli.main(["train"]) == 2
    line = only_line(capsys)
    assert f"/data/some file: {os.strerror(number)}. " in line
    assert remedy.lower() in line.lower()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("[enforce fail at CPUAllocator.cpp:68] . DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("could not create a primitive"),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
    ],
)
def test_memory_that_runs_out_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    failure = machine_failure(error)
    assert failure is not None and str(failure).startswith("Out of memory. Use a smaller --batch-size")


def test_processes_and_threads_that_cannot_start_are_recognised() -> None:
    for error in (
        RuntimeError("can't start new thread"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        BrokenProcessPool("A process in the process pool was terminated abruptly"),
    ):
        failure = machine_failure(error)
        assert failure is not None and "--workers" in failure.remedy


@pytest.mark.parametrize(
    "error", [KeyError("memory"), ValueError("out of memory"), FileNotFoundError(errno.ENOENT, "no"), RuntimeError("x")]
)
def test_our_own_faults_stay_faults(error: Exception) -> None:
    assert machine_failure(error) is None


@posix_only
def test_a_working_directory_that_was_deleted_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        assert cli.main(["train", "--data", "photos", "--model", "demo"]) == 2
    finally:
        os.chdir(tmp_path)
    assert "The working directory was deleted" in only_line(capsys)


# --- writing --------------------------------------------------------------------------------------------


def test_a_full_disk_names_the_file_and_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        files.write_atomically(tmp_path / "weights.safetensors", b"x" * 2_500_000)
    failure = machine_failure(caught.value)
    assert failure is not None
    assert failure.what == (f"{tmp_path / 'weights.safetensors'}: No space left on device (the file needs 2.5 MB)")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_deleted_while_a_file_is_written_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, fsync = tmp_path / "cache", os.fsync
    deleted: list[bool] = []

    def delete_once(descriptor: int) -> None:
        fsync(descriptor)
        if not deleted:
            deleted.append(True)
            shutil.rmtree(folder)

    monkeypatch.setattr(os, "fsync", delete_once)
    files.write_atomically(folder / "sub" / "a.json", "{}")
    assert deleted and (folder / "sub" / "a.json").read_text() == "{}"


def test_only_temporaries_whose_writer_is_gone_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    own = files.temporary_name("a.json")
    dead = own.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    elsewhere, elsewhere_old = ".a.json.00000000-1-89abcdef.tmp", ".b.json.00000000-1-89abcdef.tmp"
    earlier_version = f".c.json.{'0' * 32}.tmp"
    names = [own, dead, elsewhere, elsewhere_old, earlier_version, ".notes.tmp", "a.json"]
    for name in names:
        (tmp_path / name).write_text("x")
    old = time.time() - files.STRAY_SECONDS - 60
    for name in (own, elsewhere_old, earlier_version, ".notes.tmp", "a.json"):
        os.utime(tmp_path / name, (old, old))
    files.remove_stray_temporaries(tmp_path, tmp_path / "missing")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {own, elsewhere, ".notes.tmp", "a.json"}


# --- the cache ------------------------------------------------------------------------------------------


def image_records(data: Path) -> list[ImageRecord]:
    paths = sorted((data / "train").rglob("*.jpg"))
    return [
        ImageRecord(path=path, name=path.name, sha256=content_hash(path), label=path.parent.name, split="train")
        for path in paths
    ]


def test_features_survive_the_deletion_of_their_cache(
    photos: Path, tiny_model: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, records = load_backbone(tiny_model, device="cpu", precision="float32"), image_records(photos)
    expected = FeatureStore(tmp_path, backbone)
    expected.encode(records)
    write = feature_shards.write_shard

    def write_then_delete(*arguments: object) -> None:
        write(*arguments)  # type: ignore[arg-type]
        shutil.rmtree(own_cache, ignore_errors=True)

    monkeypatch.setattr(features, "write_shard", write_then_delete)
    store = FeatureStore(own_cache, backbone)
    assert store.encode(records).encoded == len(records)
    assert torch.equal(store.table(records).embedding, expected.table(records).embedding)
    assert torch.equal(store.text(["a photo"]), expected.text(["a photo"]))


def unwritable(monkeypatch: pytest.MonkeyPatch, folder: Path, number: int) -> list[Path]:
    """Let nothing be written below a folder; returns what was tried."""
    write, tried = files.written_whole, []

    def refuse(path: Path) -> AbstractContextManager[BinaryIO]:
        if path.is_relative_to(folder):
            tried.append(path)
            raise OSError(number, os.strerror(number), str(path))
        return write(path)

    monkeypatch.setattr(files, "written_whole", refuse)
    return tried


def test_a_read_only_cache_serves_if_it_is_warm_and_is_done_without_if_not(
    photos: Path,
    tiny_model: str,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["--data", str(photos), "--workers", "0", "--precision", "float32"]
    train = ["train", *common, "--model", tiny_model, "--epochs", "2", "--out"]
    assert cli.main([*train, str(tmp_path / "first")]) == 0
    tried = unwritable(monkeypatch, own_cache, errno.EROFS)
    assert cli.main([*train, str(tmp_path / "warm")]) == 0
    assert cli.main(["evaluate", *common, "--checkpoint", str(tmp_path / "warm")]) == 0
    assert cli.main(["predict", str(tmp_path / "warm"), str(next(photos.rglob("*.jpg")))]) == 0
    assert tried == []
    capsys.readouterr()
    shutil.rmtree(own_cache)
    assert cli.main([*train, str(tmp_path / "cold")]) == 0
    err = capsys.readouterr().err
    assert tried and err.count("new embeddings are not cached") == 1
    assert "the split is not saved there" in err
    first, warm = (checkpoint.load_run(tmp_path / name).weights_sha256() for name in ("first", "warm"))
    assert first == warm
    pictures = sorted(photos.rglob("*.jpg"))[:6]  # embeddings that are computed again may differ in their last bit
    with_cache, without = (
        [answer.probability for answer in Predictor(tmp_path / name, precision="float32").predict(pictures)]
        for name in ("first", "cold")
    )
    assert without == pytest.approx(with_cache, abs=1e-3)


def test_a_full_cache_is_refused_with_its_path(
    photos: Path,
    tiny_model: str,
    own_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unwritable(monkeypatch, own_cache / "features", errno.ENOSPC)
    line = refused(capsys, "evaluate", "--data", photos, "--model", tiny_model, "--workers", 0, "--out", tmp_path)
    assert str(own_cache / "features") in line and "No space left on device (the file needs" in line


def test_images_are_not_skipped_because_files_ran_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Path.open

    def no_more(self: Path, *arguments: Any, **keywords: Any) -> Any:
        if self.suffix == ".jpg":
            raise OSError(errno.EMFILE, "Too many open files", str(self))
        return opened(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", no_more)
    line = refused(capsys, "data", "split", photos, "--workers", 0, "--out", tmp_path / "manifest.csv")
    assert "Too many open files. Raise the limit (ulimit -n 4096)" in line


# --- workers --------------------------------------------------------------------------------------------


class Unsendable:
    """What cannot be pickled, as when memory runs out."""

    def __reduce__(self) -> tuple[object, ...]:
        raise MemoryError


class _UnsendableItems(torch.utils.data.Dataset[Unsendable]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Unsendable:
        return Unsendable()


class _Interrupted(torch.utils.data.Dataset[int]):
    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> int:
        raise KeyboardInterrupt


@posix_only
@pytest.mark.parametrize("dataset", [_UnsendableItems(), _Interrupted()], ids=["lost batch", "stray interrupt"])
def test_a_worker_that_hands_over_nothing_is_not_waited_for(dataset: torch.utils.data.Dataset[object]) -> None:
    loader = DataLoader(dataset, batch_size=1, num_workers=1, collate_fn=list, worker_init_fn=start_worker)
    with pytest.raises(DataError, match="A process that decodes images"):
        list(iterate(loader))


# --- signals --------------------------------------------------------------------------------------------


@pytest.fixture
def hang_up_ends() -> Iterator[None]:
    """SIGHUP as a terminal gives it, also if the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@posix_only
@pytest.mark.usefixtures("hang_up_ends")
def test_a_closed_terminal_ends_a_run_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt), ended_like_ctrl_c():
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(5)
    assert signal.getsignal(signal.SIGHUP) == before


@posix_only
def test_under_nohup_a_closed_terminal_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ended_like_ctrl_c(), deferred_interrupts() as arrived:
            os.kill(os.getpid(), signal.SIGHUP)
        assert arrived == [] and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@posix_only
@pytest.mark.usefixtures("hang_up_ends")
def test_a_step_ends_before_a_closed_terminal_ends_the_run() -> None:
    with deferred_interrupts() as arrived:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)  # from the shell and from the kernel
        assert set(arrived) == {signal.SIGHUP}
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)


@posix_only
@pytest.mark.slow  # forks a process from one that has to import torch
def test_a_training_whose_terminal_is_closed_saves_and_can_be_continued(
    server: Server, tiny_model: str, tmp_path: Path
) -> None:
    import pty

    data, out = write_dataset(tmp_path / "data"), tmp_path / "run"
    command = [
        *("train", f"--data={data}", f"--model={tiny_model}", f"--out={out}"),
        *("--precision=float32", "--workers=0", "--save-steps=1", "--epochs=100000", "--batch-size=4"),
    ]
    terminal, other_end = pty.openpty()
    os.set_blocking(terminal, False)
    shown = b""
    with server.started(command, log=tmp_path / "log", given=Path(os.ttyname(other_end))) as process:
        deadline = time.monotonic() + 120
        while not list((out / "last").glob("step-*")):
            assert time.monotonic() < deadline and process.poll(0.05) is None, shown
            with contextlib.suppress(BlockingIOError):
                shown += os.read(terminal, 1 << 16)
        os.close(other_end)
        os.close(terminal)
        assert process.wait() == 130
    assert b"lora" in shown, "it prints to the terminal"
    assert checkpoint.has_run(out) and not checkpoint.is_finished(out)
    assert list(out.rglob("*.tmp")) == []


# --- numbers, names and files ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--rank", "1e9", "--rank must be from 1 to 65536, not 1000000000"),
        ("--batch-size", "1e30", "--batch-size must be auto or from 1 to 1000000"),
        ("--epochs", "1e30", "--epochs must be from 1 to 1000000"),
        ("--accumulate", "1e30", "--accumulate must be from 1 to 1000000"),
        ("--warmup-epochs", "1e308", "--warmup-epochs must be from 0 to 1000000"),
        ("--views", "1e9", "--views must be from 1 to 1000"),
        ("--train-image-size", "1e9", "--train-image-size must be from 16 to 8192"),
        ("--workers", "100000", "--workers must be from -1 to 256"),
        ("--encode-batch-size", "1e30", "--encode-batch-size must be from 1 to 1000000"),
        ("--lr", "nan", "--lr must be above 0, not nan"),
        ("--lr", "inf", "--lr must be above 0, not inf"),
        ("--seed", "-1", "--seed must be from 0 to 4294967295, not -1"),
        ("--out", "", "--out is empty"),
        ("--out=", None, "--out is empty"),
    ],
)
def test_numbers_that_cannot_work_are_refused(
    flag: str, value: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "train", "--data", "d", flag, *([] if value is None else [value]))


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["predict", "run", "a.jpg", "--top", "0"], "--top must be at least 1, not 0"),
        (["explain", "run", "--seed", "-2"], "--seed must be from 0 to 4294967295, not -2"),
        (["explain", "run", "--workers", "1000000"], "--workers must be from -1 to 256"),
        (["explain", "run", "--limit", "-1"], "--limit must be 0 or more, not -1"),
        (["quickstart", "--seed", "-1"], "--seed must be from 0 to 4294967295, not -1"),
        (["data", "split", "d", "--workers", "-3"], "--workers must be from -1 to 256, not -3"),
        (["data", "audit", "d", "--workers", "1000000"], "--workers must be from -1 to 256"),
        (["predict", "", "a.jpg"], "An argument is empty"),
    ],
)
def test_other_commands_refuse_them_too(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, *argv)


def test_more_folds_than_images_are_refused(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("data", "split", photos, "--out", tmp_path / "m.csv", "--workers", 0, "--folds", 10**9)
    assert "--folds 1000000000 exceeds the number of images, 54" in refused(capsys, *argv)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--rank", "65"), "--rank 65 exceeds the width of the model's embeddings, 24"),
        (("--rank", "33", "--placement", "attention", "--towers", "image"), "the widest adapted layer, 32"),
    ],
)
def test_a_rank_above_the_width_is_refused(
    flags: tuple[str, ...],
    said: str,
    photos: Path,
    tiny_model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    argv = ("train", "--data", photos, "--model", tiny_model, "--workers", 0, "--out", tmp_path / "run", *flags)
    assert said in refused(capsys, *argv)


@posix_only
def test_a_config_file_without_end_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "has more than 10 MB" in refused(capsys, "train", "--data", "d", "--config", "/dev/zero")


def test_a_value_that_fills_pages_is_shortened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.json"
    config.write_text('{"epochs": [' + "1, " * 100_000 + "1]}")
    assert len(refused(capsys, "train", "--data", "d", "--config", config)) < 1500


@posix_only
@pytest.mark.parametrize("flag", ["--templates", "--phrasings", "--audit"])
def test_a_pipe_or_device_is_refused_where_a_file_is_read(
    flag: str, photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    argv = ("evaluate", "--data", photos, "--model", tiny_model, "--workers", 0, "--out", tmp_path / "out")
    for path in (pipe, Path("/dev/zero")):
        assert str(path) in refused(capsys, *argv, flag, path)


@posix_only
def test_a_pipe_is_no_image_to_explain(
    photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, pipe = tmp_path / "run", tmp_path / "photo.jpg"
    os.mkfifo(pipe)
    argv = ("train", "--data", photos, "--model", tiny_model, "--workers", 0, "--epochs", 1, "--out", run)
    assert cli.main([str(part) for part in argv]) == 0
    capsys.readouterr()
    assert "is not a regular file" in refused(capsys, "explain", run, pipe, "--out", tmp_path / "out")


@posix_only
def test_a_link_to_itself_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert "symbolic link" in refused(capsys, "data", "audit", loop, "--no-embeddings")


# --- audit without a network ----------------------------------------------------------------------------


def test_an_audit_without_a_model_asks_no_network(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[dict[str, object]] = []

    def not_here(name: str, **keywords: object) -> None:
        asked.append({"name": name, **keywords})
        raise ModelError(f"The weights of {name} are not on this machine", remedy="Pass --model.")

    monkeypatch.setattr(auditing, "load_backbone", not_here)
    assert cli.main(["data", "audit", str(photos), "--workers", "0"]) in (0, 3)
    assert [(call["name"], call["local_only"]) for call in asked] == [("ViT-B/32", True)]
    assert "hashes only: the default model ViT-B/32 is not on this machine" in capsys.readouterr().err
    line = refused(capsys, "data", "audit", photos, "--workers", 0, "--max-label-errors", 1)
    assert "--max-label-errors requires a model" in line and "Pass --model ViT-B/32 to download it" in line
