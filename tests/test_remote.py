"""Images behind URLs: an object store and a web server of the test's own, which fail, end early and send bombs."""

from __future__ import annotations

import dataclasses
import importlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from clip_har import cli, embed_images
from clip_har.config import STANDARD_INPUT, EmbedConfig
from clip_har.embedding.command import embed
from clip_har.errors import ConfigError, MachineError, UnreadableImageError
from clip_har.images import limits, remote
from clip_har.images.listing import ImageList
from clip_har.images.remote import Fetching, RemoteImage, fetching, location, may_pass, reason_of
from samples import HUES, write_image

fsspec = pytest.importorskip("fsspec")
BUCKET = "photos"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE_SECONDS", 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, in subfolders too; the second is none."""
    folder = tmp_path_factory.mktemp("images")
    for number, name in enumerate(("a.jpg", "b.jpg", "c/d.jpg", "c/e.png", "f.jpg")):
        write_image(folder / name, HUES["running"], seed=number)
    (folder / "b.jpg").write_text("no image")
    return folder


def config_of(out: Path, model: str, **changes: Any) -> EmbedConfig:
    given = EmbedConfig(out=out, model=model, shard_size=2, workers=0, precision="float32", device="cpu")
    return dataclasses.replace(given, **changes)


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


# --- an object store ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[str]:
    """The address of an S3 server with the images in a bucket, and a hidden object and a bucket of its own."""
    server_module = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = server_module.ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", address)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "never-print-this")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3", endpoint_url=address)
        client.create_bucket(Bucket=BUCKET)
        for path in folder.rglob("*.*"):
            client.upload_file(str(path), BUCKET, f"holiday/{path.relative_to(folder)}")
        client.put_object(Bucket=BUCKET, Key="holiday/.hidden", Body=b"")
        client.put_object(Bucket=BUCKET, Key="holiday/c/", Body=b"")
        yield address
    server.stop()


def test_a_prefix_is_embedded_like_the_folder(store: str, folder: Path, tiny_model: str, tmp_path: Path) -> None:
    embed([folder], config_of(tmp_path / "local", tiny_model))
    url = f"s3://{BUCKET}/holiday"
    for given in (f"{url}/", url):
        embed([location(given)], config_of(tmp_path / "remote", tiny_model))  # the second finds all done
    expected = [{**row, "path": row["path"].replace(str(folder), url)} for row in rows(tmp_path / "local")]
    assert rows(tmp_path / "remote") == expected
    assert [row["error"] for row in expected] == [None, "not an image but text", None, None, None]


