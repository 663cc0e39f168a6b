"""What the machine refuses, such as memory, disk space or a limit, as one line with a remedy.

Only says what an exception means; catching it is for its callers. Does not import torch.
"""

from __future__ import annotations

import errno
import os
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from clip_har.errors import MachineError

_SPACE = "Free some space, or choose another folder (--out, --cache)."
_PERMISSION = "Change its permissions, or choose another folder (--out, --cache)."
_FOLDER_WANTED = "A file with that name exists: choose another path."
_LOOP = "Remove the symbolic link that leads to itself."
_DISK = "Check the disk or the network share, then run the same command again."
_FILES = "Raise the limit (ulimit -n 4096), or use fewer --workers."
_PROCESSES = "Use fewer --workers, or raise the limit on processes (ulimit -u) or on memory."
_MEMORY = (
    "Use a smaller --batch-size or --encode-batch-size, fewer --workers or a smaller --model, "
    "or raise the limit on memory (ulimit -v, the container's)."
)
_REMEDIES: dict[str, str] = {
    "EACCES": _PERMISSION,
    "EPERM": _PERMISSION,
    "EROFS": "Choose a writable folder (--out, --cache).",
    "ENOSPC": _SPACE,
    "EDQUOT": _SPACE,
    "EFBIG": "Raise the limit on a file's size (ulimit -f), or choose another file system (--out, --cache).",
    "ENOTDIR": _FOLDER_WANTED,
    "EEXIST": _FOLDER_WANTED,
    "EISDIR": "A folder with that name exists: choose another path.",
    "ENOTEMPTY": "Choose another path.",
    "ENAMETOOLONG": "Choose a shorter path.",
    "ELOOP": _LOOP,
    "ENOENT": "It is missing, or was moved or deleted meanwhile: restore it, then run the same command again.",
    "ENXIO": "Pass a regular file.",
    "ENODEV": "Pass a regular file.",
    "ESPIPE": "Pass a regular file.",
    "EINVAL": "Choose another file system (--out, --cache).",
    "ENOTSUP": "Choose another file system (--out, --cache).",
    "ENOLCK": "Choose another file system (--out, --cache).",
    "EIO": _DISK,
    "EREMOTEIO": _DISK,
    "ESTALE": _DISK,
    "ENOTCONN": _DISK,
    "EHOSTDOWN": _DISK,
    "ETIMEDOUT": _DISK,
    "ETXTBSY": "Wait until the program that uses it has ended, then run the same command again.",
    "EBUSY": "Wait until the program that uses it has ended, then run the same command again.",
    "EMFILE": _FILES,
    "ENFILE": "Wait until other programs have closed files, or use fewer --workers.",
    "EAGAIN": _PROCESSES,
}
# Windows lacks some of them.
_BY_NUMBER = {getattr(errno, name): remedy for name, remedy in _REMEDIES.items() if hasattr(errno, name)}
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_ABOUT_A_PATH = frozenset({errno.ENOENT, errno.EINVAL, errno.EEXIST, errno.EAGAIN})
"""Errors that are only the user's if they name a file; EAGAIN is the opposite."""
_MEMORY_WORDS = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "bad_alloc",
    "failed to map segment from shared object",
    "unable to mmap",
    "could not create a primitive",  # oneDNN's words
)


def machine_failure(error: BaseException) -> MachineError | None:
    """What an exception says of the machine and not of clip-har, or None if it does not."""
    if is_out_of_memory(error):
        return MachineError("Out of memory", remedy=_MEMORY)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return MachineError("No thread can be started", remedy=_PROCESSES)
    if isinstance(error, BrokenProcessPool):
        return MachineError("A worker process ended, usually because it ran out of memory", remedy=_PROCESSES)
    if isinstance(error, RuntimeError) and str(error).startswith("Symlink loop from"):  # Path.resolve before 3.13
        return MachineError(str(error), remedy=_LOOP)
    if isinstance(error, FileNotFoundError) and _is_without_folder():
        return MachineError("The working directory was deleted", remedy="Change to another folder with cd.")
    if isinstance(error, OSError):
        return _of_the_system(error)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory could not be had, on any device."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error).lower()
    about_memory = any(word in text for word in _MEMORY_WORDS)
    return about_memory and (isinstance(error, (RuntimeError, OSError, ImportError)) or "os error 12" in text)


def is_exhausted(error: BaseException) -> bool:
    """Whether an exception says that the process or the machine has no more of something, whatever file it was for."""
    return is_out_of_memory(error) or (isinstance(error, OSError) and error.errno in _EXHAUSTED)


def _of_the_system(error: OSError) -> MachineError | None:
    remedy = _BY_NUMBER.get(error.errno or 0)
    if remedy is None:
        return None
    reason = error.strerror or os.strerror(error.errno or 0)
    if error.errno == errno.EAGAIN:
        return None if error.filename else MachineError(f"No process can be started: {reason}", remedy=remedy)
    if error.errno in _ABOUT_A_PATH and not error.filename:
        return None
    place = f"{_text(error.filename)}: " if error.filename is not None else ""
    return MachineError(f"{place}{reason}", remedy=remedy)


def _is_without_folder() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False


def _text(name: object) -> str:
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else f"File descriptor {name}"
