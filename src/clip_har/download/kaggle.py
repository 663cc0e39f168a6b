"""An archive from Kaggle through kagglehub: resumed where it was cut, checked by the MD5 sum that the server names.

kagglehub would also unpack it; that is left to unpacking.py, which has limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from clip_har.download.har import FetchSource
from clip_har.download.network import is_offline
from clip_har.errors import DataError, first_line
from clip_har.progress import SILENT, Progress

ATTEMPTS = 5
"""Connections that may be cut before it is given up, for now: the same command continues from there."""


def download_kaggle(
    source: FetchSource, archive: Path, *, progress: Progress = SILENT, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Download the newest version of a Kaggle dataset as one archive, or the rest of it.

    Args:
        source: one of Kaggle's.
        archive: the file to write; what is there of it already is not downloaded again.
        sleep: waits so many seconds before another attempt.

    Raises:
        DataError: kagglehub is not installed, Kaggle wants a login or cannot be reached, or the archive is damaged.
    """
    kaggle = _Kaggle(source)
    archive.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            kaggle.download(archive)
            return
        except kaggle.refusals as error:
            raise _refused(source, error) from error
        except kaggle.damages as error:  # the file is deleted then
            problem = "the download does not match Kaggle's checksum"
            cause: Exception = error
        except kaggle.cuts as error:
            if is_offline(error):
                raise DataError("Kaggle cannot be reached: there is no network", remedy=_offline(source)) from error
            problem = f"the connection was interrupted ({first_line(error)})"
            cause = error
        if attempt < ATTEMPTS:
            progress.warn(f"Attempt {attempt} of {ATTEMPTS}: {problem}; trying again")
            sleep(2.0**attempt)
    raise DataError(
        f"Downloading {source.handle} from Kaggle failed {ATTEMPTS} times: {problem}",
        remedy="Check the network and run the command again; it resumes the download; " + _by_hand(source),
    ) from cause


class _Kaggle:
    """kagglehub's client, and what it raises."""

    def __init__(self, source: FetchSource) -> None:
        try:
            import requests
            from kagglehub.clients import build_kaggle_client, download_file
            from kagglehub.exceptions import DataCorruptionError, KaggleApiHTTPError
            from kagglehub.handle import parse_dataset_handle
            from kagglesdk.datasets.types import dataset_api_service as types
        except ImportError as error:
            raise DataError(
                "Downloading from Kaggle requires the package kagglehub (1.0 or later, for Python 3.11 or later)",
                remedy=f"pip install 'clip-har[kaggle]'; {_by_hand(source)}",
            ) from error
        self._client: Callable[[], Any] = build_kaggle_client
        self._download_file: Callable[..., Any] = download_file
        self._types: Any = types
        self._handle: Any = parse_dataset_handle(source.handle)
        self.refusals = (KaggleApiHTTPError, requests.HTTPError)
        self.damages = (DataCorruptionError,)
        self.cuts = (requests.RequestException, ConnectionError)

    def download(self, archive: Path) -> None:
        """Ask for the newest version and download what of it is not there yet."""
        with self._client() as client:
            api = client.datasets.dataset_api_client
            about = self._types.ApiGetDatasetRequest()
            about.owner_slug, about.dataset_slug = self._handle.owner, self._handle.dataset
            version = api.get_dataset(about).current_version_number
            wanted = self._types.ApiDownloadDatasetRequest()
            wanted.owner_slug, wanted.dataset_slug = self._handle.owner, self._handle.dataset
            wanted.dataset_version_number = version
            self._download_file(api.download_dataset(wanted), str(archive), self._handle.with_version(version))


def _refused(source: FetchSource, error: Any) -> DataError:
    status = getattr(error.response, "status_code", None)
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return DataError(
            f"Kaggle requires a login for {source.handle} ({status})",
            remedy=(
                f"Open {source.page} and accept its terms if asked; on https://www.kaggle.com/settings create an API "
                f"token and set KAGGLE_API_TOKEN to it, or save kaggle.json in ~/.kaggle; {_by_hand(source)}"
            ),
        )
    if status == HTTPStatus.NOT_FOUND:
        return DataError(f"Kaggle has no dataset {source.handle} (404)", remedy="Try another --source.")
    return DataError(
        f"Kaggle refused to send {source.handle}: {first_line(error)}", remedy=f"Try again later; {_by_hand(source)}"
    )


def _offline(source: FetchSource) -> str:
    return f"Connect and run the command again; {_by_hand(source)}"


def _by_hand(source: FetchSource) -> str:
    return f"or download the archive from {source.page} in a browser and add --archive FILE."
