"""Writing tensors as a safetensors file, one after the other: only one of them is in memory a second time.

The format (https://github.com/huggingface/safetensors#format): the length of the header as 8 bytes, little-endian; the
header in JSON, padded with spaces to a multiple of 8 bytes; the tensors' bytes in the order of their offsets. Reading
is left to the safetensors library, whose `save` needs two more copies of all tensors to give bytes to write.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from clip_har.files import write_pieces

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors whole or not at all, as `write_atomically` does.

    Args:
        tensors: on the CPU, of any layout in memory.
        metadata: plain texts for the header.

    Raises:
        OSError: it cannot be written.
    """
    pieces, size = _content(tensors, metadata)
    write_pieces(path, pieces, size)


def write_hashed_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The same; returns the SHA-256 of what was to be written, in hex."""
    pieces, size = _content(tensors, metadata)
    digest = hashlib.sha256()

    def hashed() -> Iterator[memoryview]:
        nonlocal digest
        digest = hashlib.sha256()  # each attempt starts again
        for data in pieces():
            digest.update(data)
            yield data

    write_pieces(path, hashed, size)
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A copy of a CPU tensor's values in row-major order.

    A view in NumPy would do, but the storage of a tensor that has one cannot be resized, which FSDP does.
    """
    return tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().data


def _content(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[Callable[[], Iterator[memoryview]], int]:
    """What gives the pieces of the file, and the file's size in bytes."""
    # tensors of wide types first, as the library does it, so that each is aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, size = _header({name: tensors[name] for name in names}, metadata)

    def pieces() -> Iterator[memoryview]:
        yield memoryview(header)
        for name in names:
            yield tensor_bytes(tensors[name])

    return pieces, size


def _header(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """The file's beginning, and the size of the whole file in bytes."""
    content: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.numel() * tensor.element_size()
        content[name] = {"dtype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    header = len(text).to_bytes(8, "little") + text
    return header, len(header) + end
