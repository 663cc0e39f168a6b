"""Writing tensors as a safetensors file, one after the other: only one of them is in memory a second time.

The format (https://github.com/huggingface/safetensors#format): the length of the header as 8 bytes, little-endian; the
header in JSON, padded with spaces to a multiple of 8 bytes; the tensors' bytes in the order of their offsets. Reading
is left to the safetensors library, whose `save` needs two more copies of all tensors to give bytes to write.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write tensors whole or not at all, as `write_atomically` does.

    Args:
        tensors: on the CPU, of any layout in memory.
        metadata: plain texts for the header.

    Returns:
        SHA-256 of what was to be written, in hex.

    Raises:
        OSError: it cannot be written.
    """
    # tensors of wide types first, as the library does it, so that each is aligned
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header, size = _header({name: tensors[name] for name in names}, metadata)
    digest = hashlib.sha256()

    def pieces() -> Iterator[memoryview]:
        nonlocal digest
        digest = hashlib.sha256()  # each attempt starts anew
        for data in itertools.chain([memoryview(header)], (tensor_bytes(tensors[name]) for name in names)):
            digest.update(data)
            yield data

    write_pieces(path, pieces, size)
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """A copy of a CPU tensor's values in row-major order.

    A view in NumPy would do, but the storage of a tensor that has one cannot be resized, which FSDP does.
    """
    return tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().data


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
