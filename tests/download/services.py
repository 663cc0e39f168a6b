"""Kaggle and the Hugging Face hub as small HTTP servers on this machine, which can cut connections and damage files."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Service:
    """What a server offers, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    """Path -> content; Kaggle's one archive is /archive.zip."""
    cuts: list[int] = field(default_factory=list)
    """For each of the next downloads, the bytes after which the connection is cut."""
    damaged: int = 0
    """Downloads that come with one byte changed."""
    status: int = 200
    """What is answered to every request."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    """Path and Range of every download."""
    address: str = ""


@contextmanager
def served(service: Service, handler: type[Handler]) -> Iterator[Service]:
    """Run a server while the with block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler,), {"service": service}))
    service.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Files with ranges; subclasses add what is particular to a service."""

    service: Service
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer_json(self, value: Any, status: int = 200) -> None:
        self.answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def send_file(self, path: str, headers: dict[str, str]) -> None:
        """Send a file, or from the byte where Range begins."""
        service = self.service
        whole = service.files[path]
        span = self.headers.get("Range")
        start = int(span.removeprefix("bytes=").partition("-")[0]) if span else 0
        if self.command == "HEAD":
            self.send_response(200)
            for name, value in {"Content-Length": str(len(whole)), "Accept-Ranges": "bytes", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            return
        service.requests.append((path, span))
        content = whole[start:]
        if service.damaged:
            service.damaged -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        self.send_response(206 if span else 200)
        if span:
            self.send_header("Content-Range", f"bytes {start}-{len(whole) - 1}/{len(whole)}")
        for name, value in {"Content-Length": str(len(content)), "Accept-Ranges": "bytes", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if service.cuts:
            self.wfile.write(content[: service.cuts.pop(0)])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(2)
            return
        self.wfile.write(content)


class KaggleHandler(Handler):
    """api.kaggle.com, and the storage that it sends one on to."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.service.status != 200:
            self.answer_json({"code": self.service.status, "message": "no"}, self.service.status)
        elif self.path.endswith("/GetDataset"):
            self.answer_json({"currentVersionNumber": 3})
        elif self.path.endswith("/DownloadDataset"):
            self.answer(302, headers={"Location": f"{self.service.address}/archive.zip"})

    def do_GET(self) -> None:
        md5 = base64.b64encode(hashlib.md5(self.service.files[self.path]).digest()).decode()
        self.send_file(self.path, {"x-goog-hash": f"crc32c=AAAA==,md5={md5}", "Content-Type": "application/zip"})


class HubHandler(Handler):
    """huggingface.co with one dataset, whose Parquet files are in large file storage."""

    COMMIT = "0123456789abcdef0123456789abcdef01234567"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if self.service.status != 200:
            self.answer_json({"error": "no"}, self.service.status)
        elif path.startswith("/api/datasets/") and "/tree/" in path:
            self.answer_json([self._entry(name) for name in self.service.files])
        elif path.startswith("/api/datasets/"):
            siblings = [self._sibling(name) for name in self.service.files]
            self.answer_json({"id": "Bingsu/Human_Action_Recognition", "sha": self.COMMIT, "siblings": siblings})
        else:
            name = path.partition(f"/resolve/{self.COMMIT}/")[2]
            if name not in self.service.files:
                self.answer(404, headers={"X-Error-Code": "EntryNotFound"})
                return
            digest = hashlib.sha256(self.service.files[name]).hexdigest()
            self.send_file(name, {"ETag": f'"{digest}"', "X-Repo-Commit": self.COMMIT})

    def _entry(self, name: str) -> dict[str, Any]:
        content = self.service.files[name]
        entry = {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        return entry | {"lfs": self._lfs(content)} if name.endswith(".parquet") else entry

    def _sibling(self, name: str) -> dict[str, Any]:
        content = self.service.files[name]
        sibling = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
        return sibling | {"lfs": self._lfs(content)} if name.endswith(".parquet") else sibling

    def _lfs(self, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        return {"sha256": digest, "oid": digest, "size": len(content), "pointerSize": 130}
