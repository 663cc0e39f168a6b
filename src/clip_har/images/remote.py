"""An image behind a URL (s3://, hf://, https://, ...): fetched whole with fsspec, within the limits of local files.

Which objects a prefix has is in remote_listing.py. fsspec is imported where it is used.
"""

from __future__ import annotations

import functools
import importlib
import random
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from clip_har.errors import ConfigError, MachineError, UnreadableImageError, UserError, first_line
from clip_har.images.limits import MAX_FILE_BYTES

T = TypeVar("T")

ATTEMPTS = 4
FIRST_PAUSE_SECONDS = 0.5
"""Before the second attempt; each later pause is four times as long, and all vary by half."""
READ_SECONDS, WHOLE_SECONDS = 30.0, 300.0
"""How long a web server may be silent, and how long one image may take."""
_TOGETHER = 8
"""Images that a process fetches at a time, which it holds in memory."""
_BLOCK_BYTES = 1 << 20
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_WEB = ("http", "https")
_PASSING_STATUS = frozenset({408, 425, 429})
"""HTTP status codes below 500 that may be different soon."""


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image, or a folder of images, that is not on this machine."""

    url: str

    def read(self) -> bytes:
        """The image's bytes. Failures that may pass are tried again.

        Raises:
            UnreadableImageError: it cannot be fetched, or is too large.
            UserError: this machine cannot fetch such URLs.
        """
        try:
            return patiently(self._fetch)
        except (UnreadableImageError, UserError):
            raise
        except Exception as error:  # fsspec's file systems raise what their libraries raise
            tried = f" after {ATTEMPTS} attempts" if may_pass(error) else ""
            raise UnreadableImageError(f"cannot be fetched{tried}: {reason_of(error)}") from error

    def _fetch(self) -> bytes:
        system, path = system_of(self.url)
        # One request, without asking for the size before; else no reading ahead, as the object is read at once.
        options = {"block_size": 0, "size": 1} if self.url.lower().startswith(_WEB) else {"cache_type": "none"}
        with system.open(path, "rb", **options) as stream:
            size = None if "size" in options else getattr(stream, "size", None)
            parts, length = [], 0
            while block := stream.read(min(max(size or 0, _BLOCK_BYTES), MAX_FILE_BYTES + 1 - length)):
                parts.append(block)
                length += len(block)
                if max(length, size or 0) > MAX_FILE_BYTES:
                    raise UnreadableImageError(f"a file of more than {MAX_FILE_BYTES / 1e6:.0f} MB")
        if size is not None and length < size:
            raise ConnectionError(f"{length:,} of {size:,} bytes arrived")
        return b"".join(parts)

    def __str__(self) -> str:
        return self.url


class Fetching:
    """An image behind a URL that is being fetched."""

    def __init__(self, content: Future[bytes]) -> None:
        self._content = content

    def read(self) -> bytes:
        """The image's bytes.

        Raises:
            UnreadableImageError, UserError: as for `RemoteImage.read`.
        """
        return self._content.result()


def fetching(images: Sequence[T]) -> Iterator[T | Fetching]:
    """The same images, of which the remote ones are fetched a few at a time, a few ahead."""
    if not any(isinstance(image, RemoteImage) for image in images):
        yield from images
        return
    with ThreadPoolExecutor(_TOGETHER, thread_name_prefix="fetch") as pool:
        waiting, ahead = iter(images), deque[T | Fetching]()
        while True:
            for image in islice(waiting, _TOGETHER - len(ahead)):
                ahead.append(Fetching(pool.submit(image.read)) if isinstance(image, RemoteImage) else image)
            if not ahead:
                return
            yield ahead.popleft()


def is_url(text: str) -> bool:
    """Whether a name is a URL and not a path."""
    return _SCHEME.match(text) is not None


def location(text: str) -> Path | RemoteImage:
    """What a name means: a file or folder, or a URL. file:// is a path.

    Raises:
        ConfigError: the URL contains a password.
    """
    match = _SCHEME.match(text)
    if match is None:
        return Path(text)
    if match[1].lower() == "file":
        return Path(unquote(urlsplit(text).path))
    if "@" in text[match.end() :].partition("/")[0]:
        raise ConfigError(
            f"A {match[1]}:// URL contains a user name or password, which would be written to the output",
            remedy="Pass credentials in environment variables, such as AWS_ACCESS_KEY_ID.",
        )
    return RemoteImage(text)


def system_of(url: str) -> tuple[Any, str]:
    """The file system of a URL, and what it calls the URL's place. Each process opens its own.

    Raises:
        MachineError: a package is missing.
        ConfigError: no file system has this scheme.
    """
    scheme = url.partition("://")[0].lower()
    try:
        fsspec = importlib.import_module("fsspec")
        if scheme == "hf":
            importlib.import_module("huggingface_hub")  # which makes it known
        system, path = fsspec.core.url_to_fs(url, **_options(scheme))
    except ImportError as error:
        raise MachineError(
            f"{scheme}:// URLs require a package that is not installed ({first_line(error)})",
            remedy="Run: pip install 'clip-har[remote]'",
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{scheme}:// URLs are not supported ({first_line(error)})",
            remedy="Supported are s3://, hf://, https:// and what else fsspec has a package for.",
        ) from error
    return system, path


def _options(scheme: str) -> dict[str, Any]:
    if scheme not in _WEB:
        return {"use_listings_cache": False}  # a cache of all names would grow
    return {"client_kwargs": {"timeout": _web_timeout(), "trust_env": True}}


@functools.cache
def _web_timeout() -> Any:
    client = importlib.import_module("aiohttp")
    return client.ClientTimeout(total=WHOLE_SECONDS, sock_connect=READ_SECONDS, sock_read=READ_SECONDS)


def patiently(action: Callable[[], T]) -> T:
    """Do something, again after a while if it fails in a way that may pass."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(FIRST_PAUSE_SECONDS * 4**attempt * random.uniform(0.5, 1.5))
    return action()


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed in a moment."""
    if isinstance(error, (UnreadableImageError, UserError)):
        return False
    if (status := _status(error)) is not None:
        return status >= 500 or status in _PASSING_STATUS
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, TypeError)):
        return False
    return not lacks_credentials(error)


def lacks_credentials(error: BaseException) -> bool:
    """Whether a service wanted credentials and there were none."""
    return any(type(one).__name__ in ("NoCredentialsError", "PartialCredentialsError") for one in _chain(error))


def reason_of(error: BaseException) -> str:
    """Why something cannot be fetched. URLs and what servers say are not repeated: they can contain secrets."""
    if lacks_credentials(error):
        return "no credentials"
    if (status := _status(error)) is not None:
        return {404: "no such object", 401: "permission denied", 403: "permission denied"}.get(
            status, f"HTTP status {status}"
        )
    if isinstance(error, FileNotFoundError):
        return "no such object"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, ConnectionError) and "bytes arrived" in str(error):
        return str(error)
    name = type(error).__name__
    known = {"ClientPayloadError": "the connection ended early", "TimeoutError": "timed out"}
    return known.get(name) or getattr(error, "strerror", None) or name


def _status(error: BaseException) -> int | None:
    """The HTTP status behind an error, as aiohttp or botocore give it."""
    for one in _chain(error):
        status = getattr(one, "status", None)
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if isinstance(status, int) and status >= 400:
            return status
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