def test_patterns_single_objects_and_workers(store: str, folder: Path, tiny_model: str, tmp_path: Path) -> None:
    url = f"s3://{BUCKET}/holiday"
    assert list(map(str, ImageList([location(f"{url}/*.jpg")]))) == [f"{url}/{name}.jpg" for name in "abf"]
    assert list(map(str, ImageList([location(f"{url}/c/d.jpg")]))) == [f"{url}/c/d.jpg"]
    listed = io.BytesIO(f"{url}/a.jpg\n{url}/missing.jpg\n{url}/c/\n".encode())
    command = ["embed", "-", "--model", tiny_model, "--precision", "float32", "--workers", "2", "--out"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.TextIOWrapper(listed))
        assert cli.main([*command, str(tmp_path / "out"), "--encode-batch-size", "2"]) == 0
    found = {row["path"].removeprefix(url): row["error"] for row in rows(tmp_path / "out")}
    missing = "cannot be fetched: no such object"
    assert found == {"/a.jpg": None, "/missing.jpg": missing, "/c/d.jpg": None, "/c/e.png": None}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://no-such-bucket/holiday/", "s3://no-such-bucket/holiday/ does not exist"),
        (f"s3://{BUCKET}/no-such-key.jpg", "no-such-key.jpg does not exist"),
        (f"s3://{BUCKET}/none/*.jpg", f"No object matches s3://{BUCKET}/none/"),
        ("s3://user:secret@bucket/a.jpg", "contains a user name or password"),
        ("nonsense://bucket/a.jpg", "nonsense:// URLs are not supported"),
    ],
)
def test_what_is_not_there_is_one_line(
    url: str, said: str, store: str, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["embed", url, "--model", tiny_model, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line and "secret" not in line and "never-print-this" not in line


def test_without_credentials_it_is_one_line(store: str, tiny_model: str, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_ACCESS_KEY_ID")
        patch.delenv("AWS_SECRET_ACCESS_KEY")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        said = f"s3://{BUCKET}/holiday/ cannot be read: no credentials. Set AWS_ACCESS_KEY_ID and"
        with pytest.raises(ConfigError, match=said):
            embed([location(f"s3://{BUCKET}/holiday/")], config_of(tmp_path / "out", tiny_model))
        s3fs.S3FileSystem.clear_instance_cache()


def test_offline_refuses_urls(tiny_model: str, tmp_path: Path) -> None:
    config = config_of(tmp_path / "out", tiny_model, offline=True)
    with pytest.raises(ConfigError, match=r"--offline does not allow s3://b/a\.jpg. Remove --offline"):
        embed([location("s3://b/a.jpg")], config)
    with pytest.raises(ConfigError, match=r"--offline does not allow https://b/a\.jpg"):
        embed([STANDARD_INPUT], config, standard_input=io.BytesIO(b"https://b/a.jpg\n"))


# --- a web server ---------------------------------------------------------------------------------------


class Pages(BaseHTTPRequestHandler):
    """Answers by the path: /NAME/file has a fault called NAME the first time, /always-NAME/file every time."""

    folder: Path
    seen: dict[str, int]

    def do_GET(self) -> None:
        self.seen[self.path] = self.seen.get(self.path, 0) + 1
        _, fault, name = self.path.split("/", 2)
        if fault.startswith("always-"):
            fault = fault.removeprefix("always-")
        elif self.seen[self.path] > 1:
            fault = "fine"
        content = (self.folder / name).read_bytes()
        if fault.isdecimal():
            self.send_error(int(fault))
            return
        self.send_response(200)
        if fault == "endless":
            self.end_headers()
            with suppress(ConnectionError):
                for _ in range(200):
                    self.wfile.write(bytes(1 << 16))
            return
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if fault == "truncated" else content)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


@pytest.fixture
def web(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """The address of a web server, and how often each path was asked for."""
    seen: dict[str, int] = {}
    handler = type("Handler", (Pages,), {"folder": folder, "seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", seen
        server.shutdown()


@pytest.mark.parametrize(
    ("fault", "asked", "reason"),
    [
        ("fine", 1, None),
        ("500", 2, None),
        ("429", 2, None),
        ("truncated", 2, None),
        ("404", 1, "cannot be fetched: no such object"),
        ("403", 1, "cannot be fetched: permission denied"),
        ("always-503", 4, "cannot be fetched after 4 attempts: HTTP status 503"),
        ("always-truncated", 4, "cannot be fetched after 4 attempts: the connection ended early"),
    ],
)
def test_a_failure_that_may_pass_is_tried_again(
    fault: str, asked: int, reason: str | None, web: tuple[str, dict[str, int]], folder: Path
) -> None:
    address, seen = web
    image = RemoteImage(f"{address}/{fault}/a.jpg?signature=never-print-this")
    seen_path = f"/{fault}/a.jpg?signature=never-print-this"
    (folder / "a.jpg?signature=never-print-this").write_bytes((folder / "a.jpg").read_bytes())
    try:
        if reason is None:
            assert image.read() == (folder / "a.jpg").read_bytes()
        else:
            with pytest.raises(UnreadableImageError) as caught:
                image.read()
            assert caught.value.reason == reason
    finally:
        (folder / "a.jpg?signature=never-print-this").unlink()
    assert seen == {seen_path: asked}


def test_limits_are_those_of_files(web: tuple[str, dict[str, int]], folder: Path, monkeypatch: Any) -> None:
    address, seen = web
    monkeypatch.setattr(remote, "MAX_FILE_BYTES", 1_000_000)
    with pytest.raises(UnreadableImageError, match="a file of more than 1 MB"):
        RemoteImage(f"{address}/always-endless/a.jpg").read()
    assert seen == {"/always-endless/a.jpg": 1}
    (folder / "bomb.png").write_bytes(bomb(side=limits.MAX_SIDE))
    try:
        (image,) = embed_images([f"{address}/fine/bomb.png"], model="demo", precision="float32")
    finally:
        (folder / "bomb.png").unlink()
    assert image.path == f"{address}/fine/bomb.png"
    assert image.embedding is None and image.error == "too many pixels, perhaps a decompression bomb"


def bomb(*, side: int) -> bytes:
    """A PNG that says it is of this size, in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# --- names and errors -----------------------------------------------------------------------------------


def test_names_are_paths_or_urls(tmp_path: Path) -> None:
    assert location("a//b.jpg") == Path("a/b.jpg")
    assert location("file:///tmp/a%20b.jpg") == Path("/tmp/a b.jpg")
    assert location("hf://datasets/a/b/c.jpg") == RemoteImage("hf://datasets/a/b/c.jpg")
    assert location("c:/photos/a.jpg") == Path("c:/photos/a.jpg")


def test_memory_is_a_file_system_too(folder: Path) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/m/a.jpg", (folder / "a.jpg").read_bytes())
    assert [str(image) for image in ImageList([location("memory://m/")])] == ["memory://m/a.jpg"]
    images = (RemoteImage("memory://m/a.jpg"), b"bytes", RemoteImage("memory://m/none.jpg"))
    first, same, last = fetching(images)
    assert isinstance(first, Fetching) and isinstance(last, Fetching)
    assert first.read() == (folder / "a.jpg").read_bytes()
    assert same == b"bytes"
    with pytest.raises(UnreadableImageError, match="cannot be fetched: no such object"):
        last.read()


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(f"No module named {name}")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MachineError, match=r"pip install 'clip-har\[remote\]'"):
        RemoteImage("s3://b/a.jpg").read()


@pytest.mark.parametrize(
    ("error", "passing", "reason"),
    [
        (FileNotFoundError("s3://b?token=1"), False, "no such object"),
        (PermissionError("Forbidden"), False, "permission denied"),
        (TimeoutError(), True, "timed out"),
        (ConnectionResetError(104, "Connection reset by peer"), True, "Connection reset by peer"),
    ],
)
def test_errors_are_told_apart(error: Exception, passing: bool, reason: str) -> None:
    assert (may_pass(error), reason_of(error)) == (passing, reason)
