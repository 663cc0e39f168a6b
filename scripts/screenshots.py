"""Screenshots of pages for docs/images/: of the reports, of an audit, of the service and of an exported web page.

Run `python scripts/screenshots.py --quickstart quickstart` after `clip-har quickstart --out quickstart`. It needs
Chromium and playwright, as the browser tests do. The web page also needs onnxruntime-web, which clip-har downloads
once; without a network its screenshot is skipped. Not here: where pages show them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Error

from docs_commands import without_bfloat16, working_directory

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
LARGEST = 200_000
"""Bytes of a screenshot."""
WIDTH = 1000
LEAKED, RELABELLED = 6, 4
"""What is planted for the audit: training images copied into test, and images moved to another class."""
SHOWN = Path("data") / "test" / "calling" / "calling_0000.jpg"
"""The image that the service and the web page classify."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--quickstart", type=Path, default=Path("quickstart"), help="folder of clip-har quickstart")
    parser.add_argument("--out", type=Path, default=IMAGES, help="folder for the images (default: docs/images)")
    options = parser.parse_args(arguments)
    quickstart = options.quickstart.resolve()
    with tempfile.TemporaryDirectory(prefix="clip-har-screenshots-") as name, opened_browser() as browser:
        taken = Screenshots(browser, options.out)
        taken.reports(quickstart)
        taken.audit(quickstart, Path(name))
        taken.service(quickstart)
        taken.web_page(quickstart, Path(name))
    return 0


@contextlib.contextmanager
def opened_browser() -> Iterator[Any]:
    """An installed Chromium, headless."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        raise SystemExit("Chromium was not found: install it, or set CHROMIUM to its path.")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--force-color-profile=srgb"])
        yield browser
        browser.close()


WITHOUT_FOLDER = """(folder) => {
  for (const element of document.querySelectorAll("header *, .eyebrow"))
    if (!element.children.length) element.textContent = element.textContent.replaceAll(folder, "");
}"""
"""Takes the temporary folder out of what a page shows."""


class Screenshots:
    """Opens pages and saves what is seen of them."""

    def __init__(self, browser: Any, out: Path) -> None:
        self.browser = browser
        self.out = out
        out.mkdir(parents=True, exist_ok=True)

    def reports(self, quickstart: Path) -> None:
        """The report of the comparison, and that of a run."""
        self._save(self._open((quickstart / "report.html").as_uri()), "report.png", height=920)
        run = quickstart / "runs" / "lora"
        self._save(self._open((run / "eval" / "report.html").as_uri()), "run-report.png", height=1100)

    def audit(self, quickstart: Path, folder: Path) -> None:
        """The page of an audit of images with planted problems."""
        shutil.copytree(quickstart / "data", folder / "photos")
        plant_problems(folder / "photos")
        flags = ("--model", "demo", "--similarity", "0.99", "--html", "audit.html")
        with working_directory(folder):
            run_command("data", "audit", "photos", *flags, allowed=(0, 3))
        opened = self._open((folder / "audit.html").as_uri())
        opened.evaluate(WITHOUT_FOLDER, f"{folder.resolve()}/")
        self._save(opened, "audit.png", height=1300)

    def service(self, quickstart: Path) -> None:
        """The page of `clip-har serve`, with a prediction."""
        command = [sys.executable, "-m", "clip_har", "serve", str(quickstart / "runs" / "lora"), "--port", "0"]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
            try:
                self._classify(_address(process), quickstart / SHOWN, "service.png")
            finally:
                process.terminate()

    def web_page(self, quickstart: Path, folder: Path) -> None:
        """The page of `clip-har export --format web`, with a prediction."""
        out = folder / "page"
        run = quickstart / "runs" / "lora"
        if run_command("export", str(run), "--format", "web", "--out", str(out), allowed=(0, 2)) == 0:
            with served(out) as address:
                self._classify(address, quickstart / SHOWN, "web-page.png")

    def _classify(self, address: str, image: Path, name: str) -> None:
        page = self._open(address)
        page.set_input_files("#file", image)
        page.wait_for_selector("#answer:not([hidden])", timeout=120_000)
        page.wait_for_selector("#result:not([aria-busy])", timeout=120_000)
        page.wait_for_timeout(500)  # the bars grow
        self._save(page, name, height=760)

    def _open(self, address: str) -> Any:
        context = self.browser.new_context(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        page = context.new_page()
        for last in (*(False,) * 60, True):  # a service prints its address before it listens
            try:
                page.goto(address)
                break
            except Error:
                if last:
                    raise
                page.wait_for_timeout(1000)
        return page

    def _save(self, page: Any, name: str, *, height: int) -> None:
        page.set_viewport_size({"width": WIDTH, "height": height})
        page.wait_for_timeout(300)
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        path, colours = self.out / name, 256
        while True:
            picture.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
            if path.stat().st_size <= LARGEST or colours <= 16:
                break
            colours //= 2
        print(f"{path}: {path.stat().st_size:,} bytes, {colours} colours")


def plant_problems(data: Path) -> None:
    """Copy training images into test, and move images to another class."""
    classes = sorted(path.name for path in (data / "train").iterdir())
    for number in range(LEAKED):
        name = classes[number % len(classes)]
        image = sorted((data / "train" / name).iterdir())[number]
        shutil.copy(image, data / "test" / name / f"copy-{number}.jpg")
    for number in range(RELABELLED):
        source, target = classes[2 * number], classes[2 * number + 1]
        image = sorted((data / "train" / source).iterdir())[10 + number]
        image.rename(data / "train" / target / f"from-{source}-{number}.jpg")


def run_command(*words: str, allowed: tuple[int, ...]) -> int:
    """Run a command of clip-har."""
    from clip_har import cli

    with without_bfloat16(), contextlib.redirect_stdout(io.StringIO()):
        code = cli.main(words)
    if code not in allowed:
        raise SystemExit(f"clip-har {' '.join(words)} ended with {code}")
    return code


def _address(process: subprocess.Popen[str]) -> str:
    """What a service prints when it is ready."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return found[0]
    raise SystemExit("The service did not start.")


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as Python's own server does; gives the address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    sys.exit(main())
