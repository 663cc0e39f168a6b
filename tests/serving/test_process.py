"""`clip-har serve` as a process: it says where it is, and on SIGTERM answers what it accepted and ends with 0."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

REQUESTS = 6


@pytest.mark.slow  # two processes import torch
@pytest.mark.skipif(os.name != "posix", reason="signals exist on POSIX systems")
def test_sigterm_answers_what_was_accepted(served_runs: dict[str, Path], pictures: list[Path], tmp_path: Path) -> None:
    words = ["serve", str(served_runs["lora"]), "--port", "0", "--workers", "1", "--device", "cpu"]
    words += ["--precision", "float32", "--batch-wait", "1", "--batch-size", "64"]
    log = tmp_path / "log.jsonl"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "clip_har", *words], stdout=output, stderr=subprocess.PIPE)
    killer = threading.Timer(120, process.kill)
    killer.start()
    try:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        found = re.fullmatch(r"Serving lora on (http://127\.0\.0\.1:\d+) \(stop with Ctrl-C\)\n", line)
        assert found is not None, line
        codes = _accepted_then_terminated(found[1], process, pictures[0])
        assert codes == [200] * REQUESTS
        assert process.wait(60) == 0
        assert process.stderr.read() == b""
    finally:
        killer.cancel()
        process.kill()
        process.wait()
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["event"] for entry in entries if entry["event"] != "request"] == ["started", "stopped"]
    assert sum(entry.get("path") == "/v1/predict" for entry in entries) == REQUESTS


def _accepted_then_terminated(url: str, process: subprocess.Popen[bytes], picture: Path) -> list[int]:
    """Status codes of requests that the service has accepted when SIGTERM comes."""
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client, ThreadPoolExecutor(REQUESTS) as pool:
        while True:
            try:
                assert client.get("/readyz").status_code == 200
                break
            except httpx.ConnectError:
                assert process.poll() is None
                time.sleep(0.1)
        content = picture.read_bytes()
        answers = [pool.submit(httpx.post, f"{url}/v1/predict", files={"file": content}) for _ in range(REQUESTS)]
        while f"clip_har_images_in_flight {REQUESTS}.0" not in client.get("/metrics").text:
            assert not all(answer.done() for answer in answers)
        process.send_signal(signal.SIGTERM)
        codes = [answer.result().status_code for answer in answers]
        process.wait(60)
        with pytest.raises(httpx.ConnectError):
            client.get("/readyz")
        return codes


def test_the_command_is_described_and_refuses_what_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from clip_har import cli

    assert cli.main(["serve", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--api-key-file" in text and "CLIP_HAR_API_KEY" in text
    assert cli.main(["serve", str(tmp_path), "--port", "0"]) == 2
    assert f"{tmp_path} is not a run folder" in capsys.readouterr().err
