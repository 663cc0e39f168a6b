"""Safetensors files that are written tensor by tensor."""

from __future__ import annotations

import errno
import os
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from clip_har.integrity import file_sha256
from clip_har.tensor_files import write_hashed_tensors, write_tensors


def various() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "b/float": torch.randn(3, 5, generator=draw),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "channels last": torch.randn(2, 3, 4, 4, generator=draw).contiguous(memory_format=torch.channels_last),
        "transposed": torch.randn(3, 7, generator=draw).double().T,
        "half": torch.randn(5, generator=draw).half(),
        "bfloat16": torch.randn(5, generator=draw).bfloat16(),
        "ünïcode": torch.arange(-3, 4),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "int32": torch.arange(3, dtype=torch.int32),
    }


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    path, tensors = tmp_path / "new" / "weights.safetensors", various()
    digest = write_hashed_tensors(path, tensors, {"format": "pt", "note": 'a "quoted" ü'})
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor), name
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt", "note": 'a "quoted" ü'}
    assert digest == file_sha256(path)


def test_no_tensors_and_no_metadata_are_a_file_too(tmp_path: Path) -> None:
    write_tensors(tmp_path / "empty.safetensors", {}, {})
    assert load_file(tmp_path / "empty.safetensors") == {}


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.safetensors"
    write_tensors(path, {"a": torch.zeros(3)}, {})

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device \(the file needs 4\.0 MB\).*weights\.safetensors"):
        write_tensors(path, {"a": torch.ones(1_000_000)}, {})
    assert torch.equal(load_file(path)["a"], torch.zeros(3))
    assert [entry.name for entry in tmp_path.iterdir()] == ["weights.safetensors"]


def test_a_large_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    tensors = {str(number): torch.zeros(1_000_000) for number in range(10)}
    tracemalloc.start()
    try:
        write_tensors(tmp_path / "large.safetensors", tensors, {})
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert (tmp_path / "large.safetensors").stat().st_size > 40_000_000


def test_the_tensors_can_be_resized_afterwards(tmp_path: Path) -> None:
    """FSDP frees the storage of weights that it has gathered."""
    tensor = torch.randn(5)
    write_tensors(tmp_path / "weights.safetensors", {"a": tensor}, {})
    tensor.untyped_storage().resize_(0)
    assert tensor.untyped_storage().nbytes() == 0
