"""onnxruntime-web from a registry on this machine: downloaded once, checked, cached; or taken from a file or folder."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clip_har.errors import ConfigError
from clip_har.exporting import web_runtime as runtime
from clip_har.exporting.web_runtime import RuntimeFile, web_runtime
from clip_har.progress import SILENT

CONTENTS = {"ort.js": b"export const env = {};\n", "ort.wasm": b"\0asm" + bytes(range(256)) * 200}
SOURCES = {"ort.js": "ort.wasm.bundle.min.mjs", "ort.wasm": "ort-wasm-simd-threaded.wasm"}
ARCHIVE = "/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"


@dataclass(kw_only=True)
class Registry:
    """npm's registry with one archive: what it sends, and what it was asked."""

    archive: bytes
    path: str = ARCHIVE
    status: int = 200
    damaged: bool = False
    cut_after: int | None = None
    """Bytes after which the connection is cut."""
    requests: list[str] = field(default_factory=list)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        status = self.status if self.status != 200 or request.path == self.path else 404
        content = self.archive if status == 200 else b""
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if self.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        request.wfile.write(content[: self.cut_after])


@contextlib.contextmanager
def running(registry: Registry) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            registry.answer(self)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def archive_of(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in {"package.json": b"{}", **contents}.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


@pytest.fixture(name="archive")
def fixture_archive(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A small archive, with the checksums that are expected of it."""
    content = archive_of({SOURCES[name]: CONTENTS[name] for name in CONTENTS})
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    monkeypatch.setattr(runtime, "INTEGRITY", f"sha512-{digest}")
    files = {
        name: RuntimeFile(source=SOURCES[name], sha256=hashlib.sha256(CONTENTS[name]).hexdigest()) for name in CONTENTS
    }
    monkeypatch.setattr(runtime, "FILES", files)
    return content


@pytest.fixture(name="registry")
def fixture_registry(archive: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    registry = Registry(archive=archive)
    with running(registry) as address:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{address}/")
        yield registry


def test_the_pinned_package_is_the_one_that_npm_names() -> None:
    assert runtime.address() == f"https://registry.npmjs.org{ARCHIVE}"
    assert len(base64.b64decode(runtime.INTEGRITY.removeprefix("sha512-"))) == 64
    assert {name: file.source for name, file in runtime.FILES.items()} == SOURCES


def test_it_is_downloaded_once(registry: Registry, tmp_path: Path) -> None:
    for _ in range(2):
        assert web_runtime(None, tmp_path, SILENT) == CONTENTS
    assert registry.requests == [ARCHIVE]
    kept = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert kept == {f"onnxruntime-web-1.30.0/{name}" for name in SOURCES.values()}


def test_damage_in_the_cache_is_repaired(registry: Registry, tmp_path: Path) -> None:
    web_runtime(None, tmp_path, SILENT)
    (tmp_path / "onnxruntime-web-1.30.0" / SOURCES["ort.wasm"]).write_bytes(b"other")
    assert web_runtime(None, tmp_path, SILENT) == CONTENTS
    assert len(registry.requests) == 2


def assert_refused(said: str, given: Path | None, cache: Path) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        web_runtime(given, cache, SILENT)
    line = str(caught.value)
    assert "\n" not in line
    assert line.endswith("pass the file with --web-runtime onnxruntime-web-1.30.0.tgz.")
    assert "npm pack onnxruntime-web@1.30.0" in line
    assert not (cache / "onnxruntime-web-1.30.0").exists()


def test_a_wrong_checksum_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.damaged = True
    assert_refused("The download is not onnxruntime-web 1.30.0: its checksum is sha512-", None, tmp_path)


def test_a_cut_download_is_refused(registry: Registry, tmp_path: Path) -> None:
    registry.cut_after = 100
    assert_refused("cannot be downloaded|its checksum is", None, tmp_path)


def test_a_registry_that_refuses_is_one_line(registry: Registry, tmp_path: Path) -> None:
    registry.status = 503
    assert_refused(r"onnxruntime-web-1.30.0.tgz cannot be downloaded: status 503", None, tmp_path)
    registry.status, registry.path = 200, "/elsewhere"
    assert_refused("cannot be downloaded: status 404", None, tmp_path)


def test_without_a_network_the_remedy_is_named(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{port}")
    assert_refused("cannot be downloaded: .*refused", None, tmp_path)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "file:///etc")
    with pytest.raises(ConfigError, match="NPM_CONFIG_REGISTRY is not a web address: file:///etc"):
        web_runtime(None, tmp_path, SILENT)


def test_a_file_or_a_folder_needs_no_network(archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://127.0.0.1:9")
    (tmp_path / "file.tgz").write_bytes(archive)
    dist = tmp_path / "unpacked" / "package" / "dist"
    dist.mkdir(parents=True)
    for name, content in CONTENTS.items():
        (dist / SOURCES[name]).write_bytes(content)
    cache = tmp_path / "cache"
    for given in ("file.tgz", "unpacked", "unpacked/package", "unpacked/package/dist"):
        assert web_runtime(tmp_path / given, cache, SILENT) == CONTENTS
    (tmp_path / "other.tgz").write_bytes(archive + b"x")
    assert_refused(r"other.tgz is not onnxruntime-web 1.30.0", tmp_path / "other.tgz", cache)
    (dist / SOURCES["ort.js"]).write_bytes(b"newer")
    assert_refused(r"--web-runtime .*unpacked has no ort\.wasm\.bundle", tmp_path / "unpacked", cache)
    assert_refused("--web-runtime .*nothing has no", tmp_path / "nothing", cache)
