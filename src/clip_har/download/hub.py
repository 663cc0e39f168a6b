"""The Parquet files of a Hugging Face dataset through huggingface_hub, checked by the SHA-256 that the hub names.

Reading them is in dataset/sources/packed_tables.py.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from clip_har.download.har import FetchSource
from clip_har.download.network import is_offline
from clip_har.errors import DataError, first_line
from clip_har.integrity import stream_sha256
from clip_har.progress import SILENT, Progress

PATTERNS = ("*.parquet", "README.md", "dataset_infos.json", "classes.txt")
"""Files that are wanted; others are left on the hub."""
ATTEMPTS = 3
"""Times that files which came damaged, or half, are asked for."""


def download_hub(
    source: FetchSource, folder: Path, *, endpoint: str | None = None, progress: Progress = SILENT
) -> None:
    """Download a dataset's files into a folder, or what is not there of them yet.

    Args:
        source: the hub's.
        folder: where they go; huggingface_hub resumes what it began there.
        endpoint: the hub's address; None for $HF_ENDPOINT or the public one.

    Raises:
        DataError: the hub cannot be reached, wants a login, or keeps sending damaged files.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    endpoint = endpoint or os.environ.get("HF_ENDPOINT") or None
    network_errors = _network_errors()
    problem = ""
    for _ in range(ATTEMPTS):
        try:
            info = HfApi(endpoint=endpoint).dataset_info(source.handle, files_metadata=True)
            snapshot_download(
                source.handle,
                repo_type="dataset",
                revision=info.sha,
                local_dir=folder,
                allow_patterns=list(PATTERNS),
                endpoint=endpoint,
            )
        except HfHubHTTPError as error:
            raise _refused(source, error) from error
        except OSError as error:
            if is_offline(error):
                raise _offline() from error
            if error.errno is not None:
                raise  # the disk's, not the network's
            problem = first_line(error)
        except network_errors as error:
            if is_offline(error):
                raise _offline() from error
            problem = first_line(error)
        else:
            damaged = list(_damaged(folder, _checksums(info)))
            if not damaged:
                return
            problem = f"{damaged[0].name} does not match the checksum of the Hub"
            for path in damaged:
                path.unlink(missing_ok=True)
        progress.warn(f"{source.handle}: {problem}; trying again")
    raise DataError(
        f"Downloading {source.handle} from the hub failed {ATTEMPTS} times: {problem}",
        remedy="Check the network and run the command again; it resumes the download.",
    )


def _network_errors() -> tuple[type[Exception], ...]:
    """What huggingface_hub raises when a connection fails: it changed its HTTP library twice."""
    found = []
    for module, name in (("requests", "RequestException"), ("httpx", "HTTPError"), ("httpx2", "HTTPError")):
        with suppress(ImportError):
            found.append(getattr(importlib.import_module(module), name))
    return tuple(found)


def _checksums(info: Any) -> Mapping[str, str]:
    """File -> SHA-256, of the large files; the hub names none for the others."""
    found = {}
    for file in info.siblings or ():
        lfs = file.lfs
        sha256 = (lfs.get("sha256") if isinstance(lfs, Mapping) else getattr(lfs, "sha256", None)) if lfs else None
        if sha256:
            found[str(file.rfilename)] = str(sha256)
    return found


def _damaged(folder: Path, checksums: Mapping[str, str]) -> Iterator[Path]:
    for name, sha256 in checksums.items():
        path = folder / name
        if not path.is_file():
            continue  # not of a kind that is wanted
        with path.open("rb") as stream:
            found = stream_sha256(stream)
        if found != sha256:
            yield path


def _offline() -> DataError:
    return DataError(
        "The Hugging Face Hub cannot be reached: there is no network", remedy="Connect and run the command again."
    )


def _refused(source: FetchSource, error: Any) -> DataError:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return DataError(
            f"The Hugging Face Hub requires a login for {source.handle} ({status})",
            remedy=(
                f"Open {source.page} and accept its terms if asked; then run hf auth login with a token from "
                "https://huggingface.co/settings/tokens, or set HF_TOKEN to it."
            ),
        )
    return DataError(
        f"The Hugging Face Hub refused to send {source.handle}: {first_line(error)}",
        remedy="Try again later, or another --source.",
    )
