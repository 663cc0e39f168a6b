"""onnxruntime-web, which runs a model in a browser: found, downloaded once from npm's registry, and checked.

What is done with the files is in web_folder.py.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from clip_har.errors import ConfigError, first_line
from clip_har.files import write_atomically
from clip_har.progress import Progress
from clip_har.wording import file_size

PACKAGE = "onnxruntime-web"
VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as npm writes it into package-lock.json."""
REGISTRY = "https://registry.npmjs.org"
REGISTRY_VARIABLE = "NPM_CONFIG_REGISTRY"
"""npm's own variable for another registry."""
TIMEOUT = 60.0
"""Seconds without any byte after which a download is given up."""
LARGEST = 100_000_000
"""Bytes of an archive above which it is not read; the real one has 33 MB."""
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RuntimeFile:
    """One file of the package that a page needs."""

    source: str
    """Name in the package's folder dist."""
    sha256: str


FILES: Mapping[str, RuntimeFile] = {
    "ort.js": RuntimeFile(
        source="ort.wasm.bundle.min.mjs",
        sha256="11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort.wasm": RuntimeFile(
        source="ort-wasm-simd-threaded.wasm",
        sha256="3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
"""Name in an export -> the file. Not .mjs: some web servers do not send that as JavaScript."""


def web_runtime(given: Path | None, cache: Path, progress: Progress) -> dict[str, bytes]:
    """The files of the runtime, name in an export -> content, each with the expected checksum.

    Args:
        given: a folder or an archive of the package. None: the cache, otherwise npm's registry.
        cache: folder of clip-har's caches.

    Raises:
        ConfigError: they are not there, are of another version, or cannot be downloaded.
    """
    if given is not None:
        return _of_archive(_read(given), str(given)) if given.is_file() else _of_folder(given)
    folder = cache / f"{PACKAGE}-{VERSION}"
    kept = _checked(folder.__truediv__)
    if kept is not None:
        return kept
    found = _of_archive(_downloaded(progress), "The download")
    for name, content in found.items():
        write_atomically(folder / FILES[name].source, content)
    return found


def _checked(path_of: Callable[[str], Path]) -> dict[str, bytes] | None:
    """The files in a folder, if all are there as expected."""
    found: dict[str, bytes] = {}
    for name, file in FILES.items():
        try:
            content = path_of(file.source).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != file.sha256:
            return None
        found[name] = content
    return found


def _of_folder(folder: Path) -> dict[str, bytes]:
    for place in (folder, folder / "dist", folder / "package" / "dist", folder / "node_modules" / PACKAGE / "dist"):
        if (found := _checked(place.__truediv__)) is not None:
            return found
    wanted = " and ".join(file.source for file in FILES.values())
    raise ConfigError(f"--web-runtime {folder} has no {wanted} of {PACKAGE} {VERSION}", remedy=_by_hand())


def _read(archive: Path) -> bytes:
    with archive.open("rb") as stream:
        return stream.read(LARGEST + 1)


def _of_archive(content: bytes, what: str) -> dict[str, bytes]:
    """The files in the package's archive, which is checked as a whole; nothing else of it is unpacked."""
    algorithm, _, expected = INTEGRITY.partition("-")
    found = base64.b64encode(hashlib.new(algorithm, content).digest()).decode()
    if found != expected:
        raise ConfigError(
            f"{what} is not {PACKAGE} {VERSION}: its checksum is {algorithm}-{found[:12]}..., not {INTEGRITY[:19]}...",
            remedy=_by_hand(),
        )
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        contents = {}
        for name, file in FILES.items():
            member = archive.extractfile(f"package/dist/{file.source}")
            assert member is not None
            contents[name] = member.read()
    return contents


def address() -> str:
    """Of the archive in npm's registry, or in the one that npm is told to use."""
    registry = os.environ.get(REGISTRY_VARIABLE) or os.environ.get(REGISTRY_VARIABLE.lower()) or REGISTRY
    return f"{registry.rstrip('/')}/{PACKAGE}/-/{PACKAGE}-{VERSION}.tgz"


def _downloaded(progress: Progress) -> bytes:
    url = address()
    if not url.startswith(("https://", "http://")):
        raise ConfigError(f"{REGISTRY_VARIABLE} is not a web address: {url}", remedy="Unset it, or correct it.")
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
            size = int(response.headers.get("Content-Length") or 0)
            with progress.bar(f"Downloading {PACKAGE} {VERSION}", total=size, unit="bytes") as bar:
                content = bytearray()
                while chunk := response.read(_CHUNK):
                    content += chunk
                    bar.advance(len(chunk))
                    if len(content) > LARGEST:
                        raise ConfigError(f"{url} is larger than {file_size(LARGEST)}", remedy=_by_hand())
    except (OSError, HTTPException, ValueError) as error:  # URLError and time-outs are OSErrors
        raise ConfigError(f"{url} cannot be downloaded: {_reason(error)}", remedy=_by_hand()) from error
    return bytes(content)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"status {error.code}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    return first_line(cause) if isinstance(cause, BaseException) else str(cause)


def _by_hand() -> str:
    return (
        f"On a machine with network access run: npm pack {PACKAGE}@{VERSION}, and pass the file with "
        f"--web-runtime {PACKAGE}-{VERSION}.tgz."
    )
