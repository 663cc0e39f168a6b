"""Requests per second and latency of `clip-har serve` under load: micro-batches against batches of one image.

    python benchmarks/service_load.py RUN IMAGES [--clients 64] [--seconds 20] [--hostile FOLDER]

Each client sends one image per request over one connection and waits for the answer. The load runs in this process,
on the same machine as the service, so that both share its cores. With --hostile, all files of a folder are sent
afterwards, ten times over, and the memory of the service's processes is printed before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

BOUNDARY = "clip-har-load"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--hostile", type=Path)
    given = parser.parse_args()
    contents = [path.read_bytes() for path in sorted(given.images.rglob("*.jpg"))]
    for batch_size in (1, 16):
        process, port = start(given.run, batch_size)
        try:
            asyncio.run(measure(port, contents, given.clients, 2.0))
            seconds, codes = asyncio.run(measure(port, contents, given.clients, given.seconds))
            report(batch_size, seconds, codes, given.seconds)
            if given.hostile is not None and batch_size > 1:
                feed(process.pid, port, [path.read_bytes() for path in sorted(given.hostile.iterdir())])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


def start(run: Path, batch_size: int) -> tuple[subprocess.Popen[bytes], int]:
    """A service on a free port that is ready."""
    words = [sys.executable, "-m", "clip_har", "serve", str(run), "--port", "0", "--batch-size", str(batch_size)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    found = None
    while found is None:
        line = process.stderr.readline().decode()
        assert line, "the service has ended"
        found = re.match(r"Serving .* on http://127\.0\.0\.1:(\d+)", line)
    port = int(found[1])
    while True:
        try:
            asyncio.run(measure(port, [b""], 1, 0.0))
            return process, port
        except ConnectionError:
            time.sleep(0.2)


async def measure(
    port: int, contents: Sequence[bytes], clients: int, seconds: float
) -> tuple[list[float], Counter[int]]:
    """Seconds of each request, and how often each status came."""
    found: list[float] = []
    codes: Counter[int] = Counter()
    end = time.monotonic() + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            begun = time.monotonic()
            writer.write(request(contents[number % len(contents)]))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(head.partition("content-length: ")[2].split("\r\n")[0]))
            codes[int(head.split()[1])] += 1
            found.append(time.monotonic() - begun)
            number += clients
            if time.monotonic() > end:
                break
        writer.close()

    await asyncio.gather(*(client(number) for number in range(clients)))
    return found, codes


def request(content: bytes) -> bytes:
    """One image as a form, with its HTTP head."""
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode()
    body = part + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    head = f"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode() + body


def report(batch_size: int, seconds: list[float], codes: Counter[int], duration: float) -> None:
    quantiles = statistics.quantiles(seconds, n=100)
    entry = {
        "batch_size": batch_size,
        "requests_per_second": round(len(seconds) / duration, 1),
        "p50_ms": round(1000 * quantiles[49]),
        "p99_ms": round(1000 * quantiles[98]),
        "statuses": dict(codes),
    }
    print(json.dumps(entry), flush=True)


def feed(pid: int, port: int, contents: Sequence[bytes]) -> None:
    """Send files one after the other, and print the memory before and after."""
    before = memory(pid)
    _, codes = asyncio.run(send_all(port, [*contents] * 10))
    entry = {"hostile_statuses": dict(codes), "before_mb": before, "after_mb": memory(pid)}
    print(json.dumps(entry), flush=True)


async def send_all(port: int, contents: Sequence[bytes]) -> tuple[list[float], Counter[int]]:
    codes: Counter[int] = Counter()
    seconds: list[float] = []
    for content in contents:
        found, of_one = await measure(port, [content], 1, 0.0)
        seconds += found
        codes += of_one
    return seconds, codes


def memory(pid: int) -> dict[str, int]:
    """Proportional set size in megabytes, of the service and of the processes below it."""
    own = _pss(pid)
    children = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and _is_below(path, pid)]
    return {"service": own // 10**6, "decoders": sum(map(_pss, children)) // 10**6}


def _is_below(path: Path, pid: int) -> bool:
    while path.name not in ("0", "1"):
        try:
            parent = (path / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            return False
        if int(parent) == pid:
            return True
        path = Path("/proc") / parent
    return False


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
